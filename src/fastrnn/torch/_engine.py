# SPDX-License-Identifier: BSD-3-Clause
"""`Engine`: a layer of fastrnn that computes for a module of PyTorch.

A module of `layers` has an engine, and the engine has a layer of NumPy arrays. The
module's parameters lie in the layer's own memory, as long as nobody moves them. What
the layer can do with its arguments (lengths, masks, resets, connections, blocks of
steps) the module can do, and a cell or an option that a layer has needs no code here.
"""

import copy

import numpy as np
import torch

from fastrnn.native.memory import Locked
from fastrnn.nn.context import Context
from fastrnn.nn.deferred import constructor_parameters
from fastrnn.torch import _compat, _path
from fastrnn.torch._memory import plain
from fastrnn.torch._stack import n_threads

_DTYPES = {"float32": torch.float32, "float64": torch.float64}
# Arguments of a layer's constructor that say nothing about what the layer computes.
_NOT_KEPT = ("self", "init", "seed", "dtype")


class _Seeds:
    """Draws the seeds of dropout as PyTorch draws its own: `torch.manual_seed` counts.

    An activation checkpoint of PyTorch, which runs a forward twice from one state of
    PyTorch's random numbers, therefore gets the same choices twice.
    """

    def integers(self, stop, size=None):
        """Random integers in [0, stop)."""
        shape = () if size is None else (size,)
        found = torch.randint(min(stop, 2**63 - 1), shape)
        return found.item() if size is None else found.numpy()


def arguments_of(layer):
    """What makes a layer like this one, but for its type and its first values."""
    found = {}
    for name in constructor_parameters(type(layer)):
        if name not in _NOT_KEPT:
            kept = f"given_{name}" if hasattr(layer, f"given_{name}") else name
            found[name] = getattr(layer, kept)
    return found


class Engine(Locked):
    """A layer of fastrnn that runs on the memory of tensors.

    Parameters
    ----------
    layer : Recurrent
        It belongs to the engine from now on.

    Attributes
    ----------
    dtype : torch.dtype
    names : tuple of str
        Of the parameters, in the order of the layer's memory.
    parameters : list of Tensor
        The layer's own memory.
    """

    def __init__(self, layer):
        super().__init__()
        self.layer, self.dtype = layer, _DTYPES[layer.dtype]
        layer._runtime.dropout_seeds = _Seeds()
        layer._runtime.count_threads = n_threads
        self.names = tuple(layer._param)
        self.parameters = [torch.from_numpy(array) for array in layer._param.values()]
        self._addresses = [own.data_ptr() for own in self.parameters]

    def copied_layer(self):
        """A copy of the layer, which draws random numbers as any layer does."""
        layer = copy.deepcopy(self.layer)
        layer._runtime.dropout_seeds = layer._dropout_seeds
        return layer

    def with_dtype(self, dtype):
        """An engine like this one for parameters of another type."""
        made = type(self.layer)(**arguments_of(self.layer), dtype=dtype, seed=0)
        return Engine(made)

    def check(self, what, tensor):
        """Refuse a tensor that the layer cannot read."""
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(
                f"{self.who}: {what} must be a Tensor, got {type(tensor).__name__}"
            )
        if problem := _path.tensor_problem(what, tensor, self.dtype):
            raise TypeError(
                f"{self.who}: the kernels take plain tensors of {self.dtype} on the "
                f"CPU, and {problem}"
            )

    @property
    def who(self):
        """The name of the layer's class, for messages."""
        return type(self.layer).__name__

    def _is_own(self, k, weight):
        """Whether a weight is the layer's own memory, and read as that is."""
        return (
            type(weight) in (torch.nn.Parameter, torch.Tensor)
            and weight.dtype is self.dtype
            and weight.data_ptr() == self._addresses[k]
            and weight.shape == self.parameters[k].shape
            and weight.is_contiguous()
            and not weight.is_neg()
        )

    def with_weights(self, weights):
        """An engine whose layer has the values of some weights in its memory.

        The module's own parameters are the memory of this one. Others come from a
        parametrization, from `torch.func.functional_call`, or from a state dict that
        was assigned. They are copied into a layer made for the call: nobody else's
        numbers change, and a backward finds them as they were.
        """
        if all(self._is_own(k, weight) for k, weight in enumerate(weights)):
            return self
        for name, own, weight in zip(self.names, self.parameters, weights, strict=True):
            self.check(f"the parameter {name}", weight)
            if weight.shape != own.shape:
                raise ValueError(
                    f"{self.who}: {name} must have shape {tuple(own.shape)}, got "
                    f"{tuple(weight.shape)}"
                )
        made = Engine(copy.deepcopy(self.layer))
        for own, weight in zip(made.parameters, weights, strict=True):
            own.copy_(weight.detach())
        return made

    def forward(self, x, hx, how, keeps):
        """Run the layer.

        Parameters
        ----------
        x : Tensor
        hx : sequence of (Tensor or None)
            The arrays of the initial state; empty for none.
        how : tuple
            `lengths`, `mask`, `resets`, `zero_output_for_mask`, as the layer takes
            them.
        keeps : bool
            Whether a backward may follow.

        Returns
        -------
        call : Call
        y : Tensor
        ends : list of Tensor
            The arrays of the last state.
        """
        hx = [_array(part) for part in hx]
        if len(hx) < 2:
            hx = hx[0] if hx else None
        call, y, state = self.layer._run(_array(x), hx, *how, keeps)
        if not y.flags.writeable:  # PyTorch counts the writes to y
            call.y.setflags(write=True)
            y.setflags(write=True)
        ends = state if isinstance(state, tuple) else (state,)
        return call, torch.from_numpy(y), [torch.from_numpy(part) for part in ends]

    def backward(self, call, dy, d_ends, wants_weights):
        """Back-propagate through a call.

        Returns
        -------
        dx : Tensor
        d_hx : list of Tensor
        dweights : list of Tensor
            Empty unless they are wanted.
        """
        layer = self.layer
        d_state = None
        if any(part is not None for part in d_ends):
            d_state = tuple([_array(part) for part in d_ends])
            d_state = d_state[0] if len(d_state) == 1 else d_state
        with self._lock:  # the layer has one place for gradients of parameters
            layer._trainable = wants_weights
            layer.zero_grad()
            context = Context(layer, call)
            dx, d_hx = layer._backward(context, _array(dy), d_state, False, None)
            flat = layer.flat_grads.copy() if wants_weights else None
        d_hx = d_hx if isinstance(d_hx, tuple) else (d_hx,)
        dweights = []
        if wants_weights:
            sizes = [own.numel() for own in self.parameters]
            parts = torch.from_numpy(flat).split(sizes)
            shapes = [own.shape for own in self.parameters]
            dweights = [a.view(b) for a, b in zip(parts, shapes, strict=True)]
        return (
            torch.from_numpy(dx),
            [torch.from_numpy(np.ascontiguousarray(part)) for part in d_hx],
            dweights,
        )


