# SPDX-License-Identifier: BSD-3-Clause
"""The primitives of JAX that stand for calls, and what transformations do to them.

The derivative of ``forward`` is ``linear``, which maps tangents of the operands to
those of the results. Reverse mode transposes it, which gives ``backward``; forward and
backward run on the kernels, and what is kept between them is arrays. Only forward mode
computes ``linear`` itself. That, and the derivatives of ``linear`` and ``backward``, is
done by `jax.lax.scan`, and said once.
"""

import itertools
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir, partial_eval

from fastrnn.jax import _fallback, _scan
from fastrnn.jax._axes import alike, automatic
from fastrnn.jax._batching import batch, flags
from fastrnn.jax._call import WEIGHTS, Call, tape_width
from fastrnn.jax._lower import lower
from fastrnn.recurrent.pure import Form


class _Site(NamedTuple):
    """A place in a program, as `Call.site` names it where the caller has not."""

    number: int


_numbers = itertools.count()


def _new_site():
    return _Site(next(_numbers))


def forward(
    form: Form,
    weights: Sequence[Array],
    x: Array,
    h0: Array,
    c0: Array | None,
    mask: Array | None = None,
    *,
    hold: bool = True,
    batch_first: bool = False,
    site: object = None,
) -> tuple[Array, ...]:
    """One layer in one direction: y, h_n and, for an LSTM, c_n.

    Parameters
    ----------
    form : Form
    weights : sequence of Array
        As `pure.Recurrence` has them.
    x : Array, shape (T, B, I), or (B, T, I) if `batch_first`
    h0, c0 : Array, shape (B, H)
        `c0` is None but for an LSTM.
    mask : Array of bool, shape (T, B) or (B, T), optional
        False at steps that are left out.
    hold : bool
        Whether y shows the output before at such steps, and not zero.
    batch_first : bool
    site : hashable, optional
        Where packed weights are kept; a place of its own for each place in a program.
    """
    given = dict(zip(WEIGHTS, weights, strict=False)) | {"x": x, "h0": h0}
    given |= {} if c0 is None else {"c0": c0}
    given |= {} if mask is None else {"mask": mask}
    call = Call(
        form,
        "forward",
        tuple(given),
        ("y", "h_n") if c0 is None else ("y", "h_n", "c_n"),
        hold=hold,
        batch_first=batch_first,
        site=site,
    )
    return automatic(
        lambda *operands: tuple(_forward_p.bind(*alike(operands), call=call)),
        *(tuple(given.values()), x, 0 if batch_first else 1, len(call.results) - 1),
    )


# -- the three primitives --------------------------------------------------------------


def _primitive(name):
    found = Primitive(f"fastrnn_{name}")
    found.multiple_results = True
    found.def_impl(partial(_run_eagerly, found))
    found.def_abstract_eval(_avals_of_results)
    batching.primitive_batchers[found] = partial(batch, found.bind)
    return found


def _run_eagerly(primitive, *operands, call):
    if isinstance(call.site, _Site):  # of a program that is not compiled as a whole
        call = call._replace(site=None)
    with jax.disable_jit(False):
        return _compiled(primitive, call)(*operands)


@lru_cache(maxsize=4096)
def _compiled(primitive, call):
    return jax.jit(partial(primitive.bind, call=call))


def _avals_of_results(*avals, call):
    x = avals[call.operands.index("x")]
    outer = x.shape[-3:-1]
    shapes = call.shapes(*(outer[::-1] if call.batch_first else outer))
    return [
        x.update(shape=shape, dtype=dtype, weak_type=False) for shape, dtype in shapes
    ]


_forward_p, _linear_p, _backward_p = map(_primitive, ("forward", "linear", "backward"))


# -- derivatives -----------------------------------------------------------------------


def _forward_jvp(primals, tangents, *, call):
    wanted, call = call.results, _kept(call)
    is_traced = any(isinstance(a, partial_eval.DynamicJaxprTracer) for a in primals)
    if call.site is None and is_traced:  # the same one for this forward's backward
        call = call._replace(site=_new_site())
    results = _forward_p.bind(*primals, call=call)
    given = dict(zip(call.operands, primals, strict=True))
    has = dict(zip(call.operands, flags(call), strict=True))
    known = dict(zip(call.results, results, strict=True))
    for name in ("y", "tape", "origin"):
        if name in known:
            given[name], has[name] = known[name], call.groups is not None
    for name, tangent in zip(call.operands, tangents, strict=True):
        if name in _scan.PRIMALS and type(tangent) is not ad.Zero:
            given["t_" + name], has["t_" + name] = tangent, has[name]
    linear = call._replace(
        direction="linear",
        operands=tuple(given),
        results=tuple(name for name in call.results if name in _ENDS),
        grouped=() if call.groups is None else tuple(has.values()),
    )
    moved = dict(
        zip(linear.results, _linear_p.bind(*given.values(), call=linear), strict=True)
    )
    return [known[name] for name in wanted], [
        moved[name]
        if name in moved
        else ad.Zero(jax.typeof(known[name]).to_tangent_aval())
        for name in wanted
    ]


