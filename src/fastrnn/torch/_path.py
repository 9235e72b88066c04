# SPDX-License-Identifier: BSD-3-Clause
"""Whether the kernels can run a call, and if not, why.

A call goes to PyTorch's own forward unless everything about it is known to fit the
kernels. Bad input therefore goes to PyTorch, too, whose checks raise PyTorch's errors.

To examine a call takes some microseconds in Python, while a small layer's step takes
the kernels about ten. A call that fits is therefore remembered (`Seen`), and calls like
it are recognised by one check in C.
"""

import torch
from torch.nn.utils.rnn import PackedSequence

from fastrnn.native import addresses
from fastrnn.torch import _compat
from fastrnn.torch._spec import spec

DTYPES = (torch.float32, torch.float64)
_TENSORS = (torch.Tensor, torch.nn.Parameter)
_CELL_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_CELL_MODES = {"tanh": "RNN_TANH", "relu": "RNN_RELU"}
# Calls of a module that are remembered: enough for training and inference, each with
# an input that requires a gradient and one that does not.
_MOST_SEEN = 4


def parameters_of(module, names):
    """The module's parameters of these names; None for a name without a parameter."""
    return [*map(module._parameters.get, names)]


def weights_of(module, names):
    """The module's weights of these names.

    A weight is a parameter, or the tensor that a parametrization computes in its place.
    """
    parameters = module._parameters
    found = []
    for name in names:
        weight = parameters.get(name)
        found.append(getattr(module, name, None) if weight is None else weight)
    return found


def layers_weights(module):
    """The weights of a module of layers, in PyTorch's flat order."""
    return weights_of(module, module._flat_weights_names)


def cell_names(module):
    """The names of a cell's weights."""
    return _CELL_NAMES if module.bias else _CELL_NAMES[:2]


def cell_weights(module):
    """The weights of a cell."""
    return weights_of(module, cell_names(module))


def contiguous(weights):
    """The weights, each contiguous; autograd records the copies that this needs."""
    return [w if w.is_contiguous() else w.contiguous() for w in weights]


def layers_spec(module):
    """The `Spec` of a module of layers."""
    return spec(
        module.mode,
        module.input_size,
        module.hidden_size,
        module.num_layers,
        module.bias,
        module.bidirectional,
        module.proj_size,
    )


def cell_spec(module):
    """The `Spec` of a cell; None if PyTorch does not know the cell's nonlinearity."""
    if isinstance(module, torch.nn.LSTMCell):
        mode = "LSTM"
    elif isinstance(module, torch.nn.GRUCell):
        mode = "GRU"
    else:
        mode = _CELL_MODES.get(module.nonlinearity)
    if mode is None:
        return None
    return spec(mode, module.input_size, module.hidden_size, 1, module.bias, False)


def transform_problem():
    """Why a call's tensors may have no memory with numbers of their own, or None."""
    if _compat.transform_is_active():
        return "a torch.func transform (vmap, grad, jvp ...) is active"
    if _compat.forward_mode_is_active():
        return "forward-mode differentiation is active"
    if torch.jit.is_tracing():
        return "torch.jit.trace is recording"
    return None


def must_be_recorded():
    """Why PyTorch has to record a call as its own operators now, or None.

    The modes that this asks for see only operators of PyTorch, not what the kernels
    compute.
    """
    if problem := transform_problem():
        return problem
    if _compat.dispatch_mode_is_active():
        return "a torch dispatch mode is active"
    return None


def tensor_problem(what, tensor, dtype=None):
    """Why the kernels cannot use a tensor's memory, or None."""
    if type(tensor) not in _TENSORS:
        return f"{what} is a {type(tensor).__name__}, not a plain tensor"
    if not tensor.is_cpu:
        return f"{what} is on {tensor.device}"
    if tensor.layout is not torch.strided:
        return f"{what} has layout {tensor.layout}"
    if dtype is not None and tensor.dtype is not dtype:
        return f"{what} is {tensor.dtype}, not {dtype}"
    if not _compat.has_memory(tensor):
        return f"{what} has no memory of its own: a transform made it"
    return None


