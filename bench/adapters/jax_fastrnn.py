# SPDX-License-Identifier: BSD-3-Clause
"""The adapter of `fastrnn.jax`: its functions where the one of JAX has ``lax.scan``."""

from functools import partial

import fastrnn
import fastrnn.jax
from bench.adapters import form_of, jax
from bench.case import LayerCase

CASES = (LayerCase,)


def start(n_threads, dtype):
    fastrnn.set_num_threads(n_threads)
    about = jax.start(n_threads, dtype)
    return {**about, "versions": {"fastrnn": fastrnn.__version__, **about["versions"]}}


def _lstm(p, x, state):
    return fastrnn.jax.lstm(p, x, state)


def _one_state(function, p, x, state):
    y, h = function(p, x, *state)
    return y, (h,)


SEQUENCES = {
    "lstm": _lstm,
    "gru": partial(_one_state, fastrnn.jax.gru),
    "rnn": partial(_one_state, fastrnn.jax.rnn),
    "rnn_relu": partial(_one_state, partial(fastrnn.jax.rnn, nonlinearity="relu")),
}


def variants(case, dtype):
    side = jax.Step if case.direction == "step" else jax.Layer
    sequence = form_of(SEQUENCES, case)
    return {"fastrnn.jax": partial(side, case, dtype, sequence)}
