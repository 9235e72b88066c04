# SPDX-License-Identifier: BSD-3-Clause
"""``fastrnn::recurrence``: a stack of layers as one operator of PyTorch.

PyTorch's compiler does not look into a registered operator: the operator stays whole in
the compiled graph. Code that is not compiled calls the kernels through the function of
`fastrnn.torch._autograd` instead, since a call of an operator takes longer than a call
of that function.
"""

import torch
from torch._subclasses import FakeTensor

from fastrnn.native import tensors
from fastrnn.torch import _stack, _weights
from fastrnn.torch._memory import kernels
from fastrnn.torch._path import DTYPES
from fastrnn.torch._spec import MODES, spec


def _require(fits, rule, found):
    """Raise ValueError unless an argument of an operator fits.

    Anybody can call an operator through ``torch.ops``, so its arguments are checked
    here and not only by the modules.
    """
    if not fits:
        raise ValueError(f"fastrnn::recurrence: {rule}, got {found}")


def _require_like(x, name, tensor, shape):
    """Raise ValueError unless a tensor has this shape and the type of x, or is None."""
    if tensor is not None:
        shape = tuple(shape)
        _require(
            tensor.dtype == x.dtype and tensor.device == x.device,
            f"{name} must be {x.dtype} on {x.device}",
            f"{tensor.dtype} on {tensor.device}",
        )
        _require(
            tuple(tensor.shape) == shape,
            f"{name} must have shape {shape}",
            tuple(tensor.shape),
        )


def _spec(weights, mode, num_layers, bidirectional):
    """The `Spec` of weights, found from their number and the shapes of the first two.

    The shapes of the other weights are not checked.
    """
    n_cells = num_layers * (2 if bidirectional else 1)
    _require(mode in MODES, f"mode must be among {MODES}", repr(mode))
    _require(num_layers >= 1, "num_layers must be >= 1", num_layers)
    per_cell, rest = divmod(len(weights), n_cells)
    counts = (2, 3, 4, 5) if mode == "LSTM" else (2, 4)
    _require(
        not rest and per_cell in counts,
        f"weights must be {counts} for each of {n_cells} cells",
        len(weights),
    )
    _require(
        weights[0].dim() == weights[1].dim() == 2,
        "a cell's first two weights must be matrices",
        [tuple(w.shape) for w in weights[:2]],
    )
    (GH, I), S = weights[0].shape, weights[1].shape[1]
    projected = per_cell % 2 == 1
    H = GH // 4 if projected else S
    _require(min(I, H, S) >= 1, "sizes must be >= 1", (I, H, S))
    _require(not projected or S < H, "a projection must be narrower than H", (S, H))
    return spec(
        mode, I, H, num_layers, per_cell > 3, bidirectional, S if projected else 0
    )


def _call(
    x, h0, c0, weights, mode, num_layers, bidirectional, batch_first, single, dropout
):
    """The `StackCall` of an operator's arguments, all of which are checked.

    Raises
    ------
    ValueError
        If one does not fit.
    """
    which = _spec(weights, mode, num_layers, bidirectional)
    _require(x.dtype in DTYPES, f"x must be of {DTYPES}", x.dtype)
    for weight, shape in zip(weights, which.shapes, strict=True):
        _require_like(x, "a weight", weight, shape)
    ndim = 2 if single else 3
    _require(
        x.dim() == ndim and x.shape[-1] == which.I and x.numel() > 0,
        f"x must have {ndim} dimensions, none empty, and {which.I} inputs",
        tuple(x.shape),
    )
    _require(
        not single or which.n_cells == 1,
        "a single step must be of one cell",
        which.n_cells,
    )
    _require(0 <= dropout <= 1, "dropout must be in [0, 1]", dropout)
    _require(c0 is None or which.has_c, "c0 must be None but for an LSTM", "a tensor")
    if isinstance(x, FakeTensor):
        home = _weights.Home(which)  # a fake tensor has a shape, but no memory to pack
    else:
        home = _weights.home(
            weights[0].untyped_storage(), which, weights[0].storage_offset()
        )
    call = _stack.StackCall(home, x, batch_first, dropout, single=single)
    _require_like(x, "h0", h0, call.state_shape(which.S))
    _require_like(x, "c0", c0, call.state_shape(which.H))
    return call


