# SPDX-License-Identifier: BSD-3-Clause
"""Recurrent layers for programs of JAX on the CPU, as pure functions.

`lstm`, `gru` and `rnn` run on fastrnn's kernels, forward and backward, within
`jax.jit`, `jax.grad`, `jax.vmap`, `jax.checkpoint` and `jax.lax.scan`.
"""

try:
    import jax as _jax  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "jax":
        raise
    raise ModuleNotFoundError(
        "fastrnn.jax needs JAX, which is not installed: pip install 'fastrnn[jax]'",
        name=error.name,
    ) from error

from fastrnn.jax._flax import from_flax, to_flax
from fastrnn.jax._haiku import from_haiku, to_haiku
from fastrnn.jax._layers import gru, lstm, rnn

__all__ = ["from_flax", "from_haiku", "gru", "lstm", "rnn", "to_flax", "to_haiku"]
