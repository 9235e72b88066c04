# SPDX-License-Identifier: BSD-3-Clause
"""`diagnose`: how gradients flow through a model's recurrent layers, in words."""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.native import arrays
from fastrnn.nn.module import Module
from fastrnn.recurrent import arguments, table
from fastrnn.recurrent.calls import watched_by
from fastrnn.recurrent.layer import Recurrent
from fastrnn.util.functions import sigmoid
from fastrnn.util.pictures import axes_for, name_lines
from fastrnn.util.typing import Array

# A gradient whose norm changes by less than these factors flows well enough.
_VANISHED, _EXPLODED = 1e-3, 1e3
_NEAR_NOTHING = 1e3  # one lag after a norm this many times the smallest, it may be 0
_SATURATED, _DEAD = 0.5, 0.1  # a remedy is named for shares that are larger


@dataclasses.dataclass(frozen=True)
class Flow:
    """What was found in one direction of one layer.

    Attributes
    ----------
    name : str
        The layer's place in the model, as one writes it, such as "model[0]"; the number
        of the layer, where there are several in one or it is the model; "reverse".
    kind : str
        Class of the layer: "RNN", "LSTM", "GRU" or another.
    norms : ndarray, shape (T,)
        Norm of dL/dh by time lag, for as many lags as the longest sequence has steps.
        Lag 0 is the step that the direction ends with. Where a mask or lengths leave
        steps out, each sequence has a last step of its own.
    saturated : dict of str to float
        Share of each gate's values at which the gate hardly changes: a sigmoid's below
        0.05 or above 0.95, a tanh's below -0.95 or above 0.95. Empty for cells that
        have options.
    dead : float or None
        Share of a ReLU layer's units that are zero at every step of every sequence.
    dtype : str
        Of the layer, and so of the gradients.
    """

    name: str
    kind: str
    norms: Array
    saturated: dict[str, float]
    dead: float | None
    dtype: str = "float32"

    @property
    def underflow(self) -> int | None:
        """The first lag from which on the gradient is too small to measure, or None.

        Kernels flush numbers below 1e-38 to zero in float32, and norms, which are
        measured by squares in float64, below 1e-154 are zero in any case. Other zeros
        are exact: no gradient arrives, or all units are dead.
        """
        lag = int(np.flatnonzero(self.norms).max(initial=-1)) + 1
        if lag in (0, len(self.norms)):
            return None
        return lag if self.norms[lag - 1] < _NEAR_NOTHING * self._least else None

    @property
    def _least(self):
        """The smallest norm of numbers of the dtype whose square float64 can hold."""
        tiny = float(np.finfo(self.dtype).tiny)
        return max(tiny, math.sqrt(sys.float_info.min))

    @property
    def ratio(self) -> float:
        """Norm at the longest lag over the largest of the newest tenth of the lags."""
        near = self.norms[: max(1, len(self.norms) // 10)].max()
        return float(self.norms[-1] / near) if near > 0 else np.nan


class Diagnosis:
    """What `diagnose` found: `str` says it in words, `plot` draws it.

    Attributes
    ----------
    flows : list of Flow
        One of each recurrent layer and direction.
    remedies : list of str
        What is known to help against what was found; empty where all is well.

    Examples
    --------
    >>> gru = fastrnn.GRU(1, 8, seed=0)
    >>> x = np.ones((9, 2, 1))
    >>> found = fastrnn.diagnose(gru, x, lambda y: (y.sum(), np.ones_like(y)))
    >>> [flow.name for flow in found.flows]
    ['layer 0']
    """

    def __init__(self, flows: list[Flow]) -> None:
        self.flows = flows
        self.remedies: list[str] = _remedies(flows)

    def __str__(self):
        lines = []
        for flow in self.flows:
            lines.append(f"{flow.name} ({flow.kind}): {_in_words(flow)}")
            for gate, share in flow.saturated.items():
                lines.append(f"    {gate}: {share:.0%} saturated")
            if flow.dead is not None:
                lines.append(f"    {flow.dead:.0%} of the units are dead")
        if self.remedies:
            lines.append("What helps:")
            lines += [f"  - {remedy}" for remedy in self.remedies]
        return "\n".join(lines)

    __repr__ = __str__

    def plot(self, axes: Any = None) -> Any:
        """Draw norms against time lag, on a logarithmic scale, which has no zero.

        A line that ends in a cross before the longest lag is of a gradient that is too
        small to measure from there on: it underflows in its dtype.

        Parameters
        ----------
        axes : matplotlib.axes.Axes, optional
            Where to draw. Default: the axes of a new figure.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ImportError
            If Matplotlib is not installed.
        """
        axes, new = axes_for("Diagnosis.plot", axes)
        ends = {}  # by label: lags and norms where lines end for underflow
        for flow in self.flows:
            seen = np.where(flow.norms > 0, flow.norms, np.nan)
            axes.semilogy(seen, label=f"{flow.name} ({flow.kind})")
            if flow.underflow is not None:
                last = flow.underflow - 1
                label = f"below {flow._least:.0e}: {flow.dtype} underflows"
                ends.setdefault(label, []).append((last, flow.norms[last]))
        for label, points in ends.items():
            lags, norms = zip(*points, strict=True)
            axes.semilogy(lags, norms, "x", color="black", label=label)
        longest = max(len(flow.norms) for flow in self.flows) - 1
        margin = 0.05 * max(1, longest)
        axes.set_xlim(-margin, longest + margin)  # all lags, also where nothing is left
        axes.set_xlabel("time lag, steps")
        axes.set_ylabel("norm of dL/dh")
        name_lines(axes, new)
        return axes


def diagnose(
    model: Module, x: ArrayLike, loss: Callable[[Any], tuple[float, Array]]
) -> Diagnosis:
    """Run one training step without its update, and say how its gradients flow.

    Parameters
    ----------
    model : Module
        A model whose recurrent layers may be anywhere in it.
    x : array_like
        A batch of the model's input.
    loss : callable
        Takes the model's output and returns ``(loss, gradient)``, as
        ``lambda y: fastrnn.mse_loss(y, target)`` does.

    Returns
    -------
    Diagnosis

    Raises
    ------
    TypeError
        If `model` is no module, or `loss` cannot be called.
    ValueError
        If the model has no recurrent layer, or a layer's backward is not reached.

    Notes
    -----
    Gradients and modes are as they were when the call is over. `loss` is given the
    model's output alone: where the model has a mask, ``model.output_mask`` says which
    steps count. Where `model` is a recurrent layer by itself, `loss` is given y without
    the state.

    Examples
    --------
    >>> rnn = fastrnn.RNN(1, 8, seed=0)
    >>> x = np.ones((60, 2, 1), "f")
    >>> def last_step(y):
    ...     dy = np.zeros_like(y)
    ...     dy[-1] = 1
    ...     return y[-1].sum(), dy
    >>> found = fastrnn.diagnose(rnn, x, last_step)
    >>> print(found)  # doctest: +ELLIPSIS
    layer 0 (RNN): the gradient vanishes...
    """
    if not isinstance(model, Module):
        raise TypeError(f"diagnose: model must be a Module, got {type(model).__name__}")
    if not callable(loss):
        raise TypeError(f"diagnose: loss must be callable, got {type(loss).__name__}")
    layers = [
        (prefix, module)
        for prefix, module in model._walk()
        if isinstance(module, Recurrent)
    ]
    if not layers:
        raise ValueError(
            f"diagnose: model must have a recurrent layer, got {type(model).__name__}"
        )
    before = [(m, m.training, m.context) for m in model.modules()]
    grads = model.flat_grads.copy()
    watcher = _Watcher()
    try:
        model.train()
        y = model(x)
        if isinstance(model, Recurrent):
            y = y[0]
        result = loss(y)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(
                "diagnose: loss must return (loss, gradient), "
                f"got {type(result).__name__}"
            )
        with watched_by(watcher):
            model.backward(result[1])
    finally:
        model.flat_grads[...] = grads
        for module, training, context in before:
            module.training, module.context = training, context
    missed = [prefix or "itself" for prefix, m in layers if m not in watcher.found]
    if missed:
        raise ValueError(
            "diagnose: the model's backward must reach every recurrent layer, got "
            f"none for {', '.join(missed)}"
        )
    flows = []
    for prefix, layer in layers:
        flows += _flows(prefix, layer, *watcher.found[layer])
    return Diagnosis(flows)


class _Watcher:
    """Notes what the backwards of recurrent layers show.

    Attributes
    ----------
    found : dict
        By layer: norms by lag, and what `_saturation` gives. Of a layer that runs
        several times, the backward that came last.
    """

    def __init__(self):
        self.found = {}

    def __call__(self, call):
        gates = _saturation(call)  # now, since backward lets go of what it needs

        def note(norms):
            self.found[call.layer] = norms, gates

        return note


def _flows(prefix, layer, flow, gates):
    D, kind = layer._runtime.n_directions, layer._runtime.cell.layer
    for cell, norms in enumerate(flow):
        parts = [_place(prefix)] if prefix else []
        if not prefix or len(flow) > D:
            parts.append(f"layer {cell // D}")
        if cell % D:
            parts.append("reverse")
        saturated, dead = gates.get(cell, ({}, None))
        yield Flow(" ".join(parts), kind, norms, saturated, dead, str(layer.dtype))


def _place(prefix):
    """Where a layer is in a model, as one writes it.

    Examples
    --------
    >>> _place("0."), _place("encoder."), _place("1.2.layer.")
    ('model[0]', 'model.encoder', 'model[1][2].layer')
    """
    names = prefix.removesuffix(".").split(".")
    return "model" + "".join(f"[{n}]" if n.isdigit() else f".{n}" for n in names)


def _saturation(call):
    """By cell: (share of saturated values by gate, share of dead units or None).

    The layer's cells run again from a zero state, without dropout. Of calls that
    compute some steps only, and of cells with options, nothing is said.
    """
    runtime, plan = call.runtime, call.plan
    options = runtime.options
    if call.rows is not None or runtime.layer_by_layer or plan.T < 2:
        return {}
    if options is not None and options.general:
        return {}
    x, found = call.x, {}
    if plan.batch_first:
        x = np.ascontiguousarray(x.swapaxes(0, 1))
    D, S = runtime.n_directions, runtime.h_size
    for cell in range(runtime.n_cells):
        if cell % D == 0:
            y = np.empty((plan.T, plan.B, S * D), x.dtype)
        one = _run_cell(call, cell, x)
        y[..., cell % D * S :][..., :S] = one
        found[cell] = _of_cell(call, cell, x, one, reverse=bool(cell % D))
        if cell % D == D - 1 and cell // D < runtime.n_layers - 1:
            x = y
    return found


def _run_cell(call, cell, x):
    """Outputs (T, B, S) of one cell."""
    runtime, plan = call.runtime, call.plan
    D, S, (T, B, _) = runtime.n_directions, runtime.h_size, x.shape
    block = arrays.ArrayPlan(
        plan.kernels, plan.n_threads, runtime.layout, T, B, first=cell, n_cells=1
    )
    y = np.empty((T, B, D * S), x.dtype)
    end = np.empty(block.state_shape, x.dtype)
    block.forward(
        runtime.memory, call.use, x, 0, None, None, None, 0.0, y, 0, end, False
    )
    return np.ascontiguousarray(y[..., cell % D * S :][..., :S])


def _of_cell(call, number, x, y, reverse):
    """Shares of one cell, from all its steps but the first.

    A gate that opens and closes is a sigmoid of one sum, of what W and R give. What
    another gate is, a cell's class says (`Recurrent._candidate`).
    """
    cell = call.runtime.cell
    if cell.gates == ("h",):  # a cell without gates: its state is what can saturate
        if cell.activations == ("relu",):
            return {}, float((y == 0).all(axis=(0, 1)).mean())
        return {_label(cell, 0): _saturated(cell, 0, y)}, None
    now, h = (x[:-1], y[1:]) if reverse else (x[1:], y[:-1])
    W, R, b_ih, b_hh, *_ = call.runtime.weights_of(number)
    zero = np.zeros(len(W), W.dtype)
    b_ih, b_hh = (zero if b is None else b for b in (b_ih, b_hh))
    if cell.skips:  # the state that its gates see is c, which is not here
        return {}, None
    G, opens = len(cell.gates), arguments.gates_of(cell).get("recurrent_activation", ())
    ax = np.split(now @ W.T + b_ih, G, -1)
    if cell.is_scan:  # no gate sees h
        values = {g: sigmoid(ax[g]) for g in opens}
        return {
            _label(cell, g): _saturated(cell, g, values[g]) for g in sorted(values)
        }, None
    of_gate = list(zip(np.split(R, G), np.split(b_hh, G), strict=True))

    def recur(gate, state):
        """What one gate's part of R gives for a state, its bias added."""
        R_gate, b_gate = of_gate[gate]
        heads = R_gate.reshape(call.runtime.layout.heads, -1, R_gate.shape[1])
        parts = np.split(state, len(heads), -1)
        sums = [part @ head.T for part, head in zip(parts, heads, strict=True)]
        return np.concatenate(sums, -1) + b_gate

    values = {g: sigmoid(ax[g] + recur(g, h)) for g in opens}
    by_name = {cell.gates[g]: value for g, value in values.items()}
    for g in set(range(G)) - values.keys():
        a = call.layer._candidate(by_name, ax[g], h, functools.partial(recur, g))
        if a is not None and cell.activations[g] == "tanh":
            values[g] = np.tanh(a)
    return {
        _label(cell, g): _saturated(cell, g, values[g]) for g in sorted(values)
    }, None


def _label(cell, gate):
    """How a report calls a gate, or the state of a cell without gates."""
    name = cell.activations[gate]
    return cell.gates[gate] if name == "sigmoid" else f"{cell.gates[gate]} ({name})"


def _saturated(cell, gate, value):
    """Share of a function's values that are nearly constant."""
    if cell.activations[gate] == "sigmoid":
        return float((np.abs(value - 0.5) > 0.45).mean())
    return float((np.abs(value) > 0.95).mean())


def _in_words(flow):
    ratio, lag = flow.ratio, len(flow.norms) - 1
    if not np.isfinite(ratio):
        return "no finite gradient arrives at the newest steps"
    if flow.underflow is not None:
        return (
            f"the gradient vanishes, to less than {flow._least:.0e} from lag "
            f"{flow.underflow} of {lag} on, where {flow.dtype} underflows"
        )
    if ratio < _VANISHED:
        return f"the gradient vanishes, to {ratio:.1e} of its size over {lag} steps"
    if ratio > _EXPLODED:
        return f"the gradient explodes, to {ratio:.1e} times its size over {lag} steps"
    return f"the gradient keeps {ratio:.2g} of its size over {lag} steps"


def _remedies(flows):
    """What is known to help against what was found."""
    found = []
    vanished = {flow.kind for flow in flows if flow.ratio < _VANISHED}
    for kind in table.kinds():
        if kind not in vanished:
            continue
        cell = table.cells_of(kind)[0]
        if kind == "IndRNN":
            found.append("recurrent weights near 1: IndRNN(..., time_steps=T)")
        elif cell.is_scan:
            found.append("a bias with which gates keep the state at first: init=")
        elif cell.gates == ("h",):
            found.append("an LSTM or a GRU, whose gates let gradients past")
            found.append(
                "identity or orthogonal recurrent weights: init.identity_ with "
                'nonlinearity="relu", init.orthogonal_ with "tanh"'
            )
        elif cell.n_states == 2 and "f" in cell.gates:
            found.append(
                f"a forget gate that is open at first: {kind}(..., forget_bias=1)"
            )
        else:
            found.append(
                "orthogonal recurrent weights: init.orthogonal_ with "
                f"n_gates={len(cell.gates)}"
            )
    if any(not flow.ratio <= _EXPLODED for flow in flows):
        found.append("clip_grad_norm_ before each step of the optimiser")
        found.append("bounds inside back-propagation: clip_state_grad=")
        found.append("truncation: shorter windows, the state carried over")
    if any(max(flow.saturated.values(), default=0) > _SATURATED for flow in flows):
        found.append(
            "smaller weights or inputs, or a smaller step: gates are saturated"
        )
    if any((flow.dead or 0) > _DEAD for flow in flows):
        found.append("a smaller step or activation='leaky_relu': units are dead")
    return found
