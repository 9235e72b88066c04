# SPDX-License-Identifier: BSD-3-Clause
"""What `jax.vmap` makes of a call: one call of more rows, or one for each element.

Where the weights are the same for all elements of the axis, and nobody asks for the
gradients of the weights of each, the axis becomes one with that of the batch. Otherwise
it leads, and each of its elements is a call of its own: see `Call.groups`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from fastrnn.jax._call import WEIGHTS, Call


def batch(
    bind: Callable[..., Sequence[Array]],
    operands: Sequence[Array],
    axes: Sequence[int | None],
    *,
    call: Call,
) -> tuple[list[Array], list[int]]:
    """The batching rule of a primitive that is bound to operands and a call.

    Parameters
    ----------
    bind : callable
    operands : sequence of Array
    axes : sequence of (int or None)
        The axis of each operand that vmap is over, None where all have the same.
    call : Call
        For one element of the axis.

    Returns
    -------
    results : list of Array
    axes : list of int
    """
    size = next(
        a.shape[k] for a, k in zip(operands, axes, strict=True) if k is not None
    )
    mapped_weights = any(
        _is_weight(name) and axis is not None
        for name, axis in zip(call.operands, axes, strict=True)
    )
    if mapped_weights or any(_is_weight(name) for name in call.results):
        return _as_groups(bind, operands, axes, call, size)
    return _as_rows(bind, operands, axes, call, size)


def _as_rows(bind, operands, axes, call, size):
    rows = [
        a if _is_weight(name) else _merged(a, axis, _row_axis(name, call) + has, size)
        for name, a, axis, has in zip(
            call.operands, operands, axes, flags(call), strict=True
        )
    ]
    in_front = call.groups is not None
    at = [_row_axis(name, call) + in_front for name in call.results]
    results = bind(*rows, call=call)
    n_rows = _n_rows(operands, axes, call)
    return [_parted(a, k, size, n_rows) for a, k in zip(results, at, strict=True)], at


def _as_groups(bind, operands, axes, call, size):
    inner = 1 if call.groups is None else call.groups
    led = [
        a if axis is None and not has else _led(a, axis, has, size, inner)
        for a, axis, has in zip(operands, axes, flags(call), strict=True)
    ]
    grouped = [
        axis is not None or has for axis, has in zip(axes, flags(call), strict=True)
    ]
    results = bind(
        *led, call=call._replace(groups=size * inner, grouped=tuple(grouped))
    )
    if call.groups is not None:
        results = [_parted(a, 0, size, inner) for a in results]
    return results, [0] * len(results)


def flags(call: Call) -> tuple[bool, ...]:
    """`Call.grouped`, also for a call without groups."""
    return call.grouped or (False,) * len(call.operands)


def _merged(a, axis, k, size):
    """An operand with the axis of vmap and axis k, that of its rows, as one."""
    a = _mapped(a, axis, k, size)
    return a.reshape(*a.shape[:k], size * a.shape[k + 1], *a.shape[k + 2 :])


def _led(a, axis, has_groups, size, inner):
    """An operand with the axes of vmap and of groups, as one, in front."""
    a = _mapped(a, axis, 0, size)
    if not has_groups:
        a = _mapped(a, None, 1, inner)
    return a.reshape(size * inner, *a.shape[2:])


def _mapped(a: Any, axis: int | None, k: int, size: int) -> Array:
    """An operand with the axis of vmap at k, repeated along it if it has none."""
    if axis is not None:
        return jnp.moveaxis(a, axis, k)
    return jnp.broadcast_to(jnp.expand_dims(a, k), (*a.shape[:k], size, *a.shape[k:]))


def _parted(a, k, size, inner):
    """A result whose axis k was `_merged`, with the axis of vmap at k."""
    return a.reshape(*a.shape[:k], size, inner, *a.shape[k + 1 :])


def _n_rows(operands, axes, call):
    """The size of the batch of one element of the axis of vmap."""
    at = call.operands.index("x")
    shape = [n for k, n in enumerate(operands[at].shape) if k != axes[at]]
    return shape[-3] if call.batch_first else shape[-2]


def _is_weight(name):
    """Whether an operand or a result is a weight, or a weight's tangent or gradient."""
    return name.removeprefix("t_").removeprefix("d") in WEIGHTS


def _row_axis(name, call):
    if name == "tape":
        return 1
    is_sequence = name.removeprefix("t_").removeprefix("d") in ("x", "y", "mask")
    return 1 if is_sequence and not call.batch_first else 0
