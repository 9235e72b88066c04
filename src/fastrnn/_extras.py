# SPDX-License-Identifier: BSD-3-Clause
"""What readers of other libraries' files share: optional packages, damaged files."""

import contextlib
import importlib


def require(who, package, extra):
    """Import an optional package, or say how to get it.

    Parameters
    ----------
    who : str
        The function that needs it.
    package : str
        Name to import.
    extra : str
        The extra of fastrnn that installs it.

    Returns
    -------
    module

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ImportError(
            f"{who}: needs the package {package}, which is not installed: "
            f"pip install 'fastrnn[{extra}]'"
        ) from error


@contextlib.contextmanager
def reading(who, kind):
    """Let a file whose parts are not what they should be raise ValueError.

    Parameters
    ----------
    who : str
        Function and file.
    kind : str
        What the file should be.
    """
    wrong = AttributeError, LookupError, OverflowError, RuntimeError, TypeError
    try:
        yield
    except wrong as error:
        raise ValueError(
            f"{who}: must be {kind}, got one that is damaged or of an unknown make: "
            f"{type(error).__name__}: {error}"
        ) from error
