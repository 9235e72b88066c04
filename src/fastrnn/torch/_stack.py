# SPDX-License-Identifier: BSD-3-Clause
"""A stack of layers over tensors' own memory, forward and backward, without autograd.

Shapes follow PyTorch: x is (T, B, I), (B, T, I) with ``batch_first``, or (N, I) with
``batch_sizes`` (a PackedSequence's data); y is time-major, as PyTorch's is in memory.
"""

import torch

from fastrnn.native import core, tensors
from fastrnn.native.threads import for_kernel
from fastrnn.torch._memory import empty_as, kernels, plain


class Call:
    """What both directions of one call need to know besides tensors.

    Parameters
    ----------
    home : Home
        Of the weights.
    batch_first : bool
    dropout : float
        Between layers; 0 in evaluation.
    batch_sizes : Tensor or None
        A PackedSequence's, on the CPU.
    single : bool
        One time step of one cell: x is (B, I), states are (B, H), y is the new h.
    """

    __slots__ = (
        "B",
        "T",
        "batch_first",
        "batch_sizes",
        "dropout",
        "home",
        "offsets",
        "packs",
        "plan",
        "single",
        "spec",
    )

    def __init__(
        self, home, x, batch_first=False, dropout=0.0, batch_sizes=None, single=False
    ):
        self.home, self.spec = home, home.spec
        self.batch_first, self.dropout, self.single = batch_first, dropout, single
        self.offsets, self.batch_sizes = None, batch_sizes
        if single:
            self.T, self.B = 1, x.shape[0]
        elif batch_sizes is not None:
            self.offsets = core.offsets_of(batch_sizes.numpy(), len(x))
            if self.offsets is None:
                raise ValueError(
                    f"Call: batch_sizes must be positive, never grow and add up to the "
                    f"rows of x, {len(x)}, got {batch_sizes}"
                )
            self.T, self.B = len(batch_sizes), int(self.offsets[1])
        elif batch_first:
            self.B, self.T, _ = x.shape
        else:
            self.T, self.B, _ = x.shape

    def prepare(self, x, weights, n_threads, forward, backward):
        """Set what the kernels work on, and the weights packed for these directions."""
        table = kernels(x.dtype)
        self.plan = tensors.Plan(table, self.spec.layout, self.T, self.B, self.offsets)
        self.packs = self.home.packed(table, n_threads, weights, forward, backward)

    def layers_at_once(self, n_threads):
        """Layers to run in one call; with dropout there is work between them."""
        return 1 if self.dropout else self.plan.layers_at_once(n_threads)

    def as_outputs(self, y, *states):
        """What a call returns, or a gradient of each, as y, h_n, c_n."""
        if self.single:
            return y, None, states[0] if states else None
        return (y, *states) if self.spec.has_c else (y, *states, None)

    def new_outputs(self, x):
        """A tensor for a layer's outputs, time-major."""
        width = self.spec.width
        if x.dim() == 2:
            return x.new_empty(x.shape[0], width)
        return x.new_empty(self.T, self.B, width)

    def new_gradient(self, x):
        """A tensor for the gradient of x, laid out like it if the kernels can do so."""
        dx = torch.empty_like(x)
        fits = dx.stride(-1) == 1 or dx.shape[-1] == 1
        return dx if fits else dx.new_empty(dx.shape)

    def state_shape(self, width):
        """The shape of h, which is `spec.S` wide, or of c, `spec.H`."""
        if self.single:
            return self.B, width
        return self.spec.n_cells, self.B, width

    def readable(self, x):
        """x for the kernels: as it is, or a copy where it is not a series to them."""
        x = plain(x)
        return x if tensors.is_series(x, self.plan.kernels) else _dense_copy(x)


def n_threads():
    """PyTorch's number of threads; 1 where a fork has left none of them alive."""
    return for_kernel(torch.get_num_threads())


def _dense_copy(tensor):
    """A copy, contiguous and aligned to its elements."""
    return tensor.clone(memory_format=torch.contiguous_format)


def _readable(state, kernels):
    """A state, or its gradient, as the kernels read it; None stays None."""
    if state is None:
        return None
    state = plain(state)
    return state if tensors.is_contiguous(state, kernels) else _dense_copy(state)


def readable_weights(x, weights):
    """Weights, of the type of x, as the kernels read them."""
    table = kernels(x.dtype)
    return [_readable(w, table) for w in weights]


def forward(call, x, h0, c0, weights, keep):
    """Run the stack.

    Parameters
    ----------
    call : Call
        Gets `plan` and `packs`, which `backward` uses.
    h0, c0 : Tensor or None
        None is zero; c0 for an LSTM only.
    weights : sequence of Tensor
        In PyTorch's flat order, contiguous.
    keep : bool
        Whether a backward follows.

    Returns
    -------
    y : Tensor
    h_n : Tensor or None
        None for a single step, where it is y.
    c_n : Tensor or None
        None but for an LSTM.
    kept : list of Tensor
        What `backward` needs besides these tensors: see `unpack_kept`. Empty unless
        `keep`.
    """
    spec, threads = call.spec, n_threads()
    call.prepare(x, weights, threads, True, keep)
    plan, packs = call.plan, call.packs
    x = call.readable(x)
    h0, c0 = _readable(h0, plan.kernels), _readable(c0, plan.kernels)
    h_n = c_n = tapes = None
    if not call.single:
        h_n = x.new_empty(*call.state_shape(spec.S))
    if spec.has_c:
        c_n = x.new_empty(*call.state_shape(spec.H))
    if keep and plan.tape_size:
        tapes = empty_as(x, plan.tape_size, call.home.packer.tapes)
    kept, y = [], None
    at_once = call.layers_at_once(threads)
    for first in range(0, spec.num_layers, at_once):
        if first:
            kept.append(y)
            x = y
            if call.dropout:
                noise = _draw_noise(y, call.dropout)
                x = y * noise
                kept += [noise, x]
        n_layers = min(at_once, spec.num_layers - first)
        *inner, y = [call.new_outputs(x) for _ in range(n_layers)]
        plan.forward(
            first,
            threads,
            packs,
            [x, *inner],
            call.batch_first and first == 0,
            h0,
            c0,
            [*inner, y],
            h_n,
            c_n,
            tapes,
        )
        kept += inner
    if tapes is not None:
        kept.append(tapes)
    return y, h_n, c_n, kept if keep else []


