# SPDX-License-Identifier: BSD-3-Clause
"""What all recurrent layers have in common: arguments, parameters, public methods.

A forward checks its arguments here, makes a `calls.Call` of them and runs it. The call
stays in the context, from where backward takes it. Most of this file, which is longer
than others, is docstrings of the public methods.
"""

from __future__ import annotations

import inspect
import sys
import types
import warnings
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.native import core
from fastrnn.native.layout import Layout
from fastrnn.nn import axis_rule, computing, quantized, schemes
from fastrnn.nn.attempt import Attempt
from fastrnn.nn.attributes import flag
from fastrnn.nn.axis_rule import BatchFirst
from fastrnn.nn.context import Context
from fastrnn.nn.module import Module
from fastrnn.recurrent import (
    arguments,
    inputs,
    leaving_out,
    parameters,
    rows,
    small_weights,
    states,
    table,
)
from fastrnn.recurrent.arguments import Functions
from fastrnn.recurrent.calls import Call, watched
from fastrnn.recurrent.runtime import Runtime
from fastrnn.recurrent.stream import Stream
from fastrnn.util import checks
from fastrnn.util.typing import Array, Mask, State, StateLike
from fastrnn.util.words import answering_constructor

if TYPE_CHECKING:
    from fastrnn.recurrent.keras_arguments import GatedByUnits, GatedOptions

# Packages whose code runs between a user's line that makes a layer and its constructor.
_PACKAGES = ("fastrnn.recurrent", "fastrnn.nn", "fastrnn.util")


def _dropout(layer, name, value):
    """The rule of `dropout`."""
    who = type(layer).__name__
    value = checks.probability(who, name, value)
    if value > 0 and layer.num_layers == 1:
        warnings.warn(
            f"{who}: dropout acts between layers, and num_layers is 1",
            stacklevel=_level_of_caller(),
        )
    return value


