# SPDX-License-Identifier: BSD-3-Clause
"""All recurrent layers of fastrnn as modules of PyTorch, with every option they have.

For each class of recurrent layers that fastrnn has, there is a module here of the same
name and with the same arguments:

>>> import torch
>>> from fastrnn.torch import layers
>>> mgu = layers.MGU(3, 5, num_layers=2, batch_first=True)
>>> y, h_n = mgu(torch.randn(2, 7, 3))
>>> y.shape, h_n.shape
(torch.Size([2, 7, 5]), torch.Size([2, 2, 5]))

`layers.LSTM`, `layers.GRU` and `layers.RNN` take what ``fastrnn.LSTM`` and its like
take, as peepholes and other functions of the gates, which PyTorch's own do not have.
`fastrnn.torch.LSTM`, which is another class, is a `torch.nn.LSTM`.
"""

import copy
import inspect
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from fastrnn.recurrent import table
from fastrnn.recurrent.layer import Recurrent
from fastrnn.torch import _compat, _fixed, _path
from fastrnn.torch._engine import _NOT_KEPT, Engine, arguments_of, run

_NAMES = {torch.float32: "float32", torch.float64: "float64"}


class Layer(torch.nn.Module):
    """Base of fastrnn's recurrent layers as modules of PyTorch.

    A module takes the arguments of the layer of NumPy arrays that has its name, and its
    parameters have that layer's names and shapes, so state dicts go from one to the
    other. First values and dropout depend on `torch.manual_seed` unless `seed` is
    given, which is for the first values alone. The type is PyTorch's default type
    unless `dtype` is given, which may be PyTorch's or a name.

    Notes
    -----
    Modules compute on the CPU, in float32 and float64. ``to``, ``double``, copies,
    pickles, state dicts, hooks, parametrizations, `torch.func.functional_call`,
    activation checkpoints and ``retain_graph`` work as for any module; `torch.compile`
    ends a graph before a layer and begins another one after it. Under autocast a layer
    computes in the type of its parameters and returns it. A second derivative, a batch
    of gradients, `torch.func`'s transforms, forward mode and `torch.jit` raise an
    error. Modules with ``quantized`` are for inference: their weights are buffers, and
    no gradient goes through them.

    The input, the output and the parameters must not be written to between forward and
    backward; PyTorch raises if they were.
    """

    kind: ClassVar[type[Recurrent]]  # the class of fastrnn's own layers

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__()
        if "kind" not in dir(type(self)):
            raise TypeError(
                "Layer: a layer has a cell; make one of the classes derived from Layer"
            )
        options.setdefault("seed", int(torch.randint(2**63 - 1, ())))
        dtype = options.setdefault("dtype", torch.get_default_dtype())
        options["dtype"] = _NAMES.get(dtype, dtype)
        layer = self.kind(*arguments, **options)
        if not isinstance(layer, Recurrent):
            raise TypeError(
                f"{self.kind.__name__}: input_size and hidden_size must both be "
                "numbers, since a module has all of its parameters from the beginning"
            )
        self._adopt(layer)

    def _adopt(self, layer):
        """Let a layer compute; its parameters become those of the module."""
        self._engine = Engine(layer)
        for name, own in zip(self._engine.names, self._engine.parameters, strict=True):
            self.register_parameter(name, torch.nn.Parameter(own))
        _fixed.hold(self, layer)

    @classmethod
    def from_layer(cls, layer: Recurrent) -> "Layer":
        """A module with the options and a copy of the parameters of a layer.

        Parameters
        ----------
        layer : Recurrent
            A layer of NumPy arrays. ``Layer.from_layer`` takes any, and a derived class
            those of its own cell.

        Returns
        -------
        Layer

        Raises
        ------
        TypeError
            If `layer` is not such a layer.

        Examples
        --------
        >>> import fastrnn
        >>> gru = fastrnn.GRU(3, 5, cell_clip=2.0, seed=0)
        >>> Layer.from_layer(gru)
        GRU(3, 5, cell_clip=2.0)
        """
        kind = getattr(cls, "kind", Recurrent)
        if not isinstance(layer, kind):
            raise TypeError(
                f"from_layer: layer must be a fastrnn.{kind.__name__}, "
                f"got {type(layer).__name__}"
            )
        if kind is Recurrent:
            cls = next(
                CLASSES[base.__name__]
                for base in type(layer).__mro__
                if base is getattr(CLASSES.get(base.__name__), "kind", None)
            )
        module = cls.__new__(cls)
        torch.nn.Module.__init__(module)
        module._adopt(copy.deepcopy(layer))
        return module.train(layer.training)

    def to_layer(self) -> Recurrent:
        """A layer of NumPy arrays with the options and a copy of the parameters.

        Examples
        --------
        >>> type(MGU(3, 5).to_layer())
        <class 'fastrnn.recurrent.mgu.MGU'>
        """
        layer = self._engine.with_weights(self._weights()).copied_layer()
        return layer.train(self.training)

    def _weights(self):
        return _path.weights_of(self, self._engine.names)

    @_compat.outside_the_graph
    def forward(
        self,
        input: Any,
        hx: Any = None,
        *,
        lengths: Any = None,
        mask: Any = None,
        resets: Any = None,
        zero_output_for_mask: bool | None = None,
    ) -> Any:
        """Run the layer over sequences.

        Parameters
        ----------
        input : Tensor or PackedSequence
            Of shape (T, B, input_size), (B, T, input_size) with ``batch_first``, or
            (T, input_size).
        hx : Tensor or tuple of Tensor, optional
            The initial state, a tuple where the cell has more than h.
        lengths, mask, resets, zero_output_for_mask
            As the layer of NumPy arrays takes them, as tensors or arrays. A
            PackedSequence has its own lengths.

        Returns
        -------
        y : Tensor or PackedSequence
        state : Tensor or tuple of Tensor

        Raises
        ------
        TypeError
            If a tensor is not a plain one on the CPU, or not of the parameters' type.
        ValueError
            If a shape disagrees.
        RuntimeError
            If a transform of `torch.func`, forward mode or `torch.jit` is active.
        """
        if isinstance(input, PackedSequence):
            if lengths is not None or mask is not None:
                raise ValueError(
                    f"{self._engine.who}: a PackedSequence has lengths, so lengths and "
                    "mask must be None"
                )
            return self._forward_packed(input, hx, resets, zero_output_for_mask)
        how = [_as_array(part) for part in (lengths, mask, resets)]
        return self._run(input, self._parts(hx), (*how, zero_output_for_mask))

    def _run(self, x, hx, how):
        engine = self._engine
        layer = engine.layer
        if layer._fixed:
            _fixed.look(self, layer)
        if layer.training is not self.training:
            layer.train(self.training)
        if torch.is_autocast_enabled("cpu"):
            x, *hx = [_cast(part, engine.dtype) for part in (x, *hx)]
        y, ends = run(engine, x, hx, self._weights(), how)
        return y, ends[0] if len(ends) == 1 else tuple(ends)

    def _parts(self, hx):
        """The arrays of an initial state as a list, empty for None."""
        if hx is None:
            return []
        n = self._engine.layer._states
        if n == 1:
            return [hx]
        if not isinstance(hx, tuple | list) or len(hx) != n:
            came = type(hx).__name__
            if isinstance(hx, tuple | list):
                came += f" of length {len(hx)}"
            raise TypeError(
                f"{self._engine.who}: hx must be a tuple of {n} tensors, got {came}"
            )
        return list(hx)

    def _forward_packed(self, packed, hx, resets, zero_output):
        """`forward` of a PackedSequence, whose sequences are sorted by length."""
        layer, (data, sizes, order, back) = self._engine.layer, packed
        if not (layer.return_sequences and resets is None):
            raise ValueError(
                f"{self._engine.who}: a PackedSequence needs return_sequences=True and "
                f"resets=None, got {layer.return_sequences} and {resets!r}"
            )
        x, lengths = pad_packed_sequence(PackedSequence(data, sizes), layer.batch_first)
        hx = [_in_order(part, order) for part in self._parts(hx)]
        y, state = self._run(x, hx, (lengths.numpy(), None, None, zero_output))
        y = pack_padded_sequence(y, lengths, layer.batch_first).data
        if isinstance(state, tuple):
            state = tuple([_in_order(part, back) for part in state])
        else:
            state = _in_order(state, back)
        return PackedSequence(y, sizes, order, back), state

    def reset_state(self, mask: Any = None) -> None:
        """Let a `stateful` layer begin anew, or those sequences whose `mask` is true.

        Parameters
        ----------
        mask : Tensor or array_like of bool, shape (B,), optional
        """
        self._engine.layer.reset_state(_as_array(mask))

    def flatten_parameters(self) -> None:
        """Do nothing: the parameters lie side by side. Programs for GPUs call it."""

    def constrain(self) -> None:
        """Bring the parameters to the nearest ones that the layer's options allow.

        fastrnn's optimisers do so by themselves. With one of PyTorch's, call it after
        each step of a `LeakyRNN` with signs or a learned alpha, or of an `IndRNN` with
        `time_steps`. Other layers allow all parameters.
        """
        if hasattr(self._engine.layer, "constrain"):
            weights = self._weights()
            engine = self._engine.with_weights(weights)
            engine.layer.constrain()
            with torch.no_grad():
                for weight, own in zip(weights, engine.parameters, strict=True):
                    weight.copy_(own)

    def extra_repr(self) -> str:
        return self._engine.layer.extra_repr()

    # -- parameters that move, copies -------------------------------------------------

    def _apply(self, fn, recurse=True):
        before = [(p, p.data) for p in self._parameters.values() if p is not None]
        super()._apply(fn, recurse)
        try:
            self._settle()
        except ValueError:  # the layer's options are not for that type
            for parameter, data in before:
                parameter.data = data
            raise
        return self

    def _load_from_state_dict(self, state_dict, prefix, *args):
        base = super()._load_from_state_dict
        _fixed.load(base, self, self._engine.layer, state_dict, prefix, *args)

    def _settle(self):
        """Bring the parameters into the memory of a layer of their type."""
        if self._engine.layer._fixed:
            _fixed.settle(self, self._engine.layer)
            return
        parameters = [self._parameters[name] for name in self._engine.names]
        if any(p is None for p in parameters):
            return  # a parametrization has taken its place: it is copied in each call
        dtypes = {p.dtype for p in parameters}
        if len(dtypes) > 1 or not dtypes <= _NAMES.keys():
            return  # a call says what is wrong
        (dtype,) = dtypes
        if dtype is not self._engine.dtype:
            self._engine = self._engine.with_dtype(_NAMES[dtype])
        for parameter, own in zip(parameters, self._engine.parameters, strict=True):
            # Memory that processes share has to stay where it is.
            if not _path.tensor_problem("", parameter) and not parameter.is_shared():
                with torch.no_grad():
                    own.copy_(parameter)
                parameter.data = own

    def __getstate__(self):
        state = self.__dict__.copy()
        engine = state.pop("_engine")
        layer = engine.layer
        state["_layer"] = arguments_of(layer), layer.dtype, layer.state
        return state

    def __setstate__(self, state):
        state = dict(state)
        arguments, dtype, carried = state.pop("_layer")
        super().__setstate__(state)
        layer = self.kind(**arguments, dtype=dtype, seed=0)
        layer.state = carried
        self._engine = Engine(layer)
        self._settle()


