# SPDX-License-Identifier: BSD-3-Clause
"""A stack of layers over tensors' own memory, forward and backward, without autograd.

Shapes follow PyTorch: x is (T, B, I), (B, T, I) with ``batch_first``, or (N, I) with
``batch_sizes`` (a PackedSequence's data); y is time-major, as PyTorch's is in memory.
"""

import numpy as np
import torch

from fastrnn import _core, _threads
from fastrnn.torch._memory import (
    empty,
    kernels,
    memory,
    plain,
    scratch,
    unwanted,
    zeros,
)
from fastrnn.torch._weights import packed


class Call:
    """What both directions of one call need to know besides tensors.

    Parameters
    ----------
    spec : Spec
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
        "offsets",
        "packs",
        "single",
        "spec",
    )

    def __init__(
        self, spec, x, batch_first=False, dropout=0.0, batch_sizes=None, single=False
    ):
        self.spec, self.batch_first, self.dropout = spec, batch_first, dropout
        self.offsets, self.packs, self.batch_sizes = None, None, batch_sizes
        self.single = single
        if single:
            self.T, self.B = 1, x.shape[0]
        elif batch_sizes is not None:
            self.offsets = np.zeros(len(batch_sizes) + 1, np.intp)
            np.cumsum(batch_sizes.numpy(), out=self.offsets[1:])
            self.T, self.B = len(batch_sizes), int(self.offsets[1])
        elif batch_first:
            self.B, self.T = x.shape[:2]
        else:
            self.T, self.B = x.shape[:2]

    def as_outputs(self, given):
        """`given`, one for each tensor that a call returns, as y, h_n, c_n."""
        y, *states = given
        h_n = None if self.single else states[0]
        return y, h_n, states[-1] if self.spec.has_c else None

    def shape(self, direction, I):
        """One cell's work, for the kernels."""
        spec = self.spec
        return _core.Shape(
            spec.cell, direction, self.T, self.B, I, spec.H, self.offsets, spec.options
        )

    def new_outputs(self, x):
        """A tensor for a layer's outputs, time-major."""
        width = self.spec.width
        if x.dim() == 2:
            return x.new_empty((x.shape[0], width))
        return x.new_empty((self.T, self.B, width))

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
        fits = x.stride(-1) == 1 or x.shape[-1] == 1
        return x if fits else x.contiguous()

    def series(self, x, first=0, width=None, batch_first=False):
        """A readable tensor of sequences as the kernels see it.

        `first` is the column at which `width` columns begin.
        """
        strides = x.stride()
        width = x.shape[-1] if width is None else width
        if len(strides) == 2:
            step, row = 0, strides[0]
            end = (x.shape[0] - 1) * row
        else:
            row, step = strides[:2] if batch_first else strides[1::-1]
            end = (self.T - 1) * step + (self.B - 1) * row
        return _core.Series(memory(x, end + first + width), first, step, row)


def n_threads():
    """PyTorch's number of threads; 1 where a fork has left none of them alive."""
    return _threads.for_kernel(torch.get_num_threads())


def _readable(state):
    """A state, or its gradient, as the kernels read it; None stays None."""
    return None if state is None else plain(state).contiguous()


def _of_cells(n_cells, state, otherwise=None):
    """The parts of a contiguous (cells, B, H) tensor, or `otherwise` for each."""
    if state is None:
        return [otherwise] * n_cells
    size, is_double = state.numel() // n_cells, state.dtype is torch.float64
    start, step = state.data_ptr(), size * state.itemsize
    return [
        _core.Memory(state, start + k * step, size, is_double) for k in range(n_cells)
    ]