def gradients_problem(gradients, dtype):
    """Why the kernels cannot back-propagate these gradients of outputs, or None.

    The gradients come from whatever lies between the outputs and the loss: they may be
    batches of gradients (`is_grads_batched`, vmap), duals of forward mode or tensors of
    a subclass.
    """
    for gradient in gradients:
        if gradient is None:
            continue
        if problem := tensor_problem("a gradient", gradient, dtype):
            return problem
    return must_be_recorded()


def weights_problem(weights, shapes, dtype):
    """Why the kernels cannot use these weights, or None."""
    for weight, shape in zip(weights, shapes, strict=True):
        if problem := tensor_problem("a weight", weight, dtype):
            return problem
        if weight.shape != shape:
            return f"a weight has shape {tuple(weight.shape)}, not {shape}"
        if weight.data_ptr() % weight.element_size():
            return "a weight does not lie at a multiple of its elements' size"
    return None


def states_problem(which, hx, outer, dtype):
    """Why the kernels cannot start from the initial states `hx`, or None.

    Parameters
    ----------
    which : Spec
    hx : object
        As the module was given it.
    outer : tuple of int
        The sizes that a state must have before its last, which is its width.
    dtype : torch.dtype
    """
    if hx is None:
        return None
    if not which.has_c:
        hx = (hx,)
    elif type(hx) not in (tuple, list) or len(hx) != 2:
        return "hx is not a pair"
    for state, width in zip(hx, (which.S, which.H), strict=False):
        if problem := tensor_problem("hx", state, dtype):
            return problem
        shape = (*outer, width)
        if state.shape != shape:
            return f"hx has shape {tuple(state.shape)}, not {shape}"
    return None


def pack_problem(rows, batch_sizes, sorted_indices, hx):
    """Why the kernels cannot use a PackedSequence whose data has so many rows, or None.

    A PackedSequence is a plain tuple that a user can make of any parts. Where its batch
    sizes do not add up to its rows, or some are 0, PyTorch computes something; for most
    other mistakes it raises an error. Both are left to PyTorch.
    """
    if problem := tensor_problem("batch_sizes", batch_sizes, torch.int64):
        return problem
    if batch_sizes.dim() != 1:
        return f"batch_sizes has shape {tuple(batch_sizes.shape)}"
    if addresses.offsets_of(batch_sizes.numpy(), rows) is None:
        return "batch_sizes are not those of sorted sequences that have all rows"
    if hx is not None and sorted_indices is not None:
        if problem := tensor_problem("sorted_indices", sorted_indices):
            return problem
        if sorted_indices.shape != (int(batch_sizes[0]),):
            return f"sorted_indices has shape {tuple(sorted_indices.shape)}"
    return None


def layers_problem(module, input, hx, weights, dtypes=DTYPES, weights_dtype=None):
    """Why the kernels cannot run a module of layers on these arguments, or None.

    Parameters
    ----------
    weights : list of Tensor
    dtypes : tuple of torch.dtype
        The types that the input may have.
    weights_dtype : torch.dtype, optional
        The type that the weights must have; that of the input if not given.
    """
    batch_sizes = sorted_indices = None
    if isinstance(input, PackedSequence):
        input, batch_sizes, sorted_indices, _ = input
    if problem := tensor_problem("the input", input):
        return problem
    dtype, shape = input.dtype, input.shape
    if dtype not in dtypes:
        return f"the input is {dtype}"
    which, ndim = layers_spec(module), len(shape)
    expected = (2, 3) if batch_sizes is None else (2,)
    if ndim not in expected or shape[-1] != which.I:
        return f"PyTorch refuses an input of shape {tuple(shape)}"
    if not input.numel():
        return "the input is empty"
    if batch_sizes is not None:
        problem = pack_problem(shape[0], batch_sizes, sorted_indices, hx)
        if problem:
            return problem
        outer = (which.n_cells, int(batch_sizes[0]))
    elif ndim == 2:
        outer = (which.n_cells,)
    else:
        outer = (which.n_cells, shape[0 if module.batch_first else 1])
    return weights_problem(
        weights, which.shapes, weights_dtype or dtype
    ) or states_problem(which, hx, outer, dtype)


