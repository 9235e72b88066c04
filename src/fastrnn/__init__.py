# SPDX-License-Identifier: BSD-3-Clause
"""RNN, LSTM and GRU networks trained and run on the CPU, at the speed of the CPU."""

from importlib.metadata import version as _version

from fastrnn import init
from fastrnn._threads import get_num_threads, set_num_threads
from fastrnn.clip import clip_grad_norm_, clip_grad_value_
from fastrnn.layers import Dropout, Embedding, Linear, Sequential
from fastrnn.losses import cross_entropy, mse_loss
from fastrnn.module import Module
from fastrnn.optim import SGD, Adagrad, Adam, AdamW, RMSprop
from fastrnn.recurrent import GRU, LSTM, RNN
from fastrnn.stream import Stream

__version__ = _version("fastrnn")

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Dropout",
    "Embedding",
    "Linear",
    "Module",
    "RMSprop",
    "Sequential",
    "Stream",
    "clip_grad_norm_",
    "clip_grad_value_",
    "cross_entropy",
    "get_num_threads",
    "init",
    "mse_loss",
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
