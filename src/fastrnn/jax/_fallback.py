# SPDX-License-Identifier: BSD-3-Clause
"""When a call runs as `jax.lax.scan` and not on the kernels, which is said once."""

import threading
import warnings

from jax.interpreters import mlir

_said: set[str] = set()
_lock = threading.Lock()


def say(why: str) -> None:
    """Warn that a call runs as `jax.lax.scan`, the first time for each reason."""
    with _lock:
        if why in _said:
            return
        _said.add(why)
    warnings.warn(
        f"fastrnn.jax: {why} runs as jax.lax.scan, at JAX's own speed, and not on "
        "fastrnn's kernels (said once)",
        RuntimeWarning,
        stacklevel=2,
    )


def reason(ctx: mlir.LoweringRuleContext) -> str | None:
    """Why a program that is being lowered cannot have the kernels; None if it can."""
    module = ctx.module_context
    platforms = tuple(ctx.platforms or module.platforms)
    if module.lowering_parameters.for_export:
        return "an exported function, which is to run elsewhere,"
    if platforms != ("cpu",):
        return f"a layer on {' and '.join(platforms)}"
    context = module.axis_context
    if isinstance(context, mlir.ShardingContext):
        n_devices = context.num_devices
    elif isinstance(context, mlir.SPMDAxisContext):
        n_devices = context.mesh.size
    else:
        return "a layer within pmap"
    if n_devices > 1:
        return f"a layer that is sharded over {n_devices} devices"
    return None
