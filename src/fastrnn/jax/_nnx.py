# SPDX-License-Identifier: BSD-3-Clause
"""`RNN`: a layer of `flax.nnx` on fastrnn's kernels, and what they do not compute.

`nnx.RNN` applies a cell to a sequence, step by step. A layer that is accelerated has
the class `RNN` of this file, which hands the whole sequence to the kernels: its cell,
its parameters and its arguments stay as they are. What the kernels do not compute runs
as Flax does.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

try:
    from flax import nnx
    from flax.nnx.nn import dtypes, recurrent
except ModuleNotFoundError as error:
    if error.name != "flax":
        raise
    raise ModuleNotFoundError(
        "fastrnn.jax.accelerate is for models of Flax, which is not installed: "
        "pip install flax",
        name=error.name,
    ) from error

from fastrnn.jax import _primitives
from fastrnn.jax._call import WEIGHTS
from fastrnn.jax._flax import from_flax
from fastrnn.native import celltable
from fastrnn.recurrent.pure import Form

_CELLS = {
    nnx.LSTMCell: "lstm",
    nnx.OptimizedLSTMCell: "lstm",
    nnx.GRUCell: "gru",
    nnx.SimpleCell: "rnn_tanh",
}
# The kernels' names of functions, with their two parameters.
_FUNCTIONS = {
    jax.nn.sigmoid: ("sigmoid", 0.0, 0.0),
    jnp.tanh: ("tanh", 0.0, 0.0),
    jax.nn.relu: ("relu", 0.0, 0.0),
    jax.nn.soft_sign: ("softsign", 0.0, 0.0),
    jax.nn.hard_sigmoid: ("hard_sigmoid", 1 / 6, 0.5),
}


class RNN(nnx.RNN):
    """`nnx.RNN` on fastrnn's kernels; `accelerate` makes layers of this class."""

    def __call__(
        self,
        inputs,
        *,
        initial_carry=None,
        seq_lengths=None,
        return_carry=None,
        time_major=None,
        reverse=None,
        keep_order=None,
        rngs=None,
    ):
        """The sequence through the cell; arguments are those of `nnx.RNN`."""
        if problem_of_cell(self) or problem_of_call(
            self.cell, inputs, initial_carry, seq_lengths
        ):
            return super().__call__(
                inputs,
                initial_carry=initial_carry,
                seq_lengths=seq_lengths,
                return_carry=return_carry,
                time_major=time_major,
                reverse=reverse,
                keep_order=keep_order,
                rngs=rngs,
            )
        return_carry = self.return_carry if return_carry is None else return_carry
        time_major = self.time_major if time_major is None else time_major
        reverse = self.reverse if reverse is None else reverse
        keep_order = self.keep_order if keep_order is None else keep_order
        axis = 0 if time_major else inputs.ndim - 2
        outer = inputs.shape[:axis] + inputs.shape[axis + 1 : -1]

        def flipped(x):
            return recurrent.flip_sequences(
                x, seq_lengths, num_batch_dims=len(outer), time_major=time_major
            )

        inputs = flipped(inputs) if reverse else inputs
        if initial_carry is None:
            # Flax draws from such a stream even where the carry is zero.
            rngs = self.rngs if rngs is None else rngs
            rngs = rngs.carry.fork() if isinstance(rngs, nnx.Rngs) else rngs
            initial_carry = self.cell.initialize_carry((*outer, inputs.shape[-1]), rngs)
        lengths = seq_lengths if return_carry else None
        carry, outputs = _run(self.cell, inputs, initial_carry, lengths, time_major)
        outputs = flipped(outputs) if reverse and keep_order else outputs
        return (carry, outputs) if return_carry else outputs


def _run(cell, inputs, carry, lengths, time_major):
    """The last carry, that at `lengths` where given, and the outputs of all steps."""
    dtype = _dtype(cell, inputs)
    form = _form(cell, dtype)
    params = {key: a.astype(dtype) for key, a in from_flax(cell).items()}
    weights = [params[name] for name in WEIGHTS]
    T, I, H = inputs.shape[0 if time_major else -2], inputs.shape[-1], form.hidden_size
    shape = (T, -1) if time_major else (-1, T)
    x = inputs.astype(dtype).reshape(*shape, I)
    leaves = list(carry) if form.cell == "lstm" else [carry]
    states = [part.reshape(-1, H) for part in leaves[::-1]]  # Flax has (c, h)

    def forward(states, mask=None):
        y, *ends = _primitives.forward(
            form,
            weights,
            x,
            states[0],
            states[1] if len(states) == 2 else None,
            mask,
            batch_first=not time_major,
        )
        return y, ends

    if lengths is None:
        y, ends = forward(states)
    else:
        # Flax takes the carry of step `lengths - 1`, and the last one for a length of
        # 0; it goes on over the steps after, whose outputs are shown.
        last = jnp.clip(jnp.where(lengths < 1, lengths + T, lengths), 1, T)
        counts = jnp.arange(T)[:, None] < last
        counts = counts if time_major else counts.T
        y, ends = forward(states, counts)
        after, _ = forward(ends, ~counts)
        y = jnp.where(counts[..., None], y, after)
    ends = [
        part.reshape(leaf.shape) for part, leaf in zip(ends, leaves[::-1], strict=True)
    ]
    y = y.reshape(*inputs.shape[:-1], H)
    return (tuple(ends[::-1]) if len(ends) == 2 else ends[0]), y


