# SPDX-License-Identifier: BSD-3-Clause
"""`from_haiku`, `to_haiku`: parameters of Haiku's LSTM, GRU and VanillaRNN.

Haiku keeps the parameters of a program by the names of its modules. Its LSTM has one
matrix for inputs and states, gates in the order i g f o, and adds 1 to the forget gate;
its GRU has gates z r a, applies the reset gate before the product, and weighs the new
candidate, not the old state, by z.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

_GRU = {"w_i", "w_h", "b"}


def from_haiku(
    params: Mapping[str, Mapping[str, Any]], name: str | None = None
) -> dict[str, Array]:
    """The parameters of a recurrent module of Haiku, for `lstm`, `gru` or `rnn`.

    Parameters
    ----------
    params : mapping
        Parameters as Haiku's ``init`` returns them.
    name : str, optional
        The name of the module among them, such as ``"my_net/~/lstm"``; not needed if
        all parameters are that module's. It is an `LSTM`, for `lstm`; a `GRU`, for
        `gru` with ``reset_after=False``; or a `VanillaRNN`, for `rnn` with
        ``nonlinearity="relu"``.

    Returns
    -------
    dict of str to Array
        ``weight_ih``, ``weight_hh``, ``bias_ih``, ``bias_hh``. A bias that Haiku does
        not have is zero.

    Raises
    ------
    TypeError
        If `params` is no mapping.
    ValueError
        If there is no such module, or it is none of the three.

    Examples
    --------
    >>> gru = {"w_i": jnp.ones((2, 9)), "w_h": jnp.ones((3, 9)), "b": jnp.ones(9)}
    >>> from_haiku({"gru": gru})["bias_ih"].tolist()  # r, z, n
    [1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0, 1.0, 1.0]
    """
    kind, own, _ = _module("from_haiku", "params", params, name)
    return _FROM[kind](own)


def to_haiku(
    params: Mapping[str, Array],
    like: Mapping[str, Mapping[str, Any]],
    name: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Parameters of `lstm`, `gru` or `rnn` among those of a program of Haiku.

    Parameters
    ----------
    params : dict of str to array
        ``weight_ih`` and ``weight_hh`` and, both or neither, ``bias_ih`` and
        ``bias_hh``; those of a `gru` are for ``reset_after=False``.
    like : mapping
        Parameters of Haiku. It is not changed.
    name : str, optional
        As for `from_haiku`.

    Returns
    -------
    dict of str to dict
        `like` with the module's parameters in place of its own. Two biases that Haiku
        has as one are added.

    Raises
    ------
    TypeError
        If `params` or `like` is no mapping.
    ValueError
        If there is no such module, or shapes differ.

    Examples
    --------
    >>> linear = {"w": jnp.ones((3, 3)), "b": jnp.ones(3)}
    >>> like = {"vanilla_rnn/linear": linear, "vanilla_rnn/linear_1": linear}
    >>> params = {"weight_ih": jnp.zeros((3, 3)), "weight_hh": jnp.ones((3, 3))}
    >>> new = to_haiku(params, like)
    >>> new["vanilla_rnn/linear_1"]["w"].sum(), new["vanilla_rnn/linear_1"]["b"].sum()
    (Array(9., dtype=float32), Array(0., dtype=float32))
    """
    kind, own, prefix = _module("to_haiku", "like", like, name)
    shapes = {key: a.shape for key, a in _FROM[kind](own).items()}
    if not isinstance(params, Mapping):
        given = type(params).__name__
        raise TypeError(f"fastrnn.jax.to_haiku: params must be a dict, got {given}")
    if set(params) not in (set(shapes), {"weight_ih", "weight_hh"}):
        raise ValueError(
            "fastrnn.jax.to_haiku: params must have weight_ih and weight_hh and, both "
            f"or neither, bias_ih and bias_hh; got {', '.join(map(str, params)) or '-'}"
        )
    dtype, found = own[0]["w_i" if kind == "GRU" else "w"].dtype, {}
    for key, shape in shapes.items():
        found[key] = jnp.asarray(params.get(key, jnp.zeros(shape)), dtype)
        if found[key].shape != shape:
            raise ValueError(
                f"fastrnn.jax.to_haiku: params[{key!r}] must have shape {shape} for "
                f"this {kind}, got {found[key].shape}"
            )
    new = {key: dict(value) for key, value in like.items()}
    for ending, value in zip(_ENDINGS[kind], _TO[kind](found, own), strict=True):
        new[prefix + ending] = value
    return new