_ENDS = ("y", "h_n", "c_n")


def _kept(call):
    """The forward that makes all that a backward needs."""
    if "tape" in call.results or not tape_width(call.form):
        return call
    return call._replace(results=(*call.results, "tape", "origin"))


def _linear_transpose(cotangents, *operands, call):
    given, has, wanted = {}, {}, []
    for name, a, grouped in zip(call.operands, operands, flags(call), strict=True):
        if name.startswith("t_"):
            wanted.append(name.removeprefix("t_"))
        else:
            given[name], has[name] = a, grouped
    for name, cotangent in zip(call.results, cotangents, strict=True):
        if type(cotangent) is not ad.Zero:
            given["d" + name] = cotangent
            has["d" + name] = call.groups is not None
    backward = call._replace(
        direction="backward",
        operands=tuple(given),
        results=tuple("d" + name for name in wanted),
        grouped=() if call.groups is None else tuple(has.values()),
    )
    found = dict(
        zip(wanted, _backward_p.bind(*given.values(), call=backward), strict=True)
    )
    if call.groups is not None:
        for name, grouped in zip(call.operands, call.grouped, strict=True):
            if name.startswith("t_") and not grouped:  # one operand for all groups
                found[name[2:]] = jnp.sum(found[name[2:]], 0)
    return [found.get(n[2:]) if n.startswith("t_") else None for n in call.operands]


def _scan_jvp(primitive, primals, tangents, *, call):
    """The derivative of ``linear`` or of ``backward``, by `jax.lax.scan`.

    y and the tape are functions of the other operands, whose tangents are all that is
    looked at.
    """
    if call.direction == "backward":
        _fallback.say("a derivative of a derivative")
    moving = [k for k, tangent in enumerate(tangents) if type(tangent) is not ad.Zero]

    def of_moving(*own):
        everything = list(primals)
        for k, primal in zip(moving, own, strict=True):
            everything[k] = primal
        return _scan.compute(*everything, call=call)

    moved = jax.jvp(
        of_moving, [primals[k] for k in moving], [tangents[k] for k in moving]
    )[1]
    return primitive.bind(*primals, call=call), list(moved)


ad.primitive_jvps[_forward_p] = _forward_jvp
ad.primitive_jvps[_linear_p] = partial(_scan_jvp, _linear_p)
ad.primitive_jvps[_backward_p] = partial(_scan_jvp, _backward_p)
ad.primitive_transposes[_linear_p] = _linear_transpose


# -- what nobody reads -----------------------------------------------------------------


def _leave_out(used, eqn):
    """Leaves out the tape of a forward if nobody reads it, and unread gradients."""
    if not any(used):
        return [False] * len(eqn.invars), None
    call, always = eqn.params["call"], len(_ENDS)
    if call.direction == "forward":
        always = len(call.results) if any(used[_n_ends(call) :]) else _n_ends(call)
        stay = [k < always for k in range(len(used))]
    else:
        stay = list(used)
    results = tuple(n for n, keep in zip(call.results, stay, strict=True) if keep)
    outvars = [v for v, keep in zip(eqn.outvars, stay, strict=True) if keep]
    new = eqn.replace(outvars=outvars, params={"call": call._replace(results=results)})
    return [True] * len(eqn.invars), new


def _n_ends(call):
    return sum(name in _ENDS for name in call.results)


partial_eval.dce_rules[_forward_p] = _leave_out
partial_eval.dce_rules[_backward_p] = _leave_out


# -- lowering --------------------------------------------------------------------------


def _lower(ctx, *operands, call):
    why = _fallback.reason(ctx)
    if why:
        _fallback.say(why)
        return _by_scan(ctx, *operands, call=call)
    if call.site is None:
        call = call._replace(site=_new_site())
    return lower(ctx, *operands, call=call)


def _lower_linear(ctx, *operands, call):
    _fallback.say("forward-mode differentiation")
    return _by_scan(ctx, *operands, call=call)


_by_scan = mlir.lower_fun(_scan.compute, multiple_results=True)

for _p in (_forward_p, _backward_p):
    mlir.register_lowering(_p, _lower, cacheable=False)
mlir.register_lowering(_linear_p, _lower_linear)