def _dtype(cell, inputs):
    """The dtype that Flax computes a call in."""
    if cell.dtype is not None:
        return jnp.dtype(cell.dtype)
    arrays = jax.tree.leaves(nnx.state(cell, nnx.Param))
    return jnp.result_type(inputs, *arrays)


def _form(cell, dtype):
    """The cell of Flax as the kernels know it."""
    name = _CELLS[type(cell)]
    functions = celltable.cell(name).activations
    gate, other = getattr(cell, "gate_fn", None), cell.activation_fn
    given = tuple(_FUNCTIONS[gate if f == "sigmoid" else other] for f in functions)
    if name == "rnn_tanh" and other is jax.nn.relu:
        name, given = "rnn_relu", None
    elif given == tuple((f, 0.0, 0.0) for f in functions):
        given = None
    sizes = cell.in_features, cell.hidden_features
    return Form(name, *sizes, dtype.name, activations=given)


def problem_of_class(layer):
    if type(layer) not in (nnx.RNN, RNN):
        return f"{type(layer).__name__} may compute in a way of its own"
    return None


def problem_of_cell(layer):
    """Why the kernels do not compute a layer, whatever it is called with."""
    cell = layer.cell
    kind = type(cell).__name__
    if type(cell) not in _CELLS:
        return f"there are no kernels for cells of class {kind}"
    if getattr(cell, "residual", False):
        return "there are no kernels for residual=True"
    for name in ("gate_fn", "activation_fn"):
        if (function := getattr(cell, name, jnp.tanh)) not in _FUNCTIONS:
            what = getattr(function, "__name__", function)
            return f"there are no kernels for {name} {what}"
    if cell.rngs is not None:
        return "the cell keeps random numbers (keep_rngs)"
    if cell.promote_dtype is not dtypes.promote_dtype:
        return "the cell has a promote_dtype of its own"
    if layer.state_axes != nnx.StateAxes({...: nnx.Carry}):
        return "the layer has state_axes of its own"
    for name, part in vars(cell).items():
        if isinstance(part, nnx.Module) and (
            type(part) is not nnx.Linear
            or part.dot_general is not jax.lax.dot_general
            or part.precision is not None
            or part.preferred_element_type is not None
        ):
            return f"{name} of the cell is no plain nnx.Linear"
    return None


def problem_of_call(cell, inputs, carry, lengths):
    """Why the kernels do not compute a call of a layer whose cell they know."""
    if jax.default_backend() != "cpu":
        return f"JAX computes on the {jax.default_backend()}"
    if not isinstance(inputs, jax.Array) or inputs.ndim < 2 or 0 in inputs.shape:
        return "inputs are no array of at least one step and one row"
    if inputs.shape[-1] != cell.in_features:
        return f"inputs have {inputs.shape[-1]} features, not {cell.in_features}"
    dtype = _dtype(cell, inputs)
    if dtype not in (jnp.float32, jnp.float64):
        return f"there are no kernels for {dtype}"
    if lengths is not None and (
        not isinstance(lengths, jax.Array) or lengths.ndim != 1 or inputs.ndim != 3
    ):
        return "seq_lengths are not for a batch of one axis"
    if carry is None:
        return _problem_of_dtypes(cell.param_dtype, dtype)
    for leaf in jax.tree.leaves(carry):
        if jnp.ndim(leaf) != inputs.ndim - 1 or leaf.shape[-1] != cell.hidden_features:
            return f"initial_carry has a part of shape {jnp.shape(leaf)}"
        if why := _problem_of_dtypes(leaf.dtype, dtype):
            return why
    return None


def _problem_of_dtypes(carry, dtype):
    if carry != dtype:
        return f"the carry is {jnp.dtype(carry)}, and the cell computes in {dtype}"
    return None


def layers_of(who, model) -> Iterator[tuple[str, nnx.RNN]]:
    """The layers of a model, with where they are."""
    if not isinstance(model, nnx.Module):
        raise TypeError(
            f"fastrnn.jax.{who}: model must be an nnx.Module, got "
            f"{type(model).__name__}"
        )
    found = [
        (".".join(map(str, path)) or "the model itself", node)
        for path, node in nnx.iter_graph(model)
        if isinstance(node, nnx.RNN)
    ]
    return iter(found)