def _level_of_caller():
    """The `stacklevel` that lets a warning of our caller name the user's line.

    How many of our own calls lie between differs: a class of layers may have a
    constructor of its own or none, and an attribute may be set by either.
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__package__") in _PACKAGES:
        level, frame = level + 1, frame.f_back
    return level


def _go_backwards(layer, name, value):
    """The rule of `go_backwards`."""
    who = type(layer).__name__
    value = checks.flag(who, name, value)
    if value and layer.bidirectional:
        raise ValueError(f"{who}: go_backwards and bidirectional must not both be True")
    return value


def _under_name_of(cls, method):
    """A method of the base as one of a class's own: Python's errors then name that."""
    own = types.FunctionType(
        method.__code__, method.__globals__, method.__name__, method.__defaults__
    )
    own.__kwdefaults__ = method.__kwdefaults__
    own.__annotations__ = method.__annotations__
    own.__qualname__ = f"{cls.__name__}.{method.__name__}"
    return own


class Recurrent(BatchFirst, Module, Generic[State]):
    """Base of RNN, LSTM, GRU and their like: everything but the cell.

    A class of layers derives from this one and has the name that its cell's C file
    gives it (`fastrnn.recurrent.table`). It needs nothing but a docstring: this
    constructor has the arguments that all cells understand. A class whose cell knows
    others has a constructor of its own, which hands them to `_take` and then calls this
    one. What the cell does not know is refused.
    """

    _saved = False  # a file names the class that derives from it
    # Of a class: the table's entries of its cells, the name of its first cell, and how
    # many arrays its state has: (h,) or (h, c), say.
    _cells = ()
    _cell = None
    _states = 1
    _input_size_name, _units_name = "input_size", "hidden_size"
    _keras_defaults: ClassVar = {"batch_first": True, "return_sequences": False}
    _cell_functions: ClassVar = ("activation", "recurrent_activation")
    _later_arguments = (
        "zero_output_for_mask",
        "heads",
        "layer_norm",
        "rms_norm",
        *arguments.MASKS,
        "compute",
        "quantized",
    )
    _first_values = ("init",)
    _quantized = None  # the format of weights of fewer bytes than an element has
    _vector_range = None  # what `parameters.schemes` is given of that name
    _changeable: ClassVar = {
        "batch_first": flag,
        "dropout": _dropout,
        "return_sequences": flag,
        "go_backwards": _go_backwards,
        "stateful": flag,
        "zero_output_for_mask": flag,
        "compute": computing.rule,
    }
    _others = ("state",)
    # What the constructor does not set by name.
    activation: Functions | None
    recurrent_activation: Functions | None
    cell_clip: float | None
    zoneout: float | tuple[float, float]
    recurrent_dropout: float
    recurrent_dropout_mode: str
    input_dropout: float
    weight_drop: float
    state: State | None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if Recurrent in cls.__bases__:  # else it is made of its base's cells
            cls._cells = table.cells_of(cls.__name__)
            cls._cell, cls._states = cls._cells[0].name, cls._cells[0].n_states
            table.register(cls)
            if "__init__" not in vars(cls):
                init = _under_name_of(cls, inspect.unwrap(Recurrent.__init__))
                cls.__init__ = answering_constructor(init)

    @overload
    def __init__(
        self,
        units: int,
        activation: Functions | None = ...,
        **options: Unpack[GatedByUnits],
    ) -> None: ...
    @overload
    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        num_layers: int = ...,
        bias: bool = ...,
        batch_first: bool = ...,
        dropout: float = ...,
        bidirectional: bool = ...,
        *,
        activation: Functions | None = ...,
        **options: Unpack[GatedOptions],
    ) -> None: ...
    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        activation: Functions | None = None,
        recurrent_activation: Functions | None = None,
        cell_clip: float | None = None,
        zoneout: float | tuple[float, float] = 0.0,
        recurrent_dropout: float = 0.0,
        recurrent_dropout_mode: str = "h",
        input_dropout: float = 0.0,
        weight_drop: float = 0.0,
        learn_initial_state: bool = False,
        clip_state_grad: float | tuple[str, float] | None = None,
        merge_mode: str = "concat",
        connection: str | None = None,
        return_sequences: bool = True,
        checkpoint_every: int | None = None,
        go_backwards: bool = False,
        stateful: bool = False,
        zero_output_for_mask: bool = False,
        init: schemes.Init = schemes.DEFAULT,
        dtype: str = "float32",
        compute: str | None = None,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        who = type(self).__name__
        self.input_size = checks.positive_int(who, "input_size", input_size)
        self.hidden_size = checks.positive_int(who, "hidden_size", hidden_size)
        self.num_layers = checks.positive_int(who, "num_layers", num_layers)
        self.bias = checks.flag(who, "bias", bias)
        self.batch_first = batch_first
        self.dropout = dropout
        self.bidirectional = checks.flag(who, "bidirectional", bidirectional)
        self.return_sequences = return_sequences
        self.checkpoint_every = checkpoint_every
        self.go_backwards, self.stateful = go_backwards, stateful
        self.zero_output_for_mask = zero_output_for_mask
        self.state = None  # of a stateful layer, from its last call
        self.learn_initial_state = checks.flag(
            who, "learn_initial_state", learn_initial_state
        )
        self.merge_mode, self.connection = merge_mode, connection
        arguments.between_layers(who, self)
        self.clip_state_grad = clip_state_grad
        bounds = arguments.state_clip(who, clip_state_grad)
        cell = table.choose(self._cells, getattr(self, "nonlinearity", None))
        self._cell = cell.name
        given = {
            "activation": activation,
            "recurrent_activation": recurrent_activation,
            "cell_clip": cell_clip,
            "zoneout": zoneout,
            "recurrent_dropout": recurrent_dropout,
            "recurrent_dropout_mode": recurrent_dropout_mode,
            "input_dropout": input_dropout,
        }
        own = {name: vars(self)[name] for name in arguments.OWN if name in vars(self)}
        if cell.vectors and self._vectors_are_fixed:
            own["fixed_vectors"] = self._vectors()
        options = arguments.cell_options(who, cell, self.hidden_size, **given, **own)
        given["zoneout"], _ = leaving_out.zoneout(who, cell, zoneout)
        given["weight_drop"] = checks.probability(who, "weight_drop", weight_drop)
        arguments.check_known(who, cell, {"weight_drop": given["weight_drop"]})
        norm, rms = arguments.norm(
            who, cell, own.get("layer_norm", False), own.get("rms_norm", False)
        )
        vars(self).update(
            {name: given[name] for name in arguments.of_cell(cell) if name in given}
        )
        generator = checks.generator(who, seed)
        dtype = checks.dtype_name(who, dtype)
        self._quantized = vars(self).get("quantized")
        if self._quantized is not None:
            small_weights.check(who, self, cell, dtype, compute)
            options = options and options.in_inference()
        sizes = parameters.Sizes(
            cell=cell,
            n_layers=self.num_layers,
            n_directions=self._directions,
            input_size=self.input_size,
            hidden_size=self.hidden_size,
            h_size=self._h_size,
            y_size=self._y_size,
            bias=self.bias,
            heads=getattr(self, "heads", 1),
            has_vectors=bool(cell.vectors) and self._has_vectors,
            norm=norm,
            rms=rms,
            highway=connection == "highway",
            learned_states=self.learn_initial_state,
        )
        sizes.check(who, quantized.TYPES.get(self._quantized, dtype))
        layout = Layout(
            self._cell,
            self.input_size,
            self.hidden_size,
            self.num_layers,
            self._directions,
            self.bias,
            options,
            merge_mode != "concat",
            *bounds,
        )
        self._suffixes = sizes.suffixes()
        if self._quantized is None:
            self._declare(sizes.shapes(), dtype)
            first_values = self._param
        else:
            matrices, whole = small_weights.MATRICES, sizes.shapes()
            self._fix(quantized.shapes(whole, self._quantized, matrices))
            first_values = quantized.zeros(whole)
        self.compute = compute
        schemes.fill(
            who,
            init,
            first_values,
            parameters.schemes(
                cell,
                self.hidden_size,
                getattr(self, "input_forget", False),
                self._vectors(),
                self._vector_range,
                getattr(self, "highway_bias", 0.0),
            ),
            generator,
            len(cell.gates),
        )
        self._dropout_seeds = generator.spawn(1)[0]
        self._runtime = Runtime(
            layout,
            self._dtype,
            merge_mode,
            connection,
            self._dropout_seeds,
            cell=cell,
            options=options,
            suffixes=self._suffixes,
        )
        if self._quantized is None:
            self._runtime.bind(self._buffers, self._start, self._param, self._grad)
        else:
            first = quantized.first(who, first_values, self._quantized, matrices)
            self._set_fixed(first)

    def _take(self, **options):
        """Keep what only this class's cell knows, to be checked by the constructor."""
        vars(self).update(options)

    def _bind(self, buffers, start):
        super()._bind(buffers, start)
        if "_runtime" in vars(self):  # the constructor declares parameters before
            self._runtime.bind(buffers, start, self._param, self._grad)

    def _fixed_changed(self):
        self._runtime.bind_fixed(self._fixed)

    def __setstate__(self, state):
        super().__setstate__(state)
        if self._fixed:
            self._fixed_changed()

    @property
    def _has_vectors(self):
        """Whether the weights that multiply unit by unit, if any, are parameters."""
        return getattr(self, "peephole", True) and not self._vectors_are_fixed

    # Whether they are numbers that were given, and no parameters.
    _vectors_are_fixed = False

    def _vectors(self):
        """What they are at first, of one cell; None where a scheme says that."""
        return

    @property
    def _directions(self):
        return 2 if self.bidirectional else 1

    @property
    def _draws(self):
        """Whether a call in training makes choices, dropout between layers apart."""
        return self._runtime.draws or getattr(self, "weight_drop", 0.0) > 0

    @property
    def _y_size(self):
        """Width of a layer's output."""
        merged = self.merge_mode != "concat"
        return self._h_size * (1 if merged else self._directions)

    @property
    def _h_size(self):
        """Width of h: that of an LSTM's projection, or of the cell."""
        return getattr(self, "proj_size", 0) or self.hidden_size

    def _candidate(self, gates, ax, h, recur):
        """What goes into the function of a gate that is not a sigmoid, or None.

        For `diagnose`, which runs plain cells again in NumPy. A class whose cell has
        such a gate writes its equation here; without one, a report leaves the gate out.

        Parameters
        ----------
        gates : dict of str to ndarray
            The gates that open and close, by their letters, each (T, B, H).
        ax : ndarray, shape (T, B, H)
            What the gate gets from x, its bias ``b_ih`` added.
        h : ndarray, shape (T, B, S)
            The states before.
        recur : callable
            ``recur(state)`` is the state times the gate's part of R, ``b_hh`` added.
        """
        return

    @property
    def checkpoint_every(self) -> int | None:
        """For how many steps at a time backward has a tape; None for all steps."""
        return self._checkpoint_every

    @checkpoint_every.setter
    def checkpoint_every(self, k: int | None) -> None:
        who = type(self).__name__
        if k is not None:
            k = checks.positive_int(who, "checkpoint_every", k)
        self._checkpoint_every = k

    def extra_repr(self) -> str:
        defaults = {
            "num_layers": 1,
            "nonlinearity": self._cells[0].activations[0],
            "bias": True,
            "batch_first": False,
            "dropout": 0.0,
            "bidirectional": False,
            "return_sequences": True,
            "checkpoint_every": None,
            "go_backwards": False,
            "stateful": False,
            "zero_output_for_mask": False,
            **arguments.DEFAULTS,
        }
        shown = [str(self.input_size), str(self.hidden_size)]
        for name, default in defaults.items():
            value = getattr(self, name, default)
            if value != default:
                shown.append(f"{name}={value!r}")
        if self.dtype != "float32":
            shown.append(f"dtype={self.dtype!r}")
        if self.compute is not None:
            shown.append(f"compute={self.compute!r}")
        if self._quantized is not None:
            shown.append(f"quantized={self._quantized!r}")
        return ", ".join(shown)

    # -- forward ----------------------------------------------------------------------

    def compute_mask(self, x: ArrayLike, mask: ArrayLike | None = None) -> Mask:
        """The mask of the output: `mask`, or None with ``return_sequences=False``."""
        return mask if self.return_sequences else None

    def _mask_arguments(self, mask):
        found = {"mask": mask if self.batch_first else mask.T}
        if self.bidirectional:  # as Keras's Bidirectional tells its two layers
            found["zero_output_for_mask"] = True
        return found

    def forward(
        self,
        x: ArrayLike,
        hx: StateLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        zero_output_for_mask: bool | None = None,
    ) -> tuple[Array, State]:
        """Run the layer over sequences.

        Parameters
        ----------
        x : array_like, shape (T, B, input_size) or (T, input_size)
            Input sequences; (B, T, input_size) with ``batch_first``.
        hx : array_like or tuple of array_like, optional
            Initial state: ``h0``, or ``(h0, c0)`` for an LSTM, and so on for cells of
            more states. Each array has the shape
            (num_layers * directions, B, hidden_size), without B for unbatched x.
            Default: zero; for a `stateful` layer the last state of the call before.
        lengths : array_like of int, shape (B,), optional
            Number of steps of each sequence, in [0, T] and in any order. The steps that
            follow in x are neither read nor computed. Default: T for all sequences.
        mask : array_like of bool, shape (B, T), optional
            False leaves a step out, as in Keras. Its shape is (B, T) whatever
            `batch_first` is. At such a step the state stays as it is, and y repeats the
            output of the step before, or is zero if there is none. For the second
            direction the step before is the later one in time. What is repeated is what
            `merge_mode` and `connection` work on.
        resets : array_like of bool, shape (T, B), optional
            True sets the state of all layers to zero before the step, also if the step
            is masked. The shape is (B, T) with ``batch_first``. Not for bidirectional
            layers.
        zero_output_for_mask : bool, optional
            Whether y is zero at masked steps, and repeats nothing. Default: what the
            layer was made with.

        Returns
        -------
        y : ndarray, shape (T, B, directions * hidden_size)
            Outputs of the last layer, laid out like x, and zero past a sequence's end.
            With a projection proj_size stands in place of hidden_size, and merged
            directions have the width of one. In training mode y is read-only, because
            backward needs it as it is; x must not change before backward either.
            With ``return_sequences=False`` the shape is (B, directions * hidden_size),
            and y has each direction's last output, or zero where no step is computed.
        state : ndarray or pair of ndarray
            Last state of each sequence, ``h_n`` or ``(h_n, c_n)``, shaped like `hx`.

        Raises
        ------
        ValueError
            If a shape disagrees, T or B is 0, or a length is not in [0, T].
        TypeError
            If an argument is not real numbers, integers or booleans as it should be.

        Notes
        -----
        Each sequence, and each stretch from one reset to the next, gets the bits that
        it would get in a call of its own. The time that a call takes depends on how
        many steps are computed. The second direction begins at each sequence's own end.
        """
        call, y, state = self._run(
            x, hx, lengths, mask, resets, zero_output_for_mask, self.training
        )
        if self._quantized is None:
            self._keep(call)
        return y, state

    if TYPE_CHECKING:
        __call__ = forward

    def _run(self, x, hx, lengths, mask, resets, zero_output_for_mask, keeps):
        """Forward that leaves the layer's context alone; arguments are `forward`'s.

        Parameters
        ----------
        keeps : bool
            Whether to keep what backward needs, in training mode or not.

        Returns
        -------
        call : Call
        y, state
            As of `forward`.
        """
        runtime = self._runtime
        keeps = keeps and self._quantized is None
        kernels = core.kernels(self.compute or self._dtype, self._quantized)
        n_threads = runtime.count_threads()
        plan, unbatched = runtime.plan, False
        if plan is None or not plan.fits(kernels, n_threads, self.batch_first, x):
            who, batch_first = type(self).__name__, self.batch_first
            x, unbatched = inputs.sequences(
                who, "x", x, runtime.dtype, batch_first, "input_size", self.input_size
            )
            T, B = x.shape[1::-1] if batch_first else x.shape[:2]
            plan = runtime.plan_for(kernels, n_threads, batch_first, T, B)
            runtime.plan = plan
        computed = None
        if self.go_backwards or not (
            lengths is mask is resets is zero_output_for_mask is None
        ):
            computed = rows.arrange(
                type(self).__name__, self, plan.T, plan.B, unbatched,
                lengths, mask, resets, zero_output_for_mask,
                may_pad=not runtime.layer_by_layer,
            )  # fmt: skip
        start, learned = None, ()
        if hx is not None:
            names = [f"{letter}0" for letter in runtime.cell.states]
            names = names if len(names) > 1 else ("hx",)
            who = type(self).__name__
            start = inputs.state(who, names, hx, runtime, plan.B, unbatched)
        elif self.stateful and self.state is not None:
            start = inputs.state_before(type(self).__name__, self.state, plan.B)
        if self.learn_initial_state:
            start = start or [None] * self._states
            start, learned = states.learned(runtime, start, plan.B)
        h0, c0 = (None, None) if start is None else (start[0], inputs.beside_h(start))
        call = Call(self, runtime, plan, computed, unbatched, learned)
        y, end = call.forward(x, h0, c0, keeps)
        if self.stateful:
            self.state = states.as_state([part.copy() for part in end])
        if unbatched:
            y = y.reshape(-1, y.shape[-1]) if call.sequences else y[0]
            end = [part[:, 0] for part in end]
        return call, y, (tuple(end) if len(end) > 1 else end[0])

    def reset_state(self, mask: ArrayLike | None = None) -> None:
        """Let a `stateful` layer begin anew.

        Parameters
        ----------
        mask : array_like of bool, shape (B,), optional
            True for the sequences that begin anew, from zero. Default: all of them; the
            next call may then have another number of sequences.

        Raises
        ------
        ValueError, TypeError
            If `mask` is not such an array; nothing has changed then.
        """
        if mask is None:
            self.state = None
            return
        mask = inputs.check_reset(
            f"{type(self).__name__}.reset_state", mask, self.state
        )
        for part in states.state_parts(self.state):
            part[:, mask] = 0

    def reset_states(self) -> None:
        """`reset_state` of all sequences, under Keras's older name."""
        self.reset_state()

    def stream(self, batch_size: int = 1) -> Stream:
        """Prepare inference one time step at a time, with the state kept inside.

        Parameters
        ----------
        batch_size : int
            Independent signals that step together.

        Returns
        -------
        Stream
            Its methods are ``step(x_t)`` and ``reset(mask=None)``. It has a copy of the
            layer's weights.

        Raises
        ------
        ValueError
            If the layer is bidirectional or goes backwards.
        """
        return Stream(self, batch_size)

    def quantize(self, weights: str = "int8") -> Self:
        """A copy for inference whose weights take one byte or two.

        Parameters
        ----------
        weights : {"int8", "bfloat16"}
            "int8": W and R become integers up to 127 times a scale for each of their
            rows; x and h are rounded to 14 bits where they are multiplied, and their
            products are exact. "bfloat16": W and R are rounded to their upper halves,
            and all else is float32.

        Returns
        -------
        RNN, LSTM or GRU
            A layer of the same class, made with ``quantized=weights``: it is called,
            saved and stepped through as this one, which stays as it is, and has no
            backward. Its `parameters` are none; `state_dict` has its weights, and a
            ``_scale`` beside each one of int8.

        Raises
        ------
        ValueError
            If no kernels have such weights for the cell or an option of the layer, or
            a weight is not finite and `weights` is "int8".

        Notes
        -----
        Results are the same for any number of threads, on all processors with FMA, and
        for a row alone or in a batch.

        Examples
        --------
        >>> lstm = fastrnn.LSTM(3, 64, seed=0).eval()
        >>> small = lstm.quantize("int8")
        >>> small
        LSTM(3, 64, quantized='int8')
        >>> x = np.random.default_rng(0).normal(size=(5, 2, 3)).astype("f")
        >>> bool(np.abs(small(x)[0] - lstm(x)[0]).max() < 0.01)
        True
        """
        return small_weights.copy_of(self, weights)

    # -- backward ---------------------------------------------------------------------

    def backward(
        self,
        dy: ArrayLike | None,
        d_state: StateLike | None = None,
        context: Context | None = None,
        *,
        record_flow: bool | str = False,
    ) -> Any:
        """Back-propagate through time; parameter gradients are added to `grads`.

        Parameters
        ----------
        dy : array_like or None
            Gradient of the loss with respect to y, shaped like y; None for zero.
        d_state : array_like or pair of array_like, optional
            Gradient with respect to the last state, shaped like that state. Default:
            zero. In a pair either may be None, for zero.
        context : Context, optional
            The ``layer.context`` that the forward in question left. Default: the one
            that the last forward left.
        record_flow : bool or "lag"
            Whether to return `flow`, by steps for True or by lag for "lag".

        Returns
        -------
        dx : ndarray
            Gradient with respect to x, shaped like x.
        d_hx : ndarray or pair of ndarray
            Gradient with respect to the initial state.
        flow : ndarray of float64, shape (num_layers * directions, T)
            Only with `record_flow`: the norm, over batch and units, of the gradient of
            the loss with respect to each h_t, along all ways from h_t to the loss, and
            before ``clip_state_grad``. Where the norm falls with the distance from the
            loss, gradients vanish; where it grows, they explode. By lag, 0 stands for
            the step that a direction of a sequence ends with, whatever the sequence's
            length and mask.

        Raises
        ------
        ValueError
            If a shape disagrees, or both `dy` and `d_state` are None.
        TypeError
            If an argument is not real numbers.
        RuntimeError
            If there was no forward in training mode, or its context was used before.

        Notes
        -----
        Parameters may be written to between forward and backward: gradients are those
        of the forward that ran. While backward runs they must stay, since it may read
        them.
        """
        if self._quantized is not None:
            quantized.check_backward(f"{type(self).__name__}.backward", self._quantized)
        if record_flow not in (False, True, "lag"):
            raise ValueError(
                f"{type(self).__name__}.backward: record_flow must be True, False or "
                f"'lag', got {record_flow!r}"
            )
        context = self._context(context)
        if context.samples_first != axis_rule.rule.samples_first:
            with axis_rule.as_in_a_model(context.samples_first):
                return Recurrent.backward(
                    self, dy, d_state, context, record_flow=record_flow
                )
        call, watcher = context.saved, watched.watcher
        report = None if watcher is None else watcher(call)
        if call.adds_at_once and not (record_flow or report):
            return self._backward(context, dy, d_state, False, None)
        with Attempt():
            return self._backward(context, dy, d_state, record_flow, report)

    def _backward(self, context, dy, d_state, record_flow, report):
        """`backward` of a call; `report` takes norms by lag, if somebody wants them."""
        call, runtime = context.saved, self._runtime
        dh_n = dc_n = None
        if d_state is not None or not call.takes_dy(dy):
            who = f"{type(self).__name__}.backward"
            dy, dh_n, dc_n = inputs.gradients(who, call, self.batch_first, dy, d_state)
        grads = runtime.grads if self._trainable else None
        dx, d_start, squares = call.backward(
            context, dy, dh_n, dc_n, grads, record_flow or report
        )
        if call.learned and self._trainable:
            states.add_learned(runtime, call.learned, d_start)
        if call.unbatched:
            dx, d_start = dx.reshape(call.T, -1), [part[:, 0] for part in d_start]
        d_hx = tuple(d_start) if len(d_start) > 1 else d_start[0]
        if report:
            report(call.flow_norms(squares, True))
        if not record_flow:
            return dx, d_hx
        return dx, d_hx, call.flow_norms(squares, record_flow == "lag")


# Python's own errors name a method by the class that it was written in; users know
# RNN, LSTM and GRU.
for _method in (Recurrent.forward, Recurrent.backward, Recurrent.stream):
    _method.__qualname__ = _method.__name__
