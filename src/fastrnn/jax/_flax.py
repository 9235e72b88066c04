# SPDX-License-Identifier: BSD-3-Clause
"""`from_flax`, `to_flax`: parameters of Flax's recurrent cells, of linen and of nnx.

A cell of Flax has dense layers, one for each gate (``ii``, ``hf``), or one for all
gates (``dense_i``, ``dense_h``), with kernels of shape (inputs, outputs) and gates in
PyTorch's order. Where two biases would be added to each other it has one.
"""

import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

# By their number: the names of gates, in order, as the layers of a cell have them.
GATES = {4: ("i", "f", "g", "o"), 3: ("r", "z", "n"), 1: ("",)}
_FUSED = {"dense_i", "dense_h"}


def from_flax(cell: Any) -> dict[str, Array]:
    """The parameters of a cell of Flax, for `lstm`, `gru` or `rnn`.

    Parameters
    ----------
    cell : flax.nnx.Module or mapping
        An `LSTMCell`, `OptimizedLSTMCell`, `GRUCell` or `SimpleCell` of `flax.nnx`, an
        `RNN` of one, or the state or parameters of such a module; or the parameters of
        the cells of `flax.linen` that have these names, with or without the levels
        ``"params"`` and ``"cell"``. `lstm` is for the first two, `gru` for the third,
        and `rnn` for the last.

    Returns
    -------
    dict of str to Array
        ``weight_ih``, ``weight_hh``, ``bias_ih``, ``bias_hh``. A bias that Flax does
        not have is zero.

    Raises
    ------
    TypeError
        If `cell` is none of these.
    ValueError
        If names or shapes are not those of a cell.

    Examples
    --------
    >>> kernel = {"kernel": jnp.ones((3, 3))}
    >>> params = from_flax({"i": kernel | {"bias": jnp.ones(3)}, "h": kernel})
    >>> params["weight_ih"].shape, params["bias_hh"].tolist()
    ((3, 3), [0.0, 0.0, 0.0])
    """
    dense = _layers("from_flax", _tree("from_flax", "cell", cell)[0])
    found = {}
    for side in "ih":
        own = [dense[side + gate] for gate in GATES[len(dense) // 2]]
        found[f"weight_{side}h"] = jnp.concatenate([k for k, _ in own], 1).T
        biases = [jnp.zeros(k.shape[1], k.dtype) if b is None else b for k, b in own]
        found[f"bias_{side}h"] = jnp.concatenate(biases)
    return found


def to_flax(params: Mapping[str, Array], like: Any) -> Any:
    """Parameters of `lstm`, `gru` or `rnn` in the form that a cell of Flax has.

    Parameters
    ----------
    params : dict of str to array
        ``weight_ih`` and ``weight_hh`` and, both or neither, ``bias_ih`` and
        ``bias_hh``.
    like : flax.nnx.Module or mapping
        A cell of Flax or its parameters, as `from_flax` takes them, of the same sizes.
        It is not changed.

    Returns
    -------
    mapping
        As `like`, or as its state if that is a module: ``nnx.update(cell,
        to_flax(params, cell))`` puts it into the cell. Two biases that Flax has as one
        are added.

    Raises
    ------
    TypeError
        If `params` or `like` is none of these.
    ValueError
        If shapes differ, or if `params` has a bias that the cell has no place for: that
        of the candidate of a GRU, before its reset gate, in `flax.nnx`.

    Examples
    --------
    >>> like = {"i": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}}
    >>> like["h"] = {"kernel": jnp.ones((3, 3))}
    >>> params = {"weight_ih": jnp.zeros((3, 2)), "weight_hh": jnp.zeros((3, 3))}
    >>> to_flax(params, like)["i"]["bias"].tolist()
    [0.0, 0.0, 0.0]
    """
    tree, levels, finish = _tree("to_flax", "like", like)
    dense = _layers("to_flax", tree)
    gates = GATES[len(dense) // 2]
    weights = _split(params, dense, gates)
    new = {}
    for name, (_, bias) in dense.items():
        side, gate = name[:1], name[1:]
        new[name] = {"kernel": weights[f"weight_{side}h"][gate].T}
        if bias is None:
            continue
        other = "h" if side == "i" else "i"
        if dense[other + gate][1] is None:
            bias = weights["bias_ih"][gate] + weights["bias_hh"][gate]
        else:
            bias = weights[f"bias_{side}h"][gate]
        new[name]["bias"] = bias
        if gate == "n" and side == "i" and dense["hn"][1] is None:
            _must_be_zero(weights["bias_hh"]["n"])
            new[name]["bias"] = weights["bias_ih"]["n"]
    if set(tree) == _FUSED:
        new = {
            f"dense_{side}": {
                key: jnp.concatenate([new[side + gate][key] for gate in gates], -1)
                for key in new[side + gates[0]]
            }
            for side in "ih"
        }
    else:
        new = {name: new[name.rstrip("_")] for name in tree}
    for level in reversed(levels):
        new = {level: new}
    return finish(new)


def _must_be_zero(bias):
    if isinstance(bias, jax.core.Tracer):
        raise ValueError(
            "fastrnn.jax.to_flax: the candidate's part of bias_hh must be zero for "
            "this GRUCell, which cannot be seen within a transformation of JAX"
        )
    if jnp.any(bias):
        raise ValueError(
            "fastrnn.jax.to_flax: the candidate's part of bias_hh must be zero, for "
            f"this GRUCell has no such bias, got {bias.tolist()}"
        )


def _tree(who, name, given):
    """Layers of a cell by name, the levels above them, and what makes of these `given`.

    Levels are "params" and "cell", as a whole `linen.RNN` or `nnx.RNN` has them.
    """
    finish = dict
    nnx = sys.modules.get("flax.nnx")
    if nnx is not None and isinstance(given, nnx.Module):
        given = nnx.state(given, nnx.Param)
    if nnx is not None and isinstance(given, nnx.State):
        state = given

        def finish(new):
            found = nnx.to_flat_state(state)
            numbers = dict(_flat(new))
            return nnx.from_flat_state(
                [
                    (path, leaf.replace(numbers[path]) if path in numbers else leaf)
                    for path, leaf in found
                ]
            )

        given = nnx.to_pure_dict(nnx.filter_state(state, nnx.Param))
    if not isinstance(given, Mapping):
        raise TypeError(
            f"fastrnn.jax.{who}: {name} must be a recurrent cell of flax.nnx, an RNN "
            f"of one, or the parameters of a cell, got {type(given).__name__}"
        )
    levels = []
    for level in ("params", "cell"):
        if set(given) == {level}:
            given = given[level]
            levels.append(level)
    return given, levels, finish


def _flat(tree, path=()):
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, (*path, key))
        else:
            yield (*path, key), value


def _layers(who, tree):
    """Kernel and bias of each side and gate, as "ii" or "hf"; a bias may be None."""
    names = {name.rstrip("_") for name in tree}  # nnx writes if_ for if
    if names == _FUSED:
        found = _fused(who, tree)
    else:
        known = {
            n: {side + gate for side in "ih" for gate in gates}
            for n, gates in GATES.items()
        }
        if names not in known.values():
            raise ValueError(
                f"fastrnn.jax.{who}: no recurrent cell has layers with the names "
                f"{', '.join(map(str, tree)) or 'of none'}; those of an LSTMCell, an "
                "OptimizedLSTMCell, a GRUCell or a SimpleCell are known"
            )
        found = {
            name.rstrip("_"): (jnp.asarray(layer["kernel"]), layer.get("bias"))
            for name, layer in tree.items()
        }
    for name, (kernel, _) in found.items():
        H = found["h" + name[1:]][0].shape[-1]
        if (
            kernel.ndim != 2
            or kernel.shape[1] != H
            or (name[0] == "h" and kernel.shape[0] != H)
        ):
            raise ValueError(
                f"fastrnn.jax.{who}: the kernel of layer {name} must have shape "
                f"({'H' if name[0] == 'h' else 'I'}, H), got {kernel.shape}"
            )
    return found


def _fused(who, tree):
    """The layers of gates of a cell that has one for all of them."""
    kernel = jnp.asarray(tree["dense_h"]["kernel"])
    n = kernel.shape[-1] // kernel.shape[0] if kernel.ndim == 2 else 0
    if n not in GATES or kernel.shape[1] != n * kernel.shape[0]:
        raise ValueError(
            f"fastrnn.jax.{who}: the kernel of dense_h must have shape (H, 4H), "
            f"(H, 3H) or (H, H), got {kernel.shape}"
        )
    found = {}
    for side in "ih":
        layer = tree[f"dense_{side}"]
        kernels = jnp.split(jnp.asarray(layer["kernel"]), n, 1)
        bias = layer.get("bias")
        biases = [None] * n if bias is None else jnp.split(jnp.asarray(bias), n)
        for gate, *own in zip(GATES[n], kernels, biases, strict=True):
            found[side + gate] = tuple(own)
    return found


def _split(params, dense, gates):
    """Each weight of `params` by gate, once all were found to fit the layers."""
    if not isinstance(params, Mapping):
        kind = type(params).__name__
        raise TypeError(f"fastrnn.jax.to_flax: params must be a dict, got {kind}")
    kernel = dense["i" + gates[0]][0]
    (I, H), n = kernel.shape, len(gates)
    shapes = {"weight_ih": (n * H, I), "weight_hh": (n * H, H)}
    shapes |= {"bias_ih": (n * H,), "bias_hh": (n * H,)}
    if set(params) not in (set(shapes), set(list(shapes)[:2])):
        raise ValueError(
            "fastrnn.jax.to_flax: params must have weight_ih and weight_hh and, both "
            f"or neither, bias_ih and bias_hh; got {', '.join(map(str, params)) or '-'}"
        )
    found = {}
    for name, shape in shapes.items():
        a = jnp.asarray(params[name]) if name in params else jnp.zeros(shape[0])
        if a.shape != shape:
            raise ValueError(
                f"fastrnn.jax.to_flax: params[{name!r}] must have shape {shape} for "
                f"this cell, got {a.shape}"
            )
        a = a.astype(kernel.dtype)
        found[name] = dict(zip(gates, jnp.split(a, n), strict=True))
    return found
