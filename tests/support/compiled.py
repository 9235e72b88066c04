# SPDX-License-Identifier: BSD-3-Clause
"""The compiled modules of the package, found where they are installed."""

import importlib
import inspect
import pkgutil
from importlib.machinery import EXTENSION_SUFFIXES

from fastrnn import native

_FOUND = (
    importlib.import_module(f"{native.__name__}.{found.name}")
    for found in pkgutil.iter_modules(native.__path__)
)
MODULES = tuple(
    module
    for module in _FOUND
    if inspect.getfile(module).endswith(tuple(EXTENSION_SUFFIXES))
)