def forward(call, x, h0, c0, weights, keep):
    """Run the stack.

    Parameters
    ----------
    call : Call
        Gets `packs`, the packed weights that `backward` reads.
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
    spec, dtype, n = call.spec, x.dtype, call.spec.n_cells
    S, D, per_cell = spec.S, spec.directions, spec.weights_per_cell
    table, threads = kernels(dtype), n_threads()
    x = call.readable(x)
    x_series = call.series(x, batch_first=call.batch_first)
    h0s = _of_cells(n, _readable(h0), zeros(call.B * S, dtype))
    c0s = c_ns = [None] * n
    h_n, c_n = None, None
    if call.single:
        h_ns = [unwanted("h_n", call.B * S, dtype)]
    else:
        h_n = x.new_empty(call.state_shape(S))
        h_ns = _of_cells(n, h_n)
    if spec.has_c:
        c_n = x.new_empty(call.state_shape(spec.H))
        c0s = _of_cells(n, _readable(c0), zeros(call.B * spec.H, dtype))
        c_ns = _of_cells(n, c_n)
    y, kept, tapes, call.packs = None, [], [], []
    for layer in range(spec.num_layers):
        if layer:
            kept.append(y)
            x = y
            if call.dropout:
                noise = _draw_noise(y, call.dropout)
                x = y * noise
                kept += [noise, x]
            x_series = call.series(x)
        I = x.shape[-1]
        y = call.new_outputs(x)
        for direction in range(D):
            k = layer * D + direction
            shape = call.shape(direction, I)
            own = weights[k * per_cell : (k + 1) * per_cell]
            pack = packed(table, spec, I, own, True, keep)
            tape = None
            if keep:
                call.packs.append(pack)
                tapes.append(empty(table.tape_size(shape), dtype))
                tape = memory(tapes[-1])
            table.forward(
                shape,
                threads,
                x_series,
                pack.forward,
                h0s[k],
                c0s[k],
                call.series(y, direction * S, S),
                h_ns[k],
                c_ns[k],
                tape,
                scratch(table.work_size(False, shape, threads), dtype),
            )
    return y, h_n, c_n, kept + tapes if keep else []


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
    tapes : list of Tensor
        Of each cell.
    """
    kept = list(kept)
    inputs, outputs, noises, at = [x], [], [None], 0
    for _ in range(1, call.spec.num_layers):
        outputs.append(kept[at])
        inputs.append(kept[at + 2] if call.dropout else kept[at])
        noises.append(kept[at + 1] if call.dropout else None)
        at += 3 if call.dropout else 1
    outputs.append(y)
    return inputs, outputs, noises, kept[at:]


def backward(call, x, h0, y, kept, weights, gradients, wanted):
    """Back-propagate through the stack.

    Parameters
    ----------
    call : Call
        The forward's, or one like it whose `packs` have the backward form.
    gradients : sequence of (Tensor or None)
        With respect to y, h_n and c_n; None is zero.
    wanted : sequence of bool
        Which gradients are: of x, h0, c0 and of each weight.

    Returns
    -------
    list of (Tensor or None)
        Gradients in the order of `wanted`.
    """
    spec, dtype, n = call.spec, x.dtype, call.spec.n_cells
    S, D, per_cell = spec.S, spec.directions, spec.weights_per_cell
    table, threads = kernels(dtype), n_threads()
    inputs, outputs, noises, tapes = unpack_kept(call, call.readable(x), y, kept)
    dy, dh_n, dc_n = gradients
    h_size, c_size = call.B * S, call.B * spec.H
    h0s = _of_cells(n, _readable(h0), zeros(h_size, dtype))
    dh_ns, dc_ns = _of_cells(n, _readable(dh_n)), _of_cells(n, _readable(dc_n))
    dh0 = x.new_empty(call.state_shape(S)) if wanted[1] else None
    dc0 = x.new_empty(call.state_shape(spec.H)) if wanted[2] else None
    dh0s, dc0s = _of_cells(n, dh0, unwanted("dh0", h_size, dtype)), [None] * n
    if spec.has_c:
        dc0s = _of_cells(n, dc0, unwanted("dc0", c_size, dtype))
    dweights = [
        torch.zeros_like(w) if want else None
        for w, want in zip(weights, wanted[3:], strict=True)
    ]
    into = [None if d is None else memory(d) for d in dweights]
    for layer in reversed(range(spec.num_layers)):
        batch_first = call.batch_first and layer == 0
        dy = None if dy is None else call.readable(dy)
        dx = dx_series = None
        if layer > 0 or wanted[0]:
            dx = call.new_gradient(x if layer == 0 else inputs[layer])
            dx_series = call.series(dx, batch_first=batch_first)
        x_series = call.series(inputs[layer], batch_first=batch_first)
        for direction in range(D):
            k = layer * D + direction
            shape = call.shape(direction, inputs[layer].shape[-1])
            own = into[k * per_cell : (k + 1) * per_cell]
            *dweight, dW_hr = spec.by_name(own)
            table.backward(
                shape,
                threads,
                x_series,
                call.packs[k].backward,
                h0s[k],
                call.series(outputs[layer], direction * S, S),
                memory(tapes[k]),
                None if dy is None else call.series(dy, direction * S, S),
                dh_ns[k],
                dc_ns[k],
                dx_series,
                direction == 1,
                dh0s[k],
                dc0s[k],
                *dweight,
                scratch(table.work_size(True, shape, threads), dtype),
                dW_hr=dW_hr,
            )
        if noises[layer] is not None:
            dx *= noises[layer]
        dy = dx
    return [dx, dh0, dc0, *dweights]
