# SPDX-License-Identifier: BSD-3-Clause
"""RNN, LSTM and GRU networks trained and run on the CPU, at the speed of the CPU."""

from importlib.metadata import version as _version

from fastrnn import init
from fastrnn._threads import get_num_threads, set_num_threads
from fastrnn.module import Module
from fastrnn.recurrent import GRU, LSTM, RNN

__version__ = _version("fastrnn")

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Module",
    "get_num_threads",
    "init",
    "set_num_threads",
    "show_config",
]


def show_config():
    """Print what this build can do and what is in use.

    Examples
    --------
    >>> show_config()  # doctest: +ELLIPSIS
    fastrnn ...
    """
    from fastrnn import _core

    rows = {
        "built targets": " ".join(_core.BUILT),
        "supported here": " ".join(_core.SUPPORTED),
        "active target": _core.active_target(),
        "OpenMP": "yes" if _core.OPENMP else "no",
        "threads": get_num_threads(),
        "compiler": _core.COMPILER,
    }
    print(f"fastrnn {__version__}")
    for name, value in rows.items():
        print(f"{name:<15} {value}")
