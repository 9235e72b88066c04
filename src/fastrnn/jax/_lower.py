# SPDX-License-Identifier: BSD-3-Clause
"""How a forward or a backward of one layer gets into a program of XLA.

There are two ways in: XLA's typed FFI (`_ffi`), and, where that cannot be had, a
callback. A call by FFI is the faster one for every size that was measured, on one
thread and on two: the callback below takes 1.1 to 1.3 times as long where few numbers
go in and out (20 microseconds in place of 17), and 2 to 4 times from a million of them
on, which it copies; `jax.pure_callback` takes 6 and 2 to 4 times as long.
"""

import atexit
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.interpreters import mlir

from fastrnn.jax import _ffi
from fastrnn.jax._call import Call, run


def lower(ctx: mlir.LoweringRuleContext, *operands: Any, call: Call) -> Sequence[Any]:
    """The lowering of a call for the CPU: results of XLA from operands of XLA.

    Parameters
    ----------
    ctx : LoweringRuleContext
        ``ctx.avals_in`` and ``ctx.avals_out`` have shapes and dtypes of operands and
        results, as `Call` says.
    *operands : ir.Value
    call : Call
        Its direction is "forward" or "backward", its `site` is not None.
    """
    way = _by_callback if _ffi.problem() else _ffi.lower
    return way(ctx, *operands, call=call)


def _by_callback(ctx, *operands, call):
    """A call of Python from XLA, which hands NumPy arrays over and copies the results.

    `jax.pure_callback` would make arrays of JAX of the operands, and to look into such
    an array within a callback can wait for ever for a thread that the callback itself
    holds.
    """
    _wait_at_exit()
    avals = ctx.avals_out

    def callback(*arrays):
        results = [np.empty(aval.shape, aval.dtype) for aval in avals]
        run(call, arrays, results)
        return results

    found, _, _ = mlir.emit_python_callback(
        ctx,
        callback,
        None,
        list(operands),
        ctx.avals_in,
        avals,
        has_side_effect=False,
        returns_token=False,
    )
    return found


@functools.cache
def _wait_at_exit():
    """Has callbacks done before the interpreter ends: one amid its end kills it."""
    atexit.register(_wait)


def _wait():
    for array in jax.live_arrays():
        if not array.is_deleted():
            array.block_until_ready()