def _as_array(value):
    """A tensor as an array; anything else as it is."""
    return value.numpy() if isinstance(value, Tensor) else value


def _cast(tensor, dtype):
    """A tensor of another floating type as one of this type."""
    if isinstance(tensor, Tensor) and tensor.is_floating_point():
        return tensor.to(dtype)
    return tensor


def _in_order(state, indices):
    """A state with its sequences in another order; None for `indices` leaves it."""
    if indices is None or state is None:
        return state
    return state.index_select(1, indices)


def _option(name):
    """The property by which a module shows, and changes, an argument of its layer."""

    def get(self) -> Any:
        return getattr(self._engine.layer, name)

    def put(self, value: Any) -> None:
        setattr(self._engine.layer, name, value)

    return property(get, put, doc=f"The layer's argument `{name}`.")


def _class_of(kind):
    """The module's class for a class of layers."""
    name = kind.__name__
    signature = inspect.signature(kind.__init__)
    known = list(signature.parameters.values())
    content = {
        "__module__": __name__,
        "__doc__": (
            f"`fastrnn.{name}` as a module of PyTorch; see there for the arguments.\n\n"
            "    `Layer` says what all of these modules have in common.\n    "
        ),
        "__signature__": signature.replace(parameters=known[1:]),
        "kind": kind,
    }
    for option in signature.parameters:
        if option not in _NOT_KEPT:
            content[option] = _option(option)
    return type(Layer)(name, (Layer,), content)


CLASSES = {kind.__name__: _class_of(kind) for kind in table.classes().values()}
globals().update(CLASSES)


class _LayerNormed:
    """First base of the modules whose cells are normalised unless they are told not."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        if not options.get("rms_norm"):
            options.setdefault("layer_norm", True)
        super().__init__(*arguments, **options)


def _normalised(cls):
    """The module's class whose argument `layer_norm` is True if it is not given."""
    name = f"LayerNorm{cls.__name__}"
    content = {
        "__module__": __name__,
        "__doc__": (
            f"`layers.{cls.__name__}` with ``layer_norm=True``, unless a form of "
            "`layer_norm` or\n    `rms_norm` is given.\n    "
        ),
        "__signature__": cls.__signature__,
    }
    return type(Layer)(name, (_LayerNormed, cls), content)


NORMALISED = {
    made.__name__: made
    for made in (
        _normalised(cls) for cls in CLASSES.values() if hasattr(cls, "layer_norm")
    )
}
globals().update(NORMALISED)

__all__ = ["Layer", *CLASSES, *NORMALISED]