def last_output_again(call, x, h0, c0, kept, weights):
    """y as `forward` computed it, bit by bit, in the time that its last layer takes.

    For a backward that finds y written to. Nothing is drawn again: dropout's noise is
    kept, and so is what the last layer read.

    Raises
    ------
    RuntimeError
        If the weights of the forward are gone: a backward before this one used the
        room that they were packed in, and somebody wrote to them unseen by PyTorch.
    """
    spec, threads = call.spec, n_threads()
    *_, x = unpack_kept(call, x, None, kept)[0]
    table = call.plan.kernels
    x, h0, c0 = call.readable(x), _readable(h0, table), _readable(c0, table)
    layer, packs = spec.num_layers - 1, call.packs
    first_cell = layer * spec.directions
    if not packs.can_run_again(first_cell, packs):
        packs = call.home.packed(call.plan.kernels, threads, weights, True, True)
        if not packs.can_run_again(first_cell, call.packs):
            raise RuntimeError(
                "fastrnn.torch: backward needs the output again, which was modified by "
                "an inplace operation, and the weights, which were modified through "
                ".data or NumPy"
            )
    y = call.new_outputs(x)
    c_n = x.new_empty(*call.state_shape(spec.H)) if spec.has_c else None
    batch_first = call.batch_first and layer == 0
    call.plan.forward(
        layer, threads, packs, [x], batch_first, h0, c0, [y], None, c_n, None
    )
    return y


def _draw_noise(y, dropout):
    """What dropout multiplies y by, drawn as PyTorch does: same seed, same noise."""
    noise = torch.zeros_like(y)
    if dropout < 1:
        noise.bernoulli_(1 - dropout).div_(1 - dropout)
    return noise


def unpack_kept(call, x, y, kept):
    """What the kernels read again, by layer, from what `forward` kept.

    Returns
    -------
    inputs, outputs : list of Tensor
        What each layer read and wrote.
    noises : list of (Tensor or None)
        What each layer's input was multiplied by.
    tapes : Tensor or None
        Of all cells.
    """
    if call.spec.num_layers == 1:
        return [x], [y], [None], kept[0] if kept else None
    inputs, outputs, noises, at = [x], [], [None], 0
    for _ in range(1, call.spec.num_layers):
        outputs.append(kept[at])
        inputs.append(kept[at + 2] if call.dropout else kept[at])
        noises.append(kept[at + 1] if call.dropout else None)
        at += 3 if call.dropout else 1
    outputs.append(y)
    return inputs, outputs, noises, kept[at] if at < len(kept) else None


def backward(call, x, h0, y, kept, weights, gradients, wanted):
    """Back-propagate through the stack.

    Parameters
    ----------
    call : Call
        The forward's, or one like it, prepared for backward.
    gradients : sequence of (Tensor or None)
        With respect to y, h_n and c_n; None is zero.
    wanted : sequence of bool
        Which gradients are: of x, h0, c0 and of each weight.

    Returns
    -------
    list of (Tensor or None)
        Gradients in the order of `wanted`.
    """
    spec, threads = call.spec, n_threads()
    call.packs.make_backward(call.plan.kernels, threads, weights)
    inputs, outputs, noises, tapes = unpack_kept(call, call.readable(x), y, kept)
    dy, dh_n, dc_n = gradients
    table = call.plan.kernels
    h0 = _readable(h0, table)
    dh_n, dc_n = _readable(dh_n, table), _readable(dc_n, table)
    dh0 = x.new_empty(*call.state_shape(spec.S)) if wanted[1] else None
    dc0 = x.new_empty(*call.state_shape(spec.H)) if wanted[2] else None
    dweights = [
        torch.empty_like(w) if want else None
        for w, want in zip(weights, wanted[3:], strict=True)
    ]
    at_once = call.layers_at_once(threads)
    for first in range((spec.num_layers - 1) // at_once * at_once, -1, -at_once):
        end = min(first + at_once, spec.num_layers)
        dx = None
        if first:
            dx = torch.empty_like(inputs[first])
        elif wanted[0]:
            dx = call.new_gradient(x)
        inner = [torch.empty_like(y) for _ in range(first + 1, end)]
        call.plan.backward(
            first,
            threads,
            call.packs,
            inputs[first:end],
            call.batch_first and first == 0,
            h0,
            outputs[first:end],
            tapes,
            None if dy is None else call.readable(dy),
            dh_n,
            dc_n,
            [dx, *inner],
            dh0,
            dc0,
            dweights,
        )
        if noises[first] is not None:
            dx *= noises[first]
        dy = dx
    return [dx, dh0, dc0, *dweights]
