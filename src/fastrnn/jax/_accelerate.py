# SPDX-License-Identifier: BSD-3-Clause
"""`accelerate`, `restore`, `explain`: layers of `flax.nnx` on fastrnn's kernels.

Flax is imported when one of them is called.
"""

from typing import TYPE_CHECKING, Any, TypeVar

from jax import Array

from fastrnn.util.later import Later

if TYPE_CHECKING:
    from fastrnn.jax import _nnx
else:
    _nnx = Later("fastrnn.jax._nnx")

ModuleT = TypeVar("ModuleT")


def accelerate(model: ModuleT, verbose: bool = True) -> ModuleT:
    """Let every `nnx.RNN` in a model run on fastrnn's kernels.

    Each layer stays the object that it is, with its cell and its parameters; only its
    class changes, to one that derives from `nnx.RNN`. A layer whose class the user
    derived is left as it is, and so is one of a cell that the kernels do not compute.

    Parameters
    ----------
    model : nnx.Module
        Changed in place; may be a layer itself. An `nnx.Bidirectional` has two layers.
    verbose : bool
        Whether to print which layers were replaced, and which were left and why.

    Returns
    -------
    nnx.Module
        `model`.

    Raises
    ------
    TypeError
        If `model` is not an `nnx.Module`.

    See Also
    --------
    explain : Why Flax runs a call of a layer.

    Examples
    --------
    >>> from flax import nnx  # doctest: +SKIP
    >>> layer = nnx.RNN(nnx.GRUCell(3, 5, rngs=nnx.Rngs(0)))  # doctest: +SKIP
    >>> accelerate(layer)(jnp.ones((2, 7, 3))).shape  # doctest: +SKIP
    fastrnn.jax: replaced the model itself: RNN of GRUCell
    (2, 7, 5)
    """
    lines = []
    for name, layer in _nnx.layers_of("accelerate", model):
        what = f"{name}: {type(layer).__name__} of {type(layer.cell).__name__}"
        why = _nnx.problem_of_class(layer) or _nnx.problem_of_cell(layer)
        if why:
            lines.append(f"left {what}: {why}")
        else:
            layer.__class__ = _nnx.RNN
            lines.append(f"replaced {what}")
    if verbose:
        for line in lines or [f"{type(model).__name__} has no nnx.RNN"]:
            print(f"fastrnn.jax: {line}")
    return model


def restore(model: ModuleT) -> ModuleT:
    """Undo `accelerate`: give the layers of a model Flax's class again.

    Parameters
    ----------
    model : nnx.Module
        Changed in place.

    Returns
    -------
    nnx.Module
        `model`.

    Raises
    ------
    TypeError
        If `model` is not an `nnx.Module`.
    """
    for _, layer in _nnx.layers_of("restore", model):
        if type(layer) is _nnx.RNN:
            layer.__class__ = _nnx.nnx.RNN
    return model


def explain(
    layer: Any,
    inputs: Array | None = None,
    *,
    initial_carry: Any = None,
    seq_lengths: Array | None = None,
) -> str | None:
    """Why Flax, and not fastrnn, runs a call of a layer; None if the kernels do.

    Parameters
    ----------
    layer : nnx.RNN
    inputs : Array, optional
        What the layer would be called with, as the arguments that follow. Without it,
        what is known of the layer alone is told.
    initial_carry, seq_lengths : optional

    Returns
    -------
    str or None

    Raises
    ------
    TypeError
        If `layer` is not an `nnx.RNN`.
    """
    if not isinstance(layer, _nnx.nnx.RNN):
        raise TypeError(
            f"fastrnn.jax.explain: layer must be an nnx.RNN, got {type(layer).__name__}"
        )
    if type(layer) is not _nnx.RNN:
        return (
            _nnx.problem_of_class(layer)
            or _nnx.problem_of_cell(layer)
            or "the layer is not accelerated"
        )
    why = _nnx.problem_of_cell(layer)
    if why is None and inputs is not None:
        why = _nnx.problem_of_call(layer.cell, inputs, initial_carry, seq_lengths)
    return why
