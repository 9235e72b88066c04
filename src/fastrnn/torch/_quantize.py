# SPDX-License-Identifier: BSD-3-Clause
"""`quantize`: a model of PyTorch for inference, whose weights take fewer bytes."""

import copy
from typing import Any, TypeVar

import torch

from fastrnn.nn import quantized
from fastrnn.nn.layers import Linear
from fastrnn.recurrent import GRU, LSTM, RNN, small_weights
from fastrnn.torch import _classes, _compat, _fixed, _path, layers
from fastrnn.torch._stack import n_threads

ModuleT = TypeVar("ModuleT", bound=torch.nn.Module)
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)
_LAYERS = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}


class QuantizedLinear(torch.nn.Module):
    """`torch.nn.Linear` whose weight takes one byte or two an element, for inference.

    `quantize` makes it of a `torch.nn.Linear`. The weight, and for int8 the scales of
    its rows, are buffers: ``weight``, ``weight_scale`` and ``bias``.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
    weights : {"int8", "bfloat16"}

    Raises
    ------
    ValueError, TypeError
        If an argument is not as above.

    Examples
    --------
    >>> import torch
    >>> small = QuantizedLinear(3, 4)
    >>> small(torch.ones(5, 3)).shape
    torch.Size([5, 4])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        weights: str = "int8",
    ) -> None:
        quantized.check_format("QuantizedLinear", "weights", weights)
        layer = Linear(in_features, out_features, bias, quantized=weights)
        super().__init__()
        self._adopt(layer)

    def _adopt(self, layer):
        layer._count_threads = n_threads
        self._layer = layer
        self.in_features, self.out_features = layer.in_features, layer.out_features
        _fixed.hold(self, layer)
        if not layer.bias:
            self.register_buffer("bias", None)

    @_compat.outside_the_graph
    def forward(self, input: Any) -> Any:
        """Map `input`.

        Parameters
        ----------
        input : Tensor, shape (..., in_features)
            Of float32; under autocast of any floating type, which becomes float32.

        Returns
        -------
        Tensor, shape (..., out_features)
            No gradient goes through it.

        Raises
        ------
        ValueError, TypeError
            If `input` is not such a tensor on the CPU.
        RuntimeError
            If a transform of `torch.func`, forward mode or `torch.jit` is active.
        """
        if problem := _path.transform_problem():
            raise RuntimeError(
                "QuantizedLinear: the kernels compute with numbers alone, and "
                f"{problem}"
            )
        if isinstance(input, torch.Tensor) and torch.is_autocast_enabled("cpu"):
            input = input.to(torch.float32)
        problem = "it is no Tensor"
        if isinstance(input, torch.Tensor):
            problem = _path.tensor_problem("the input", input, torch.float32)
        if problem:
            raise TypeError(
                f"QuantizedLinear: input must be a float32 tensor on the CPU, and "
                f"{problem}"
            )
        _fixed.look(self, self._layer)
        return torch.from_numpy(self._layer(input.detach().numpy()))

    def extra_repr(self) -> str:
        return self._layer.extra_repr()

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        _fixed.settle(self, self._layer)
        return self

    def _load_from_state_dict(self, state_dict, prefix, *args):
        base = super()._load_from_state_dict
        _fixed.load(base, self, self._layer, state_dict, prefix, *args)

    def __setstate__(self, state):
        super().__setstate__(state)
        _fixed.settle(self, self._layer)


def quantize(model: ModuleT, weights: str = "int8") -> ModuleT:
    """A copy of a model for inference, whose weights take one byte or two.

    What `torch.ao.quantization.quantize_dynamic` is used for.

    Parameters
    ----------
    model : torch.nn.Module
        A layer or a model. It stays as it is.
    weights : {"int8", "bfloat16"}
        What the weights of `torch.nn.LSTM`, `GRU`, `RNN` and `Linear`, of fastrnn's
        modules in their place, and of `layers` become; `fastrnn.LSTM.quantize` says
        what that means.

    Returns
    -------
    torch.nn.Module
        In eval mode. Modules that are replaced have their hooks, and the arguments,
        results and state dict of `layers.LSTM` and its like, or of `QuantizedLinear`.
        All others stay: those of other types than float32, with projections or options
        that no kernel for such weights has, of classes that derive from these, whose
        weights a hook of `torch.nn.utils` makes (pruning, ``weight_norm``), and parts
        of PyTorch's own transformers. Printing the model shows which have
        ``quantized``. No gradient goes through what was replaced.

    Raises
    ------
    TypeError
        If `model` is not a `torch.nn.Module`.
    ValueError
        If no module can have such weights, or a weight is not finite and `weights` is
        "int8".

    Examples
    --------
    >>> import torch
    >>> lstm = torch.nn.LSTM(3, 64, batch_first=True)
    >>> small = quantize(lstm)
    >>> small
    LSTM(3, 64, batch_first=True, quantized='int8')
    >>> x = torch.randn(2, 10, 3)
    >>> bool((small(x)[0] - lstm(x)[0]).abs().max() < 0.02)
    True
    """
    who = "quantize"
    if not isinstance(model, torch.nn.Module):
        raise TypeError(
            f"{who}: model must be a torch.nn.Module, got {type(model).__name__}"
        )
    quantized.check_format(who, "weights", weights)
    small = _replaced(model, weights)
    if not small:
        raise ValueError(
            f"{who}: model must have a torch.nn.LSTM, GRU, RNN or Linear of float32 "
            f"without what no kernel for such weights has, got {model!r}"
        )
    # A copy of what is replaced would be for nothing.
    return copy.deepcopy(model, {id(old): new for old, new in small}).eval()


def _replaced(model, weights):
    """(module, what replaces it) of all modules that can have such weights."""
    found, seen, waiting = [], set(), [model]
    while waiting:
        module = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        made = _small(module, weights)
        if made is not None:
            found.append((module, made))
        elif not _reads_its_parts(module):
            waiting += module.children()
    return found


def _reads_its_parts(module):
    """Whether a module may read the weights of modules that it is made of."""
    homes = {base.__module__ for base in type(module).__mro__}
    return bool(homes & {"torch.nn.modules.transformer", "torch.nn.modules.activation"})


def _small(module, weights):
    """What replaces a module; None if it stays."""
    layer = _layer_of(module)
    if layer is None:
        return None
    small = layer.quantize(weights)
    if isinstance(layer, Linear):
        made = QuantizedLinear.__new__(QuantizedLinear)
        torch.nn.Module.__init__(made)
        made._adopt(small)
    else:
        made = layers.Layer.from_layer(small)
    for name in _HOOKS:
        setattr(made, name, getattr(module, name).copy())
    return made


def _layer_of(module):
    """The layer of fastrnn that a module is, whole; None if it must stay."""
    if isinstance(module, layers.Layer):
        layer = module.to_layer()
        return layer if small_weights.can_be_small(layer) else None
    cls = _classes.class_of(module)
    theirs = _classes.THEIRS.get(cls, cls)
    is_linear = cls is torch.nn.Linear
    is_recurrent = theirs in (torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN)
    hooks = module._forward_pre_hooks.values()
    if (
        not (is_linear or is_recurrent)
        or _classes.own_forward(module)
        # Such as pruning, which makes the weight anew in each call.
        or any(type(hook).__module__.startswith("torch.nn.utils.") for hook in hooks)
    ):
        return None
    names = module._flat_weights_names if is_recurrent else ("weight", "bias")
    found = dict(zip(names, _path.weights_of(module, names), strict=True))
    found = {name: one.detach() for name, one in found.items() if one is not None}
    if any(_path.tensor_problem("", one, torch.float32) for one in found.values()):
        return None
    if is_linear:
        layer = Linear(module.in_features, module.out_features, "bias" in found)
    elif module.proj_size:
        return None
    else:
        layer = _recurrent_of(module, theirs)
    layer.load_state_dict({name: one.numpy() for name, one in found.items()})
    return layer


def _recurrent_of(module, theirs):
    """A layer of fastrnn with the arguments of a module of PyTorch."""
    more = {"nonlinearity": module.nonlinearity} if theirs is torch.nn.RNN else {}
    return _LAYERS[theirs.__name__](
        module.input_size,
        module.hidden_size,
        module.num_layers,
        bias=module.bias,
        batch_first=module.batch_first,
        bidirectional=module.bidirectional,
        **more,
    )
