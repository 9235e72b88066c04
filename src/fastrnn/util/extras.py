# SPDX-License-Identifier: BSD-3-Clause
"""Optional packages, and how to get them."""

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
    ModuleNotFoundError
        If it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ModuleNotFoundError(
            f"{who}: needs the package {package}, which is not installed: "
            f"pip install 'fastrnn[{extra}]'",
            name=package,
        ) from error


def pyplot(who):
    """The module `matplotlib.pyplot`, or an error that says how to get it."""
    require(who, "matplotlib", "data")
    return importlib.import_module("matplotlib.pyplot")
