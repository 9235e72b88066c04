# SPDX-License-Identifier: BSD-3-Clause
"""Forward and backward of a stack of layers on PyTorch tensors, without autograd.

The kernels read and write the memory of the tensors themselves. Shapes are PyTorch's: x
is (T, B, I), or (B, T, I) with ``batch_first``, or (N, I) with ``batch_sizes``, the
data of a PackedSequence; y is time-major, as PyTorch's is in memory.

The following take part in a forward and in the backward that follows it:

call
    A `StackCall`: the shapes and options of this forward and of its backward, but no
    tensors. ``call.plan`` and ``call.packs`` are two of its parts.
plan
    A `tensors.TensorPlan`, which runs layers by the kernels on sequences of these
    shapes.
packs
    The `weights.Use`: the packed weights of all cells, as they were at this forward.
home
    The `_weights.Home`: what is kept from one call to the next for the weights of a
    module, such as their packed form.
kept
    The list of tensors that forward hands to backward besides its own inputs and
    outputs: what the inner layers put out, what dropout drew, and the tapes.
tapes
    One tensor with the tapes of all cells. The tape of a cell is what the kernels'
    backward needs besides x, y and the initial states.
"""

import torch

from fastrnn.native import addresses, tensors
from fastrnn.native.threads import for_kernel
from fastrnn.torch._memory import empty_as, kernels, plain


class StackCall:
    """The shapes and options of a stack's forward and of the backward that follows it.

    Parameters
    ----------
    home : Home
        The home of the stack's weights.
    x : Tensor
        The input, of which only the shape is used.
    batch_first : bool
    dropout : float
        The probability of dropout between layers; 0 in evaluation.
    batch_sizes : Tensor or None
        The batch sizes of a PackedSequence, on the CPU.
    single : bool
        Whether to run one time step of one cell: x is then (B, I), states are (B, S) or
        (B, H), and y is the new h.
    compute : {"bfloat16", "bfloat16-fast"}, optional
        How products round their operands, which are float32. Default: they do not.

    Attributes
    ----------
    T, B : int
        Time steps, and rows of the batch.
    offsets : ndarray or None
        With `batch_sizes`: for each time step, the rows of x before those of the step.
    plan : tensors.TensorPlan
    packs : weights.Use
        Set by `prepare`, as is `plan`.
    """

    __slots__ = (
        "B",
        "T",
        "batch_first",
        "batch_sizes",
        "compute",
        "dropout",
        "home",
        "offsets",
        "packs",
        "plan",
        "single",
        "spec",
    )

    def __init__(
        self,
        home,
        x,
        batch_first=False,
        dropout=0.0,
        batch_sizes=None,
        single=False,
        compute=None,
    ):
        self.home, self.spec, self.compute = home, home.spec, compute
        self.batch_first, self.dropout, self.single = batch_first, dropout, single
        self.offsets, self.batch_sizes = None, batch_sizes
        if single:
            self.T, self.B = 1, x.shape[0]
        elif batch_sizes is not None:
            self.offsets = addresses.offsets_of(batch_sizes.numpy(), len(x))
            if self.offsets is None:
                raise ValueError(
                    "StackCall: batch_sizes must be positive, never grow and add up to "
                    f"the rows of x, {len(x)}, got {batch_sizes}"
                )
            self.T, self.B = len(batch_sizes), int(self.offsets[1])
        elif batch_first:
            self.B, self.T, _ = x.shape
        else:
            self.T, self.B, _ = x.shape

    def prepare(self, x, weights, n_threads, forward, backward):
        """Set `plan`, and `packs` with the weights packed for either way or both."""
        table = kernels(x.dtype, self.compute)
        self.plan = tensors.TensorPlan(
            table, self.spec.layout, self.T, self.B, self.offsets
        )
        self.packs = self.home.packed(table, n_threads, weights, forward, backward)

    def layers_at_once(self, n_threads):
        """How many layers the plan is to run at a time.

        Dropout between two layers is computed by PyTorch, so with dropout it is one.
        """
        return 1 if self.dropout else self.plan.layers_at_once(n_threads)

    def as_outputs(self, y, *states):
        """Arrange the outputs of autograd's node, or their gradients, as y, h_n, c_n.

        The node has no outputs for states that the call does not return: these are None
        here.
        """
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
        """A tensor for the gradient of x, laid out as x is if the kernels can do so."""
        dx = torch.empty_like(x)
        fits = dx.stride(-1) == 1 or dx.shape[-1] == 1
        return dx if fits else dx.new_empty(dx.shape)

    def state_shape(self, width):
        """The shape of a state: of h with `width` = `spec.S`, of c with `spec.H`."""
        if self.single:
            return self.B, width
        return self.spec.n_cells, self.B, width

    def readable(self, x):
        """The tensor x itself if the kernels can read it as a sequence, else a copy."""
        x = plain(x)
        return x if tensors.is_series(x, self.plan.kernels) else _dense_copy(x)


