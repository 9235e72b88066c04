# SPDX-License-Identifier: BSD-3-Clause
"""Layers of Keras on its JAX backend, by the functions of `fastrnn.jax`."""

import jax
import keras

from fastrnn.jax import _primitives

SUPPORTS_JIT = True
# Keras takes the state before the first step for the output before it.
SHOWS_INITIAL_STATE = True


def problem(layer, x, states, mask):
    """Why the kernels cannot run a call on this backend, or None; see `layers`."""
    if jax.default_backend() != "cpu":
        return f"JAX computes on the {jax.default_backend()}"
    if keras.distribution.distribution() is not None:
        return "keras.distribution shares the model among devices"
    if layer.cell.kernel.value.dtype != layer.compute_dtype:
        return "JAX has no float64 unless jax_enable_x64 is set"
    return None


def run(form, x, h0, c0, weights, mask, hold, site):
    """Run one layer in one direction; see `layers`.

    `site` is not needed: in a program of JAX each layer has a place of its own.
    """
    y, h_n, *c_n = _primitives.forward(
        form, weights, x, h0, c0, mask, hold=hold, batch_first=True
    )
    return y, h_n, c_n[0] if c_n else None
