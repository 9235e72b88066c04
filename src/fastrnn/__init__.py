# SPDX-License-Identifier: BSD-3-Clause
"""RNN, LSTM and GRU networks trained and run on the CPU, at the speed of the CPU."""

import importlib as _importlib
from importlib.metadata import version as _version

from fastrnn import callbacks, init, metrics, objectives, schedules
from fastrnn._search import Generated
from fastrnn._threads import get_num_threads, set_num_threads
from fastrnn.activations import Activation, ReLU, Sigmoid, Softmax, Tanh
from fastrnn.attention import Attention
from fastrnn.bidirectional import Bidirectional
from fastrnn.clip import clip_grad_norm_, clip_grad_value_
from fastrnn.crf import CRF
from fastrnn.ctc import ctc_beam_search, ctc_greedy_decode, ctc_loss
from fastrnn.data import one_hot, split_by_time, windows
from fastrnn.diagnose import Diagnosis, diagnose
from fastrnn.generate import Generator, teacher_forcing
from fastrnn.layers import Dropout, Embedding, Linear
from fastrnn.losses import cross_entropy, mse_loss
from fastrnn.masking import Masking
from fastrnn.model import Model
from fastrnn.module import Module
from fastrnn.optim import SGD, Adagrad, Adam, AdamW, RMSprop
from fastrnn.recurrent import GRU, LSTM, RNN
from fastrnn.sampling import sample
from fastrnn.saving import load_model
from fastrnn.seq2seq import EncoderDecoder
from fastrnn.sequences import (
    BucketSampler,
    mask_from_lengths,
    pack,
    pad_sequences,
    unpack,
)
from fastrnn.sequential import Sequential
from fastrnn.stream import Stream
from fastrnn.tbptt import Window, tbptt
from fastrnn.tokenizers import CharTokenizer, WordTokenizer
from fastrnn.vocabulary import Vocabulary
from fastrnn.wrappers import Concatenate, LayerNorm, TimeDistributed

__version__ = _version("fastrnn")

__all__ = [
    "CRF",
    "GRU",
    "LSTM",
    "RNN",
    "SGD",
    "Activation",
    "Adagrad",
    "Adam",
    "AdamW",
    "Attention",
    "Bidirectional",
    "BucketSampler",
    "CharTokenizer",
    "Concatenate",
    "Diagnosis",
    "Dropout",
    "Embedding",
    "EncoderDecoder",
    "Generated",
    "Generator",
    "LayerNorm",
    "Linear",
    "Masking",
    "Model",
    "Module",
    "RMSprop",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Stream",
    "Tanh",
    "TimeDistributed",
    "Vocabulary",
    "Window",
    "WordTokenizer",
    "callbacks",
    "clip_grad_norm_",
    "clip_grad_value_",
    "cross_entropy",
    "ctc_beam_search",
    "ctc_greedy_decode",
    "ctc_loss",
    "diagnose",
    "get_num_threads",
    "init",
    "load_model",
    "mask_from_lengths",
    "metrics",
    "mse_loss",
    "objectives",
    "one_hot",
    "pack",
    "pad_sequences",
    "sample",
    "schedules",
    "set_num_threads",
    "show_config",
    "split_by_time",
    "tbptt",
    "teacher_forcing",
    "unpack",
    "windows",
]

# Imported at first use: each is of no use without a package that few have.
_LATER = ("keras", "onnx", "sklearn", "torch")


def __getattr__(name):
    if name in _LATER:
        return _importlib.import_module(f"fastrnn.{name}")
    raise AttributeError(f"module 'fastrnn' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_LATER})


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
