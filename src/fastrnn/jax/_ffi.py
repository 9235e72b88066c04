# SPDX-License-Identifier: BSD-3-Clause
"""Calls of layers from programs of XLA by its typed FFI, on XLA's own buffers.

All that a call is stands in the program, as text: a program that was compiled by one
process and comes from JAX's cache in another one does the same there.
"""

import functools
import json
from collections.abc import Sequence
from typing import Any

import jax
import jaxlib
from jax.interpreters import mlir

from fastrnn.jax._call import Call, run
from fastrnn.recurrent.pure import Form

try:
    from fastrnn.native import xla
except ImportError:  # this build was offered no headers of XLA's
    xla = None

TARGET = "fastrnn_call"

# So many texts are kept as the calls that they stand for.
_MOST_CALLS = 1024


@functools.cache
def problem() -> str | None:
    """Why programs of XLA cannot call layers by FFI; None where they can.

    The first time, this registers the target with XLA.
    """
    if xla is None:
        return (
            "fastrnn was built without XLA's headers, so that it has no module "
            "fastrnn.native.xla"
        )
    # A target that XLA refuses keeps it from starting if it is registered before.
    jax.local_devices(backend="cpu")
    xla.set_function(_execute)
    try:
        jax.ffi.register_ffi_target(TARGET, xla.target(), platform="cpu")
    except jax.errors.JaxRuntimeError as error:
        return (
            f"fastrnn was built for version {'.'.join(map(str, xla.VERSION))} of the "
            f"FFI of XLA, which jaxlib {jaxlib.__version__} refuses: {error}"
        )
    return None


def lower(ctx: mlir.LoweringRuleContext, *operands: Any, call: Call) -> Sequence[Any]:
    """As `_lower.lower`, where there is no `problem`."""
    return jax.ffi.ffi_lowering(TARGET)(ctx, *operands, call=text_of(call))


def text_of(call: Call) -> str:
    """A call as text, from which `call_of` makes it again.

    A place where packed weights are kept (`site`) need only be told apart from other
    places: one that JSON has no words for comes back as text.
    """
    return json.dumps(call, default=repr, separators=(",", ":"))


@functools.lru_cache(_MOST_CALLS)
def call_of(text: str | bytes) -> Call:
    """The call that `text_of` has made text of."""
    form, *rest = _tuples(json.loads(text))
    return Call(Form(*form), *rest)


def _tuples(value):
    """What JSON reads as a list has been a tuple."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _execute(text, operands, results):
    run(call_of(text), operands, results)