def _array(tensor):
    """A tensor's memory as an array; None for None."""
    return None if tensor is None else plain(tensor.detach()).numpy()


class _FirstDerivative(torch.autograd.Function):
    """Gradients that the kernels computed, through which autograd cannot go again."""

    @staticmethod
    def forward(ctx, who, n, *tensors):
        ctx.who = who
        return tuple([tensor.view_as(tensor) for tensor in tensors[:n]])

    @staticmethod
    def backward(ctx, *gradients):
        raise RuntimeError(
            f"{ctx.who}: the kernels compute first derivatives, and this backward "
            "needs a second one; fastrnn.torch.LSTM, GRU and RNN have those"
        )


class _Recurrence(torch.autograd.Function):
    """A layer as one node of autograd's graph.

    Its inputs are x, the initial states and the parameters. None of those, and not y,
    may be written to before backward: PyTorch then raises, as for its own operators.
    """

    @staticmethod
    def forward(ctx, engine, how, n_states, x, *rest):
        ctx.call, y, ends = engine.forward(x, rest[:n_states], how, True)
        ctx.engine, ctx.n_states = engine, n_states
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *rest[n_states:], y)
        return (y, *ends)

    @staticmethod
    def backward(ctx, dy, *d_ends):
        engine, n_states = ctx.engine, ctx.n_states
        wanted = ctx.needs_input_grad[3:]
        nothing = (None,) * 3
        if dy is None and all(part is None for part in d_ends):
            return nothing + (None,) * len(wanted)
        if problem := _path.transform_problem():
            raise RuntimeError(
                f"{engine.who}: the kernels compute with numbers alone, and {problem}"
            )
        for gradient in (dy, *d_ends):
            if gradient is not None:
                engine.check("a gradient", gradient)
        x, *weights, _ = ctx.saved_tensors  # raises if one of them was written to
        dx, d_hx, dweights = engine.backward(
            ctx.call, dy, d_ends, any(wanted[1 + n_states :])
        )
        if not _compat.graph_is_kept():
            ctx.call = None  # and with it the tape
        dweights = dweights or [None] * len(weights)
        found = [dx, *d_hx[:n_states], *dweights]
        found = [
            part if want else None for part, want in zip(found, wanted, strict=True)
        ]
        if torch.is_grad_enabled():
            found = _once(engine.who, found, [x, dy, *d_ends, *weights])
        return nothing + tuple(found)


def _once(who, found, sources):
    """Gradients whose own gradients raise an error when they are asked for."""
    given = [part for part in found if part is not None]
    sources = [t for t in sources if t is not None and t.requires_grad]
    made = iter(_FirstDerivative.apply(who, len(given), *given, *sources))
    return [None if part is None else next(made) for part in found]


def run(engine, x, hx, weights, how):
    """Run a layer, and record it for autograd if a gradient is needed.

    Parameters
    ----------
    engine : Engine
    x : Tensor
    hx : list of (Tensor or None)
        Empty for no initial state.
    weights : list of Tensor
    how : tuple
        As of `Engine.forward`.

    Returns
    -------
    y : Tensor
    ends : list of Tensor
    """
    if problem := _path.transform_problem():
        raise RuntimeError(
            f"{engine.who}: the kernels compute with numbers alone, and {problem}"
        )
    engine.check("the input", x)
    for part in hx:
        if part is not None:
            engine.check("hx", part)
    main, engine = engine, engine.with_weights(weights)
    tensors = (x, *hx, *weights)
    may_learn = torch.is_grad_enabled() and engine.layer._quantized is None
    if may_learn and any(t is not None and t.requires_grad for t in tensors):
        y, *ends = _apply(engine, how, len(hx), *tensors)
    else:
        y, ends = engine.forward(x, hx, how, engine.layer.training)[1:]
    if engine is not main:
        main.layer.state = engine.layer.state
    return y, ends


_apply = _compat.apply_of(_Recurrence)
