# SPDX-License-Identifier: BSD-3-Clause
"""RNN, LSTM and GRU networks trained and run on the CPU, at the speed of the CPU.

Layers are `LSTM`, `GRU`, `RNN`, `MGU`, `LiGRU`, `Linear` and others; `Sequential`
makes a model of them, which is compiled, fitted and asked as in Keras. Functions that
fill parameters are in `fastrnn.init`, what is named in `compile` and `fit` in
`fastrnn.objectives`, `fastrnn.metrics`, `fastrnn.callbacks` and `fastrnn.schedules`;
`fastrnn.distributed` is for training by several processes.

These need other packages, and are imported when they are first asked for:
`fastrnn.torch` (PyTorch's layers on these kernels), `fastrnn.jax` (functions for JAX),
`fastrnn.keras` and `fastrnn.onnx` (files of others), `fastrnn.sklearn` (estimators).

>>> import fastrnn, numpy as np
>>> waves = np.sin(0.2 * np.arange(51) + np.linspace(0, 6, 64)[:, None])[..., None]
>>> lstm, head = fastrnn.LSTM(None, 16, seed=1), fastrnn.Linear(None, 1, seed=2)
>>> model = fastrnn.Sequential(lstm, head)
>>> model.compile("mse", "adam", lr=1e-2)
>>> history = model.fit(waves[:, :-1], waves[:, 1:], epochs=3, seed=3, verbose=0)
>>> model.predict(waves).shape
(64, 51, 1)
"""

from __future__ import annotations

import importlib as _importlib
from typing import TYPE_CHECKING

from fastrnn import callbacks, distributed, init, metrics, objectives, schedules
from fastrnn.data.pairs import teacher_forcing
from fastrnn.data.sequences import (
    BucketSampler,
    mask_from_lengths,
    pack,
    pad_sequences,
    unpack,
)
from fastrnn.data.series import one_hot, split_by_time, windows
from fastrnn.generation.generate import Generator
from fastrnn.generation.sampling import sample
from fastrnn.generation.search import Generated
from fastrnn.generation.seq2seq import EncoderDecoder
from fastrnn.losses.crf import CRF
from fastrnn.losses.ctc import ctc_beam_search, ctc_greedy_decode, ctc_loss
from fastrnn.losses.functions import cross_entropy, mse_loss
from fastrnn.native.config import VERSION, show_config
from fastrnn.native.threads import get_num_threads, set_num_threads
from fastrnn.nn.activation import Activation, ReLU, Sigmoid, Softmax, Tanh
from fastrnn.nn.attention import Attention
from fastrnn.nn.batch_norm import BatchNormalization
from fastrnn.nn.convolution import Conv1D
from fastrnn.nn.embedding import Embedding
from fastrnn.nn.layers import Dropout, Linear
from fastrnn.nn.masking import Masking
from fastrnn.nn.merging import (
    Add,
    Average,
    Concatenate,
    Maximum,
    Minimum,
    Multiply,
    Subtract,
)
from fastrnn.nn.module import Module
from fastrnn.nn.norm import LayerNorm
from fastrnn.nn.pooling import (
    AveragePooling1D,
    GlobalAveragePooling1D,
    GlobalMaxPooling1D,
    MaxPooling1D,
)
from fastrnn.nn.reshaping import Flatten, Permute, RepeatVector, Reshape
from fastrnn.nn.spatial_dropout import SpatialDropout1D
from fastrnn.nn.wrappers import TimeDistributed
from fastrnn.recurrent import (
    GRU,
    LSTM,
    MGU,
    RNN,
    SLSTM,
    SRU,
    IndRNN,
    LeakyRNN,
    LiGRU,
    MinGRU,
    MinLSTM,
)
from fastrnn.recurrent.bidirectional import Bidirectional
from fastrnn.recurrent.diagnosis import Diagnosis, diagnose
from fastrnn.recurrent.stream import Stream
from fastrnn.recurrent.tbptt import Window, tbptt
from fastrnn.text.tokenizers import CharTokenizer, WordTokenizer
from fastrnn.text.vocabulary import Vocabulary
from fastrnn.train.clip import clip_grad_norm_, clip_grad_value_
from fastrnn.train.functional import Functional
from fastrnn.train.input_shape import Input
from fastrnn.train.loading import load_model
from fastrnn.train.model import Model
from fastrnn.train.optim import SGD, Adagrad, Adam, AdamW, RMSprop
from fastrnn.train.quantizing import quantize
from fastrnn.train.sequential import Sequential
from fastrnn.util.keras_names import answer_for as _answer_for
from fastrnn.util.seeds import set_seed

# Keras's names of these.
Dense, SimpleRNN = Linear, RNN

__version__ = VERSION

__all__ = [
    "CRF",
    "GRU",
    "LSTM",
    "MGU",
    "RNN",
    "SGD",
    "SLSTM",
    "SRU",
    "Activation",
    "Adagrad",
    "Adam",
    "AdamW",
    "Add",
    "Attention",
    "Average",
    "AveragePooling1D",
    "BatchNormalization",
    "Bidirectional",
    "BucketSampler",
    "CharTokenizer",
    "Concatenate",
    "Conv1D",
    "Dense",
    "Diagnosis",
    "Dropout",
    "Embedding",
    "EncoderDecoder",
    "Flatten",
    "Functional",
    "Generated",
    "Generator",
    "GlobalAveragePooling1D",
    "GlobalMaxPooling1D",
    "IndRNN",
    "Input",
    "LayerNorm",
    "LeakyRNN",
    "LiGRU",
    "Linear",
    "Masking",
    "MaxPooling1D",
    "Maximum",
    "MinGRU",
    "MinLSTM",
    "Minimum",
    "Model",
    "Module",
    "Multiply",
    "Permute",
    "RMSprop",
    "ReLU",
    "RepeatVector",
    "Reshape",
    "Sequential",
    "Sigmoid",
    "SimpleRNN",
    "Softmax",
    "SpatialDropout1D",
    "Stream",
    "Subtract",
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
    "distributed",
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
    "quantize",
    "sample",
    "schedules",
    "set_num_threads",
    "set_seed",
    "show_config",
    "split_by_time",
    "tbptt",
    "teacher_forcing",
    "unpack",
    "windows",
]

# Imported at first use: each is of no use without a package that few have.
_LATER = ("jax", "keras", "onnx", "sklearn", "torch")

if TYPE_CHECKING:
    from fastrnn import jax as jax
    from fastrnn import keras as keras
    from fastrnn import onnx as onnx
    from fastrnn import sklearn as sklearn
    from fastrnn import torch as torch
else:  # a checker that saw this would believe in every name

    def __getattr__(name):
        if name not in _LATER:
            answer = _answer_for(name)
            raise AttributeError(f"module 'fastrnn' has no attribute {name!r}{answer}")
        try:
            return _importlib.import_module(f"fastrnn.{name}")
        except ImportError as error:
            # What looks a module through, as help() does, expects no other error.
            raise AttributeError(f"fastrnn.{name} cannot be used: {error}") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
