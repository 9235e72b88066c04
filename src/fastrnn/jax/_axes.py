# SPDX-License-Identifier: BSD-3-Clause
"""Operands within `jax.shard_map` and meshes, whose types say how they are spread."""

from collections.abc import Callable, Sequence

import jax
from jax import Array
from jax.sharding import PartitionSpec


def alike(arrays: Sequence[Array]) -> list[Array]:
    """The same arrays, each varying along all axes along which one of them varies.

    Within `jax.shard_map` an array's type has the axes of the mesh along which devices
    have different arrays, and JAX adds gradients up where an array was made to vary.
    """
    varying = [jax.typeof(a).manual_axis_type.varying for a in arrays]
    everywhere = frozenset().union(*varying)
    return [
        jax.lax.pcast(a, tuple(sorted(everywhere - own)), to="varying")
        for a, own in zip(arrays, varying, strict=True)
    ]


def automatic(
    function: Callable[..., Sequence[Array]],
    operands: Sequence[Array],
    x: Array,
    rows: int,
    n_states: int,
) -> Sequence[Array]:
    """Call a function of operands, letting XLA find the shardings inside.

    Parameters
    ----------
    function : callable
        Of the operands; returns a sequence like x and then `n_states` states.
    operands : sequence of Array
    x : Array
        The sequence among them, of which an explicit mesh says how it is sharded.
    rows : int
        The axis of x that is the batch. Results are sharded as it is, along the batch.
    """
    if not jax.sharding.get_abstract_mesh().explicit_axes:
        return function(*operands)
    along = jax.typeof(x).sharding.spec[rows]
    of_y = PartitionSpec(*(along if k == rows else None for k in range(3)))
    of_states = (PartitionSpec(along, None),) * n_states
    return jax.sharding.auto_axes(function, out_sharding=(of_y, *of_states))(*operands)
