# SPDX-License-Identifier: BSD-3-Clause
"""`Later`: modules that are imported when something of them is first asked for.

For modules that few runs need and that cost every run time to import. The line that
makes one is at the top of a file, where imports are; checkers are shown the import::

    if TYPE_CHECKING:
        import shutil
    else:
        shutil = Later("shutil")
"""

from __future__ import annotations

import importlib
from typing import Any


class Later:
    """A module that is imported at the first look at one of its names.

    Parameters
    ----------
    name : str
        The module's whole name.

    Examples
    --------
    >>> shutil = Later("shutil")
    >>> shutil.get_terminal_size().columns > 0
    True
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what copying and doctest ask any object for
            raise AttributeError(f"{self._name} is not imported yet, got {name!r}")
        return getattr(importlib.import_module(self._name), name)

    def __repr__(self) -> str:
        return f"Later({self._name!r})"
