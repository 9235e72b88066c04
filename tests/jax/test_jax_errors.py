# SPDX-License-Identifier: BSD-3-Clause
"""What fastrnn.jax refuses, and in which words."""

import re

import numpy as np
import pytest

pytest.importorskip("jax", reason="JAX is not installed")

import jax
import jax.numpy as jnp

import fastrnn.jax

PARAMS = {"weight_ih": jnp.ones((20, 3)), "weight_hh": jnp.ones((20, 5))}
X = jnp.ones((7, 2, 3))
STATE = jnp.ones((2, 5))


def params(**changed):
    return {**PARAMS, **changed}


CASES = [
    (TypeError, {"params": [1]}, "params must be a dict of arrays, got list"),
    (
        ValueError,
        {"params": params(bias_ih=jnp.ones(20))},
        "params must have weight_ih and weight_hh and, both or neither, bias_ih and "
        "bias_hh; got weight_ih, weight_hh, bias_ih",
    ),
    (
        ValueError,
        {"params": {"weight_ih_l0": X}},
        "params must have weight_ih and weight_hh and, both or neither, bias_ih and "
        "bias_hh; got weight_ih_l0",
    ),
    (
        TypeError,
        {"params": params(weight_ih=[[1.0]])},
        "params['weight_ih'] must be an array, got list",
    ),
    (
        ValueError,
        {"params": params(weight_hh=jnp.ones((5, 20)))},
        "params['weight_hh'] must have shape (4H, H), got (5, 20)",
    ),
    (
        ValueError,
        {"params": params(weight_ih=jnp.ones((20, 4)))},
        "params['weight_ih'] must have shape (4H, I) = (20, 3), got (20, 4)",
    ),
    (
        ValueError,
        {"params": params(bias_ih=jnp.ones(5), bias_hh=jnp.ones(20))},
        "params['bias_ih'] must have shape (4H,) = (20,), got (5,)",
    ),
    (
        TypeError,
        {"params": params(weight_hh=jnp.ones((20, 5), "bfloat16"))},
        "params['weight_hh'] must be float32 like x, got bfloat16",
    ),
    (TypeError, {"x": X.tolist()}, "x must be an array, got list"),
    (
        TypeError,
        {"x": np.zeros((7, 2, 3), ">f4")},
        "x must be numbers in this machine's byte order, got dtype >f4",
    ),
    (
        TypeError,
        {"x": np.ma.zeros((7, 2, 3), "float32")},
        "x must not be a masked array; fill it first",
    ),
    (ValueError, {"x": X[0, 0]}, "x must have shape (T, B, I) or (T, I), got (3,)"),
    (
        TypeError,
        {"x": X.astype("bfloat16")},
        "x must be float32 or float64, got bfloat16; x.astype('float32') makes it so",
    ),
    (
        TypeError,
        {"x": X.astype("int32")},
        "x must be float32 or float64, got int32",
    ),
    (
        ValueError,
        {"x": X[..., :0]},
        "I and H must be at least 1, got 0 and 5",
    ),
    (TypeError, {"state": STATE}, "state must be a tuple (h, c), got "),
    (
        ValueError,
        {"state": (STATE, STATE[0])},
        "c of state must have shape (B, H) = (2, 5), got (5,)",
    ),
    (
        TypeError,
        {"state": (STATE, STATE.astype("float16"))},
        "c of state must be float32 like x, got float16",
    ),
    (ValueError, {"state": (STATE,)}, "state must be a tuple (h, c), got 1 parts"),
    (TypeError, {"lengths": jnp.ones(2)}, "lengths must be integers, got float32"),
    (ValueError, {"lengths": [1, [7]]}, "lengths must be an array of integers, got [1"),
    (TypeError, {"lengths": [1, 2**70]}, "lengths must be integers, got object"),
    (
        ValueError,
        {"lengths": np.array([1, 2**32 + 1])},
        "lengths must be from 0 to T = 7, got [1, 4294967297]",
    ),
    (TypeError, {"lengths": "7"}, "lengths must be an array, got str"),
    (
        ValueError,
        {"lengths": np.array([7])},
        "lengths must have shape (B,) = (2,), got (1,)",
    ),
    (
        ValueError,
        {"lengths": [8, 1]},
        "lengths must be from 0 to T = 7, got [8, 1]",
    ),
    (ValueError, {"lengths": [1, -1]}, "lengths must be from 0 to T = 7, got [1, -1]"),
]


@pytest.mark.parametrize(("error", "changed", "message"), CASES)
def test_an_argument_is_refused(error, changed, message):
    arguments = {"params": PARAMS, "x": X, **changed}
    with pytest.raises(error, match=re.escape(f"fastrnn.jax.lstm: {message}")):
        fastrnn.jax.lstm(**arguments)


def test_a_state_of_a_gru_is_one_array():
    gru = {"weight_ih": jnp.ones((15, 3)), "weight_hh": jnp.ones((15, 5))}
    with pytest.raises(TypeError, match="gru: state must be an array, got tuple"):
        fastrnn.jax.gru(gru, X, (STATE, STATE))


def test_a_nonlinearity_is_refused():
    with pytest.raises(
        ValueError, match="rnn: nonlinearity must be 'tanh' or 'relu', got 'sigmoid'"
    ):
        fastrnn.jax.rnn(PARAMS, X, nonlinearity="sigmoid")


def test_a_trace_is_refused_alike():
    with pytest.raises(ValueError, match="x must have shape"):
        jax.jit(fastrnn.jax.lstm)(PARAMS, X[0, 0])