def _tapes_shape(call, x):
    """The shape of the tensor with the tapes of all cells; None if they have none."""
    row = tensors.TensorPlan(kernels(x.dtype), call.spec.layout, 1, 1).tape_size
    return (call.T * call.B * row,) if row else None


def _backward_call(x, h0, weights, y, kept, gradients, wanted, *options):
    """As `_call`, for backward, whose further arguments are checked as well."""
    call = _call(x, h0, None, weights, *options)
    which, per_layer = call.spec, 3 if call.dropout else 1
    outputs = (call.B, which.width) if call.single else (call.T, call.B, which.width)
    tapes = _tapes_shape(call, x)
    inner = per_layer * (which.num_layers - 1)
    _require(
        len(kept) == inner + (tapes is not None),
        f"kept must be what forward gave, {inner + (tapes is not None)} tensors",
        len(kept),
    )
    for tensor in kept[:inner]:
        _require_like(x, "kept", tensor, outputs)
    for tensor in kept[inner:]:
        _require_like(x, "kept", tensor, tapes)
    dy, dh_n, dc_n = gradients
    _require_like(x, "y", y, outputs)
    _require_like(x, "dy", dy, outputs)
    if call.single:
        _require(dh_n is None or not dh_n.numel(), "dh_n must be None or empty", dh_n)
    else:
        _require_like(x, "dh_n", dh_n, call.state_shape(which.S))
    if which.has_c:
        _require_like(x, "dc_n", dc_n, call.state_shape(which.H))
    else:
        _require(dc_n is None or not dc_n.numel(), "dc_n must be None or empty", dc_n)
    _require(
        len(wanted) == 3 + len(weights),
        f"wanted must be {3 + len(weights)} flags",
        len(wanted),
    )
    return call


# The arguments of both operators that are no tensors, in the language of schemas;
# `_call` has them by the same names, and `*options` is all of them. torch.library could
# infer the schemas from annotated signatures, but then each operator, and each function
# that stands for one with fake tensors, would have to list these arguments again.
_OPTIONS = (
    "str mode, SymInt num_layers, bool bidirectional, bool batch_first, bool single, "
    "float dropout"
)


@torch.library.custom_op(
    "fastrnn::recurrence",
    mutates_args=(),
    device_types="cpu",
    schema=(
        f"(Tensor x, Tensor? h0, Tensor? c0, Tensor[] weights, {_OPTIONS}, bool keep)"
        " -> (Tensor, Tensor, Tensor, Tensor[])"
    ),
    tags=[torch.Tag.nondeterministic_seeded],  # dropout
)
def recurrence(x, h0, c0, weights, *options_and_keep):
    """Run a stack forward; see `fastrnn.torch._stack.forward`.

    Returns
    -------
    y, h_n, c_n : Tensor
        A state that the call does not return is an empty tensor here, because an
        operator has to return tensors.
    kept : list of Tensor
        What `recurrence_backward` needs; empty unless `keep`.
    """
    *options, keep = options_and_keep
    call = _call(x, h0, c0, weights, *options)
    weights = _stack.readable_weights(x, weights)
    y, h_n, c_n, kept = _stack.forward(call, x, h0, c0, weights, keep)
    nothing = [x.new_empty(0) if part is None else part for part in (h_n, c_n)]
    return y, *nothing, kept