# What the names of a module's parts end with.
_ENDINGS = {
    "LSTM": ("/linear",),
    "GRU": ("",),
    "VanillaRNN": ("/linear", "/linear_1"),
}


def _module(who, what, params, name):
    """Which module `name` is, the parameters of its parts, and its name."""
    if not isinstance(params, Mapping):
        kind = type(params).__name__
        raise TypeError(f"fastrnn.jax.{who}: {what} must be a mapping, got {kind}")
    names = {key.removesuffix("_1").removesuffix("/linear") for key in params}
    if name is None and len(names) != 1:
        raise ValueError(
            f"fastrnn.jax.{who}: name must say which module is meant, for {what} has "
            f"those of several: {', '.join(params) or 'none'}"
        )
    prefix = names.pop() if name is None else name
    for kind in ("VanillaRNN", "LSTM", "GRU"):
        if all(prefix + ending in params for ending in _ENDINGS[kind]):
            own = [
                {key: jnp.asarray(a) for key, a in params[prefix + ending].items()}
                for ending in _ENDINGS[kind]
            ]
            if _is(kind, *own):
                return kind, own, prefix
    raise ValueError(
        f"fastrnn.jax.{who}: {prefix!r} must be an LSTM, GRU or VanillaRNN of Haiku "
        f"among {what}, got {', '.join(params)}"
    )


def _is(kind, first, second=None):
    """Whether parameters of parts have the names and shapes of such a module."""
    if kind == "GRU":
        return set(first) == _GRU and first["w_h"].shape[1] == 3 * len(first["w_h"])
    if set(first) != {"w", "b"}:
        return False
    rows, columns = first["w"].shape
    if kind == "LSTM":
        return columns % 4 == 0 and rows > columns // 4
    return set(second) <= {"w", "b"} and second["w"].shape == (columns, columns)


def _ordered(a, order):
    """The parts of the last axis in another order, the last axis first."""
    parts = jnp.split(a, len(order), -1)
    return jnp.concatenate([parts[k] for k in order], -1).T


def _from_lstm(own):
    w, b = own[0]["w"], own[0]["b"]
    H = len(b) // 4
    bias = _ordered(b, (0, 2, 1, 3)).at[H : 2 * H].add(1)
    return {
        "weight_ih": _ordered(w[: len(w) - H], (0, 2, 1, 3)),
        "weight_hh": _ordered(w[len(w) - H :], (0, 2, 1, 3)),
        "bias_ih": bias,
        "bias_hh": jnp.zeros_like(bias),
    }


def _to_lstm(params, own):
    w = jnp.concatenate(
        [_ordered(params[f"weight_{side}h"].T, (0, 2, 1, 3)).T for side in "ih"]
    )
    b = params["bias_ih"] + params["bias_hh"]
    H = len(b) // 4
    return [{"w": w, "b": _ordered(b.at[H : 2 * H].add(-1), (0, 2, 1, 3))}]


def _from_gru(own):
    def turned(a):
        z, r, n = jnp.split(a, 3, -1)
        return jnp.concatenate([r, -z, n], -1).T  # sigmoid(-a) is 1 - sigmoid(a)

    bias = turned(own[0]["b"])
    return {
        "weight_ih": turned(own[0]["w_i"]),
        "weight_hh": turned(own[0]["w_h"]),
        "bias_ih": bias,
        "bias_hh": jnp.zeros_like(bias),
    }


def _to_gru(params, own):
    def turned(a):
        r, z, n = jnp.split(a, 3, 0)
        return jnp.concatenate([-z, r, n], 0).T

    bias = params["bias_ih"] + params["bias_hh"]
    return [
        {
            "w_i": turned(params["weight_ih"]),
            "w_h": turned(params["weight_hh"]),
            "b": turned(bias),
        }
    ]


def _from_vanilla(own):
    w = own[0]["w"]
    zero = jnp.zeros(w.shape[1], w.dtype)
    return {
        "weight_ih": w.T,
        "weight_hh": own[1]["w"].T,
        "bias_ih": own[0]["b"],
        "bias_hh": own[1].get("b", zero),
    }


def _to_vanilla(params, own):
    biases = params["bias_ih"], params["bias_hh"]
    if "b" not in own[1]:
        biases = (biases[0] + biases[1],)
    new = [{"w": params["weight_ih"].T}, {"w": params["weight_hh"].T}]
    for layer, bias in zip(new, biases, strict=False):
        layer["b"] = bias
    return new


_FROM = {"LSTM": _from_lstm, "GRU": _from_gru, "VanillaRNN": _from_vanilla}
_TO = {"LSTM": _to_lstm, "GRU": _to_gru, "VanillaRNN": _to_vanilla}
