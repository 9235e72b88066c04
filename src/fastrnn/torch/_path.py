# SPDX-License-Identifier: BSD-3-Clause
"""Which implementation a call takes, and why.

Whatever is not certain to be ours is PyTorch's, bad input included: its own checks then
raise its own errors.
"""

import torch
from torch.nn.utils.rnn import PackedSequence

from fastrnn.native import core
from fastrnn.torch import _compat
from fastrnn.torch._spec import spec

DTYPES = (torch.float32, torch.float64)
_TENSORS = (torch.Tensor, torch.nn.Parameter)
_CELL_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_CELL_MODES = {"tanh": "RNN_TANH", "relu": "RNN_RELU"}
_MOST_SEEN = 4  # training and inference, with and without gradients of the input


def parameters_of(module, names):
    """The module's parameters by name; None where there is none."""
    return [*map(module._parameters.get, names)]


def weights_of(module, names):
    """The module's weights: parameters, or what a parametrization computes."""
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
    """Weights as the kernels read them: autograd knows of the copies."""
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
    """The `Spec` of a cell; None where it has a nonlinearity that nobody knows."""
    if isinstance(module, torch.nn.LSTMCell):
        mode = "LSTM"
    elif isinstance(module, torch.nn.GRUCell):
        mode = "GRU"
    else:
        mode = _CELL_MODES.get(module.nonlinearity)
    if mode is None:
        return None
    return spec(mode, module.input_size, module.hidden_size, 1, module.bias, False)


def must_be_recorded():
    """Why PyTorch has to see its own operators now, or None."""
    if _compat.transform_is_active():
        return "a torch.func transform (vmap, grad, jvp ...) is active"
    if _compat.forward_mode_is_active():
        return "forward-mode differentiation is active"
    if torch.jit.is_tracing():
        return "torch.jit.trace is recording"
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
    """Why the kernels cannot go back from these gradients of outputs, or None.

    They may be batches of gradients (`is_grads_batched`, vmap), duals, tensors of
    other classes: whatever came between the outputs and the loss, or is active now.
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
    """Why the kernels cannot start from `hx`, or None.

    Parameters
    ----------
    outer : tuple of int
        The sizes of a state before its width.
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
    """Why the kernels cannot use a PackedSequence of so many rows, or None.

    Its parts are whatever somebody put in: PyTorch makes something of sizes that do not
    add up, or of zeros among them, and raises for most others.
    """
    if problem := tensor_problem("batch_sizes", batch_sizes, torch.int64):
        return problem
    if batch_sizes.dim() != 1:
        return f"batch_sizes has shape {tuple(batch_sizes.shape)}"
    if core.offsets_of(batch_sizes.numpy(), rows) is None:
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
        Those that the input may have.
    weights_dtype : torch.dtype, optional
        What the weights must have; the input's if not given.
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
    """Why the kernels cannot run a cell on these arguments; as `layers_problem`."""
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
    """A call that fits the kernels, to know others like it by one look in C.

    Like it is a call whose tensors have the same classes, types, devices, layouts,
    `requires_grad` and sizes, but for time and batch, the weights also the same
    strides, while the same modes of PyTorch are active: transforms, tracing, autocast,
    inference, dispatch.

    Parameters
    ----------
    data, weights : list of Tensor
        Input and states; weights, contiguous.
    batched : bool
        Whether the last but one of a state's sizes is the batch's.

    Attributes
    ----------
    requires_grad : bool
        Whether any of the tensors does.
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
        """Whether a call with these, data and weights, is like the one seen."""
        return self._guard.check(*tensors)


def _data(which, input, hx):
    """Input and states as a list; None where hx is not what it should be."""
    if hx is None:
        return [input]
    if not which.has_c:
        return [input, hx]
    return [input, *hx] if type(hx) in (tuple, list) and len(hx) == 2 else None


def recognise(home, input, hx, weights, ndim, batch_dim):
    """The `Seen` that says that a call fits the kernels, or None.

    Parameters
    ----------
    home : Home or None
        Of the weights.
    input, hx
        Anything.
    ndim, batch_dim : int
        Of a batched input.
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
    """Let `recognise` know a call that fits."""
    if _compat.TensorGuards is None:
        return
    data = _data(home.spec, input, hx)
    tensors = data + weights
    if len(set(map(id, tensors))) < len(tensors):
        return  # the guard takes no tensor twice
    known = home.seen.get(len(tensors), ())
    home.seen[len(tensors)] = (
        Seen(data, weights, input.dim() == ndim),
        *known[: _MOST_SEEN - 1],
    )