def n_threads():
    """The number of threads for the kernels: PyTorch's, or 1 in a forked child.

    A fork copies none of the parent's other threads.
    """
    return for_kernel(torch.get_num_threads())


def _dense_copy(tensor):
    """A contiguous copy of a tensor, whose memory is aligned to its elements."""
    return tensor.clone(memory_format=torch.contiguous_format)


def _readable(state, kernels):
    """A tensor itself if it is contiguous and aligned, else a copy; None stays None."""
    if state is None:
        return None
    state = plain(state)
    return state if tensors.is_contiguous(state, kernels) else _dense_copy(state)


def readable_weights(x, weights):
    """The weights, each itself or a contiguous copy; they have the type of x."""
    table = kernels(x.dtype)
    return [_readable(w, table) for w in weights]


def forward(call, x, h0, c0, weights, keep):
    """Run the stack forward.

    Parameters
    ----------
    call : StackCall
        Is prepared here: `backward` uses its `plan` and `packs`.
    x : Tensor
    h0, c0 : Tensor or None
        Initial states. None is zero; c0 is None but for an LSTM.
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
        What `backward` needs besides x, y, h0 and the weights; `unpack_kept` says in
        which order. Empty unless `keep`.
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
        tapes = empty_as(x, plan.tape_size, call.home.tapes)
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
            call.home.scratch,
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
    """Compute y again, with the bits that `forward` computed.

    Backward calls this if somebody has written to y since. Only the last layer is run:
    `kept` has its input, to which dropout was applied already.

    Raises
    ------
    RuntimeError
        If the weights are not those of the forward any more. That can be when an
        earlier backward of the same call has used the memory of the weights that were
        packed for forward, and the weights themselves were written to in a way that
        PyTorch does not notice.
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
        call.home.scratch, layer, threads, packs, [x], batch_first, h0, c0, [y], None,
        c_n, None,
    )  # fmt: skip
    return y


def _draw_noise(y, dropout):
    """What dropout multiplies y by: 0, or 1 / (1 - dropout).

    It is drawn by the operators that PyTorch's own layers use, so that the same seed
    gives the same noise.
    """
    noise = torch.zeros_like(y)
    if dropout < 1:
        noise.bernoulli_(1 - dropout).div_(1 - dropout)
    return noise


def unpack_kept(call, x, y, kept):
    """Sort x, y and the list that `forward` kept by layers.

    The list has for each layer but the last its output, with dropout followed by the
    noise and by the product of both, and at the end the tapes if the cells need tapes.

    Returns
    -------
    inputs, outputs : list of Tensor
        What each layer read and wrote in forward.
    noises : list of (Tensor or None)
        What dropout multiplied each layer's input by.
    tapes : Tensor or None
        The tapes of all cells.
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
    call : StackCall
        That of the forward, or one like it that was prepared for backward.
    x, h0 : Tensor or None
        As `forward` was given them.
    y : Tensor
    kept : list of Tensor
        As `forward` returned them.
    weights : sequence of Tensor
    gradients : sequence of (Tensor or None)
        The gradients of y, h_n and c_n; None is zero.
    wanted : sequence of bool
        Whether the gradient of x, of h0, of c0 and of each weight is asked for.

    Returns
    -------
    list of (Tensor or None)
        Gradients in the order of `wanted`; None where the gradient is not asked for.
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
            call.home.scratch,
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