@recurrence.register_fake
def _(x, h0, c0, weights, *options_and_keep):
    *options, keep = options_and_keep
    call = _call(x, h0, c0, weights, *options)
    which = call.spec
    outputs = [call.new_outputs(x) for _ in range(which.num_layers)]
    h_n = x.new_empty(0 if call.single else call.state_shape(which.S))
    c_n = x.new_empty(call.state_shape(which.H) if which.has_c else 0)
    kept = []
    if keep:
        for y in outputs[:-1]:
            kept += [y, y.clone(), y.clone()] if call.dropout else [y]
        if shape := _tapes_shape(call, x):
            kept.append(x.new_empty(shape))
    return outputs[-1], h_n, c_n, kept


@torch.library.custom_op(
    "fastrnn::recurrence_backward",
    mutates_args=(),
    device_types="cpu",
    schema=(
        "(Tensor x, Tensor? h0, Tensor[] weights, Tensor y, Tensor[] kept, Tensor? dy, "
        f"Tensor? dh_n, Tensor? dc_n, bool[] wanted, {_OPTIONS}) -> Tensor[]"
    ),
)
def recurrence_backward(x, h0, weights, y, kept, dy, dh_n, dc_n, wanted, *options):
    """Back-propagate through a stack; see `fastrnn.torch._stack.backward`.

    Returns
    -------
    list of Tensor
        The gradients that `wanted` asks for, of x, h0, c0 and the weights, in this
        order.
    """
    gradients = dy, dh_n, dc_n
    call = _backward_call(x, h0, weights, y, kept, gradients, wanted, *options)
    weights = _stack.readable_weights(x, weights)
    # Forward returned an empty tensor for a state that there is not, and autograd may
    # come back with an empty gradient of it.
    gradients = dy, None if call.single else dh_n, dc_n if call.spec.has_c else None
    call.prepare(x, weights, _stack.n_threads(), False, True)
    found = _stack.backward(call, x, h0, y, kept, weights, gradients, wanted)
    return [d for d in found if d is not None]


@recurrence_backward.register_fake
def _(x, h0, weights, y, kept, dy, dh_n, dc_n, wanted, *options):
    gradients = dy, dh_n, dc_n
    call = _backward_call(x, h0, weights, y, kept, gradients, wanted, *options)
    found = [call.new_gradient(x)]
    found += [x.new_empty(call.state_shape(n)) for n in (call.spec.S, call.spec.H)]
    found += [w.new_empty(w.shape) for w in weights]
    return [d for d, want in zip(found, wanted, strict=True) if want]


def _save(ctx, inputs, output):
    """Save for `_differentiate` what `recurrence` was given and returned."""
    x, h0, _, weights, *ctx.options, keep = inputs
    y, _, _, kept = output
    if not keep:
        raise RuntimeError("fastrnn::recurrence: keep must be True under autograd")
    ctx.n_weights = len(weights)
    # Code that is compiled together with the layer may write to the layer's output.
    # Eager backward computes the output again in that case, but a compiled graph has no
    # branch for it. So a copy of y is saved, which is small beside the tapes.
    ctx.save_for_backward(x, h0, y.clone(), *weights, *kept)
    ctx.set_materialize_grads(False)


def _differentiate(ctx, dy, dh_n, dc_n, _):
    """The gradients of the arguments of `recurrence`: autograd's backward of it."""
    x, h0, y, *rest = ctx.saved_tensors
    weights, kept = rest[: ctx.n_weights], rest[ctx.n_weights :]
    want_x, want_h0, want_c0, want_weights = ctx.needs_input_grad[:4]
    wanted = [want_x, want_h0, want_c0, *want_weights]
    found = iter(
        recurrence_backward(
            x, h0, weights, y, kept, dy, dh_n, dc_n, wanted, *ctx.options
        )
    )
    dx, dh0, dc0, *dweights = [next(found) if want else None for want in wanted]
    return dx, dh0, dc0, dweights, *[None] * 7


recurrence.register_autograd(_differentiate, setup_context=_save)