def cell_problem(module, input, hx, weights, dtypes=DTYPES, weights_dtype=None):
    """Why the kernels cannot run a cell on these arguments, or None.

    Parameters are those of `layers_problem`.
    """
    which = cell_spec(module)
    if which is None:
        return f"PyTorch refuses the nonlinearity {module.nonlinearity!r}"
    if problem := tensor_problem("the input", input):
        return problem
    dtype, shape = input.dtype, input.shape
    if dtype not in dtypes:
        return f"the input is {dtype}"
    if len(shape) not in (1, 2) or shape[-1] != which.I:
        return f"PyTorch refuses an input of shape {tuple(shape)}"
    if not input.numel():
        return "the input is empty"
    return weights_problem(
        weights, which.shapes, weights_dtype or dtype
    ) or states_problem(which, hx, shape[:-1], dtype)


class Seen:
    """A call that is known to fit the kernels, and a check in C for calls like it.

    Another call is like it if its tensors have the same classes, types, devices,
    layouts, `requires_grad` and sizes, where the sizes of time and batch may differ; if
    its weights have the same strides; and if the same modes of PyTorch are active
    (transforms, tracing, autocast, inference, dispatch).

    Parameters
    ----------
    data : list of Tensor
        The input, then the initial states if there are any.
    weights : list of Tensor
        Contiguous.
    batched : bool
        Whether the states have a batch axis, which is their last but one.

    Attributes
    ----------
    requires_grad : bool
        Whether any of the tensors requires a gradient.
    """

    __slots__ = ("_guard", "requires_grad")

    def __init__(self, data, weights, batched):
        sizes = [list(t.shape) for t in (*data, *weights)]
        strides = [list(t.stride()) for t in (*data, *weights)]
        sizes[0][:-1] = [None] * (len(sizes[0]) - 1)
        for at in range(len(data)):
            if at and batched:
                sizes[at][-2] = None
            strides[at] = [None] * len(strides[at])
        self._guard = _compat.TensorGuards(
            *data, *weights, dynamic_dims_sizes=sizes, dynamic_dims_strides=strides
        )
        self.requires_grad = any(t.requires_grad for t in (*data, *weights))

    def is_like(self, tensors):
        """Whether a call with these tensors, data before weights, is like this one."""
        return self._guard.check(*tensors)


def _data(which, input, hx):
    """The input and the states as a list; None if hx is no pair where it has to be."""
    if hx is None:
        return [input]
    if not which.has_c:
        return [input, hx]
    return [input, *hx] if type(hx) in (tuple, list) and len(hx) == 2 else None


def recognise(home, input, hx, weights, ndim, batch_dim):
    """Look for a remembered call that a call is like.

    Parameters
    ----------
    home : Home or None
        The home of the module's weights; None if there is none yet.
    input, hx : object
        As the module was given them.
    weights : list
    ndim, batch_dim : int
        The number of axes that a batched input has, and which of them is the batch's.

    Returns
    -------
    Seen or None
        With a `Seen`, the call fits the kernels. Without one, it has to be examined.
    """
    if home is None or _compat.forward_mode_is_active():
        return None
    data = _data(home.spec, input, hx)
    if data is None:
        return None
    tensors = data + weights
    for seen in home.seen.get(len(tensors), ()):
        if seen.is_like(tensors):
            break
    else:
        return None
    shape = input.shape
    if not input.numel():
        return None
    if hx is not None and len(shape) == ndim:
        for state in data[1:]:
            if state.shape[-2] != shape[batch_dim]:
                return None
    return seen


def remember(home, input, hx, weights, ndim):
    """Remember a call that fits the kernels, so that `recognise` finds it."""
    if _compat.TensorGuards is None:
        return
    data = _data(home.spec, input, hx)
    tensors = data + weights
    if len(set(map(id, tensors))) < len(tensors):
        return  # TensorGuards does not take the same tensor twice
    known = home.seen.get(len(tensors), ())
    home.seen[len(tensors)] = (
        Seen(data, weights, input.dim() == ndim),
        *known[: _MOST_SEEN - 1],
    )
