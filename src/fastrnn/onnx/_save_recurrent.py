# SPDX-License-Identifier: BSD-3-Clause
"""`RecurrentWriter`: the ONNX nodes of a recurrent layer with all its options."""

import inspect

import numpy as np

from fastrnn.native import celltable
from fastrnn.onnx import _recurrent
from fastrnn.recurrent import GRU, LSTM, arguments

# Arguments of layers that this module writes, or that mean nothing in inference.
_WRITTEN = {
    *("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout"),
    *("bidirectional", "return_sequences", "go_backwards", "stateful", "dtype", "seed"),
    *("nonlinearity", "activation", "recurrent_activation", "cell_clip", "peephole"),
    *("input_forget", "reset_after", "proj_size", "learn_initial_state"),
    *("forget_bias", "clip_state_grad", "checkpoint_every"),
    *("merge_mode", "connection", "recurrent_dropout", "recurrent_dropout_mode"),
    *("input_dropout", "weight_drop"),
}
_MERGING = {"sum": "Add", "mul": "Mul", "mean": "Add", "ave": "Add"}


class RecurrentWriter:
    """Writes one recurrent layer.

    Parameters
    ----------
    writer : _Writer
        Collects the nodes and weights.
    prefix : str
        The beginning of the names of all nodes and weights.
    layer : RNN, LSTM or GRU
    states : bool
        As `save` takes it.

    Raises
    ------
    ValueError
        If the layer has an option that ONNX has no operators for.
    """

    def __init__(self, writer, prefix, layer, states):
        self.w, self.prefix, self.layer, self.states = writer, prefix, layer, states
        self.who = f"{writer.who}: layer {prefix[:-1] or 'model'!r}"
        self.op = type(layer).__name__
        self.D, self.H = layer._directions, layer.hidden_size
        self._check_options()
        self.attributes = self._attributes()

    # -- options ----------------------------------------------------------------------

    def _check_options(self):
        for name, parameter in inspect.signature(type(self.layer)).parameters.items():
            value = getattr(self.layer, name, parameter.default)
            # An argument that is not in _WRITTEN was added to the layers after this
            # module was written: it may only have its default.
            known = name in _WRITTEN
            if name == "stateful":
                known = self.states  # with states, the caller keeps the state
            elif name == "learn_initial_state":
                known = not self.states
            if not known and value != parameter.default:
                when = f" with states={self.states}" if name in _WRITTEN else ""
                raise ValueError(
                    f"{self.who}: {name} must be {parameter.default!r}{when}, "
                    f"got {value!r}"
                )
        layer = self.layer
        if layer.connection and layer.bidirectional and not layer.return_sequences:
            raise ValueError(
                f"{self.who}: return_sequences must be True with a connection and both "
                "directions in an ONNX file, got False"
            )

    def _attributes(self):
        """The attributes that the nodes of all layers of the stack have."""
        layer = self.layer
        attributes = {"hidden_size": self.H}
        if layer.bidirectional:
            attributes["direction"] = "bidirectional"
        elif layer.go_backwards:
            attributes["direction"] = "reverse"
        if layer.cell_clip is not None:
            attributes["clip"] = float(layer.cell_clip)
        if isinstance(layer, GRU):
            attributes["linear_before_reset"] = int(layer.reset_after)
        if isinstance(layer, LSTM) and layer.input_forget:
            attributes["input_forget"] = 1
        functions = self._functions()
        if [name for name, *_ in functions] == list(_recurrent.PLAIN[self.op]):
            return attributes
        names, alphas, betas = [], [], []
        for name, *numbers in functions * self.D:
            names.append(_recurrent.FUNCTIONS[name])
            n = len(arguments.PARAMETERS.get(name, ()))
            alphas += numbers[:1] if n > 0 else []
            betas += numbers[1:] if n > 1 else []
        attributes["activations"] = names
        for key, numbers in (("alpha", alphas), ("beta", betas)):
            if numbers:
                attributes[f"activation_{key}"] = numbers
        return attributes

    def _functions(self):
        """The functions that ONNX calls f, g and h, each as (name, alpha, beta)."""
        layer = self.layer
        cell = celltable.cell(layer._cell)
        found = arguments.functions(
            self.op,
            cell,
            layer.activation,
            getattr(layer, "recurrent_activation", None),
        )
        of = {
            name: [k for k in gates if not self._is_coupled(cell, k)]
            for name, gates in arguments.gates_of(cell).items()
        }
        gates = [found[k] for k in of.get("recurrent_activation", ())]
        others = [found[k] for k in of["activation"]]
        if len({*gates}) > 1:
            raise ValueError(
                f"{self.who}: recurrent_activation must be one function for all gates "
                f"in an ONNX file, got {layer.recurrent_activation!r}"
            )
        functions = gates[:1] + others
        for name, *_ in functions:
            if name not in _recurrent.FUNCTIONS:
                raise ValueError(
                    f"{self.who}: functions in an ONNX file must be among "
                    f"{', '.join(_recurrent.FUNCTIONS)}, got {name!r}"
                )
        return functions

    def _is_coupled(self, cell, k):
        """Whether gate k of the cell is 1 - i, so that its own function is not used."""
        coupled = getattr(self.layer, "input_forget", False)
        return coupled and cell.gates[k : k + 1] == ("f",)

    # -- nodes ------------------------------------------------------------------------

    def write(self, x):
        """Add the nodes of the layer; return the name of its output."""
        layer, ends = self.layer, []
        if layer.batch_first:
            x = self._add("Transpose", [x], "time_first", perm=[1, 0, 2])
        starts = self._starts(x)
        for k in range(layer.num_layers):
            y, *end = self._node(k, x, [start[k] for start in starts])
            x = self._between(k, x, y) if y else x
            ends.append(end)
        if self.states:
            for which, parts in zip("hc", zip(*ends, strict=True), strict=False):
                self._add("Concat", parts, f"{which}_n", axis=0)
        if not layer.return_sequences:
            return self._last(x, ends[-1])
        # ONNX puts outputs in the order of time, a layer that goes backwards in the
        # order in which it computes them.
        if layer.go_backwards:
            bounds = [self.w.integers(n) for n in (-1, -(2**31), 0, -1)]
            x = self._add("Slice", [x, *bounds], "backwards")
        if layer.batch_first:
            x = self._add("Transpose", [x], "batch_first", perm=[1, 0, 2])
        self.w.width = (layer._y_size,)
        return x

    def _last(self, x, end):
        """The last outputs (B, features), taken from all outputs or the last states."""
        layer = self.layer
        self.w.width = (layer._y_size,)
        if layer.connection:
            index = self.w.weight("index_0", np.int64(0))
            if not layer.go_backwards:
                index = self.w.weight("index_m1", np.int64(-1))
            return self._add("Gather", [x, index], "last", axis=0)
        if layer.merge_mode != "concat":
            halves = self._halves(end[0], 0, "last")
            return merge(self.w, layer.merge_mode, halves, f"{self.prefix}last")
        y = self._add("Transpose", [end[0]], "last_rows", perm=[1, 0, 2])
        return self._add("Reshape", [y, self.w.integers(0, *self.w.width)], "last")

    def _halves(self, y, axis, name):
        """The names of the two directions of a value, which lie along an axis of it."""
        return [
            self._add(
                "Gather",
                [y, self.w.weight(f"index_{d}", np.int64(d))],
                f"{name}.direction{d}",
                axis=axis,
            )
            for d in (0, 1)
        ]

    def _node(self, k, x, start):
        """Add the node of layer k of the stack.

        Returns
        -------
        list of str
            The names of Y, Y_h and, of an LSTM, Y_c; empty for one that is not needed.
        """
        layer, name = self.layer, f"{self.prefix}l{k}"
        inputs = [x, *self._cell(k), "", *start]
        if isinstance(layer, LSTM) and layer.peephole:
            inputs.append(self._peepholes(k))
        last_only = not (layer.return_sequences or layer.connection)
        sequences = not last_only or k < layer.num_layers - 1
        needed = (sequences, self.states or not sequences, self.states)
        outputs = [
            f"{name}.{end}" if one else ""
            for end, one in zip(("y", "h_n", "c_n"), needed, strict=True)
        ][: 1 + layer._states]
        self.w.node(
            self.op, _trimmed(inputs), _trimmed(outputs), name, **self.attributes
        )
        if layer._h_size != self.H:
            outputs[:2] = [m and self._project(k, m) for m in outputs[:2]]
        return outputs

    def _add(self, op, inputs, output, **attributes):
        return self.w.add(op, inputs, f"{self.prefix}{output}", **attributes)

    def _weight(self, name, array):
        return self.w.weight(f"{self.prefix}{name}", array)

    def _stacked(self, k, *names):
        """Weights of layer k, (D, rows, ...), with the gates in ONNX's order."""
        weights = self.layer.parameters
        return np.stack(
            [
                np.concatenate(
                    [
                        _recurrent.reorder(self.op, weights[name + s], to_onnx=True)
                        for name in names
                    ]
                )
                for s in self._suffixes(k)
            ]
        )

    def _suffixes(self, k):
        return self.layer._suffixes[k * self.D : (k + 1) * self.D]

    def _cell(self, k):
        """The names of W, R and B of layer k; that of B is empty without biases."""
        R = self._stacked(k, "weight_hh")
        if self.layer._h_size != self.H:
            # ONNX has no projection. The node's state is m, the output of the cell
            # before the projection h = W_hr m. As R h = (R W_hr) m, its R is R W_hr.
            R = (R.astype(float) @ self._projection(k)).astype(R.dtype)
        names = [
            self._weight(f"l{k}.W", self._stacked(k, "weight_ih")),
            self._weight(f"l{k}.R", R),
        ]
        if not self.layer.bias:
            return [*names, ""]
        return [
            *names,
            self._weight(f"l{k}.B", self._stacked(k, "bias_ih", "bias_hh")),
        ]

    def _peepholes(self, k):
        weights = self.layer.parameters
        rows = [weights[f"weight_ph{s}"].reshape(-1) for s in self._suffixes(k)]
        return self._weight(f"l{k}.P", np.stack(rows))

    # -- projections ------------------------------------------------------------------

    def _projection(self, k):
        """The projections W_hr of layer k, (D, S, H)."""
        weights = self.layer.parameters
        return np.stack(
            [weights[f"weight_hr{s}"].astype(float) for s in self._suffixes(k)]
        )

    def _project(self, k, m):
        """The projected state h = W_hr m, (..., D, B, S)."""
        W = self._projection(k).swapaxes(1, 2).astype(self.layer.dtype)
        name = self._weight(f"l{k}.W_hr", W)
        return self.w.add("MatMul", [m, name], f"{m}.projected")

    def _unproject(self, k, h):
        """A state m before the projection whose projection is h."""
        W = self._projection(k)
        if min(map(np.linalg.matrix_rank, W)) < W.shape[1]:
            raise ValueError(
                f"{self.who}: an initial state needs a weight_hr_l{k} whose rows are "
                "linearly independent"
            )
        inverse = np.linalg.pinv(W).swapaxes(1, 2).astype(self.layer.dtype)
        name = self._weight(f"l{k}.inverse", inverse)
        return self.w.add("MatMul", [h, name], f"{h}.unprojected")

    # -- states -----------------------------------------------------------------------

    def _starts(self, x):
        """For h and then c: the names of the initial state of every layer of the stack.

        A name is empty where a state starts from zero.
        """
        layer = self.layer
        if not (self.states or layer.learn_initial_state):
            empty = [""] * layer.num_layers
            return [empty] * layer._states
        widths = [layer._h_size, self.H][: layer._states]
        parts = []
        for which, width in zip("hc", widths, strict=False):
            names = (
                self._given(which, width) if self.states else self._learned(which, x)
            )
            if width != self.H:
                names = [self._unproject(k, name) for k, name in enumerate(names)]
            parts.append(names)
        return parts

    def _given(self, which, width):
        """Make a state an input, split by layers, and an output of the graph."""
        layer, name = self.layer, f"{self.prefix}{which}0"
        shape = (layer.num_layers * self.D, "B", width)
        self.w.declare(self.w.inputs, name, layer.dtype, shape)
        end = f"{self.prefix}{which}_n"
        self.w.declare(self.w.outputs, end, layer.dtype, shape)
        parts = [f"{name}.l{k}" for k in range(layer.num_layers)]
        sizes = self.w.integers(*[self.D] * layer.num_layers)
        self.w.node("Split", [name, sizes], parts, f"{name}.split", axis=0)
        return parts

    def _learned(self, which, x):
        """Repeat a learned state for each of the sequences of `x`, (T, B, features)."""
        sizes = self._add("Shape", [x], f"{which}0.sizes")
        B = self._add("Gather", [sizes, self.w.integers(1)], f"{which}0.B", axis=0)
        one = self.w.integers(1)
        shape = self._add("Concat", [one, B, one], f"{which}0.shape", axis=0)
        rows = self.layer.parameters[f"{which}_0"][:, None]
        names = []
        for k in range(self.layer.num_layers):
            part = rows[k * self.D : (k + 1) * self.D]
            row = self._weight(f"{which}_0.l{k}", part)
            names.append(self._add("Expand", [row, shape], f"{which}0.l{k}"))
        return names

    # -- between layers ---------------------------------------------------------------

    def _between(self, k, x, y):
        """The output of layer k, from its input x and its node's y, (T, D, B, H).

        The directions are merged, then the connection around the layer is applied.
        """
        layer, name = self.layer, f"l{k}"
        if layer.merge_mode == "concat":
            y = self._add("Transpose", [y], f"{name}.rows", perm=[0, 2, 1, 3])
            shape = self.w.integers(0, 0, layer._y_size)
            y = self._add("Reshape", [y, shape], f"{name}.merged")
        else:
            halves = self._halves(y, 1, name)
            y = merge(self.w, layer.merge_mode, halves, f"{self.prefix}{name}.merged")
        if k == 0 or layer.connection is None:
            return y
        if layer.connection == "residual":
            return self._add("Add", [y, x], f"{name}.residual")
        weights = layer.parameters
        kernel = self._weight(f"{name}.gate", weights[f"weight_gate_l{k}"].T)
        bias = self._weight(f"{name}.gate_bias", weights[f"bias_gate_l{k}"])
        gate = self._add("MatMul", [x, kernel], f"{name}.gate_product")
        gate = self._add("Add", [gate, bias], f"{name}.gate_biased")
        gate = self._add("Sigmoid", [gate], f"{name}.gate_open")
        y = self._add("Sub", [y, x], f"{name}.change")
        y = self._add("Mul", [gate, y], f"{name}.gated")
        return self._add("Add", [x, y], f"{name}.highway")


def _trimmed(names):
    """The names without the empty ones at the end, which a node may leave out."""
    n = max(i for i, name in enumerate(names) if name) + 1
    return names[:n]


def merge(writer, mode, halves, name):
    """Merge the outputs of two directions as `fastrnn.recurrent.merging` does."""
    y = writer.add(_MERGING[mode], halves, name)
    if mode not in ("mean", "ave"):
        return y
    half = writer.weight("half", np.array(0.5, writer.dtype))
    return writer.add("Mul", [y, half], f"{name}_mean")
