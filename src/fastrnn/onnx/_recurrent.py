# SPDX-License-Identifier: BSD-3-Clause
"""RNN, LSTM and GRU nodes as fastrnn layers, and the orders of their gates.

The operators' inputs, by position::

    0 X (T, B, I)   1 W (D, G H, I)   2 R (D, G H, H)   3 B (D, 2 G H)
    4 sequence_lens (B,)   5 initial_h (D, B, H)   6 initial_c (D, B, H)   7 P (D, 3 H)

With layout 1, X is (B, T, I) and states are (B, D, H).
"""

import numpy as np

from fastrnn import GRU, LSTM, RNN, _check

CLASSES = {"RNN": RNN, "LSTM": LSTM, "GRU": GRU}

# Where our gates are among ONNX's: LSTM i f g o of i o f c, GRU r z n of z r h.
GATES = {"RNN": (0,), "LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2)}

# -- what the kernels compute: the one table of it -------------------------------------

# The activations of one direction; the first are what a node without them means.
ACTIVATIONS = {
    "RNN": (("tanh",), ("relu",)),
    "LSTM": (("sigmoid", "tanh", "tanh"),),
    "GRU": (("sigmoid", "tanh"),),
}

# Attribute: (what a node without it means, values that can be expressed).
_COMMON = {
    "clip": (None, (None,)),
    "direction": ("forward", ("forward", "reverse", "bidirectional")),
    "layout": (0, (0, 1)),
}
ATTRIBUTES = {
    "RNN": _COMMON,
    "LSTM": {**_COMMON, "input_forget": (0, (0,))},
    "GRU": {**_COMMON, "linear_before_reset": (0, (1,))},
}


def reorder(op, array, to_onnx=False):
    """Rows of gates, (G * H, ...), from ONNX's order into ours or back."""
    order = np.argsort(GATES[op]) if to_onnx else GATES[op]
    gates = np.split(array, len(order))
    return np.concatenate([gates[k] for k in order])


def _refuse(who, option, rule, value):
    raise ValueError(
        f"{who}: {option} must be {rule}, got {value!r}, "
        "which fastrnn's layers do not compute"
    )


def _activations(who, node, D):
    """The activations of every direction, refused where the kernels have none."""
    known = ACTIVATIONS[node.op]
    given = [name.lower() for name in node.get("activations", ())]
    if not given:
        return known[0]
    n = len(known[0])
    parts = {tuple(given[k : k + n]) for k in range(0, len(given), n)}
    if len(given) != D * n or len(parts) != 1 or not parts <= set(known):
        rule = " or ".join("/".join(one) for one in known)
        _refuse(who, "activations", f"{rule} in each direction", given)
    return parts.pop()


def _weight(who, name, constants, source, ndim):
    """An input that must not depend on the graph's inputs; None where left out."""
    if not source:
        return None
    if source not in constants:
        raise ValueError(
            f"{who}: {name} must be constant, got the computed value {source!r}"
        )
    array = constants[source]
    if array.dtype.name not in _check.DTYPES or array.ndim != ndim:
        raise ValueError(
            f"{who}: {name} must be float32 or float64 with {ndim} axes, "
            f"got {array.dtype.name} of shape {array.shape}"
        )
    return array


def make_layer(who, node, constants):
    """The layer that a node stands for.

    Parameters
    ----------
    who : str
        File and node, for errors.
    node : Node
    constants : mapping of str to ndarray
        What is known at load time.

    Returns
    -------
    RNN, LSTM or GRU

    Raises
    ------
    ValueError
        If weights are not constant or do not fit, or the node does what the kernels do
        not.
    """
    op, G = node.op, len(GATES[node.op])
    for attribute, (default, accepted) in ATTRIBUTES[op].items():
        value = node.get(attribute, default)
        if value not in accepted:
            listed = " or ".join(
                "absent" if one is None else repr(one) for one in accepted
            )
            _refuse(who, attribute, listed, value)
    inputs = [*node.inputs, *[""] * 8]
    W, R, bias, peephole = (
        _weight(who, name, constants, inputs[k], ndim)
        for k, name, ndim in ((1, "W", 3), (2, "R", 3), (3, "B", 2), (7, "P", 2))
    )
    if peephole is not None and peephole.any():
        _refuse(who, "P", "absent or zero", "peephole weights")
    D = 2 if node.get("direction", "forward") == "bidirectional" else 1
    H = node.get("hidden_size", R.shape[-1])
    I = W.shape[-1]
    for name, array, shape in (
        ("W", W, (D, G * H, I)),
        ("R", R, (D, G * H, H)),
        ("B", bias, (D, 2 * G * H)),
    ):
        if array is not None and array.shape != shape:
            raise ValueError(
                f"{who}: {name} must have shape {shape}, got {array.shape}"
            )
    options = {}
    activations = _activations(who, node, D)
    if op == "RNN":
        options["nonlinearity"] = activations[0]
    layer = CLASSES[op](
        I,
        H,
        bias=bias is not None,
        batch_first=bool(node.get("layout", 0)),
        bidirectional=D == 2,
        dtype=W.dtype.name,
        **options,
    )
    state = {}
    for d, suffix in zip(range(D), ("_l0", "_l0_reverse"), strict=False):
        state[f"weight_ih{suffix}"] = reorder(op, W[d])
        state[f"weight_hh{suffix}"] = reorder(op, R[d])
        if bias is not None:
            state[f"bias_ih{suffix}"] = reorder(op, bias[d, : G * H])
            state[f"bias_hh{suffix}"] = reorder(op, bias[d, G * H :])
    layer.load_state_dict(state)
    return layer


def run(who, layer, node, inputs):
    """Run a layer as its node asks.

    Parameters
    ----------
    inputs : list of ndarray or None
        By the operator's positions; weights are the layer's and not looked at.

    Returns
    -------
    list of ndarray
        Y, Y_h and, for an LSTM, Y_c.
    """
    x, *_, lengths, h0, c0, _ = [*inputs, *[None] * 8][:8]
    batch_first = layer.batch_first
    axes = ("B", "T") if batch_first else ("T", "B")
    _check.shape(who, "X", x, (*axes, "I"), (None, None, layer.input_size))
    x = np.swapaxes(x, 0, 1) if batch_first else x
    states = [h0, c0] if isinstance(layer, LSTM) else [h0]
    D, H = 1 + layer.bidirectional, layer.hidden_size
    T, B = x.shape[:2]
    start = [np.zeros((D, B, H), layer.dtype) for _ in states]
    for into, given in zip(start, states, strict=True):
        if given is not None:
            given = np.swapaxes(given, 0, 1) if batch_first else given
            if given.shape != into.shape:
                raise ValueError(
                    f"{who}: an initial state must have shape (D, B, H) = "
                    f"{into.shape}, got {given.shape}"
                )
            into[...] = given
    reverse = node.get("direction", "forward") == "reverse"
    if lengths is None:
        y, end = _run_group(layer, reverse, x, start)
    else:
        y, end = _run_ragged(who, layer, reverse, x, start, lengths)
    y = y.reshape(T, B, D, H)
    if batch_first:
        return [np.swapaxes(y, 0, 1), *(np.swapaxes(s, 0, 1) for s in end)]
    return [y.transpose(0, 2, 1, 3), *end]


def _run_ragged(who, layer, reverse, x, start, lengths):
    """Like `_run_group`, of sequences that end early: zero after their ends.

    Those of one length run together, so that none is padded. A row's bits do not depend
    on its batch, so that neither do they on the grouping. A sequence of no steps keeps
    its initial state (ONNX does not say; ONNX Runtime gives zero).
    """
    T, B = x.shape[:2]
    lengths = np.asarray(lengths)
    in_range = lengths.size == 0 or 0 <= lengths.min() <= lengths.max() <= T
    if lengths.shape != (B,) or not in_range:
        raise ValueError(
            f"{who}: sequence_lens must be (B,) = ({B},) numbers in [0, {T}], "
            f"got {lengths.tolist()}"
        )
    width = (1 + layer.bidirectional) * layer.hidden_size
    y = np.zeros((T, B, width), layer.dtype)
    end = [part.copy() for part in start]
    for length in np.unique(lengths[lengths > 0]):
        rows = np.flatnonzero(lengths == length)
        part, state = _run_group(
            layer, reverse, x[:length, rows], [s[:, rows] for s in start]
        )
        y[:length, rows] = part
        for into, value in zip(end, state, strict=True):
            into[:, rows] = value
    return y, end


def _run_group(layer, reverse, x, start):
    """y (T, B, D H) and the last states (D, B, H) of sequences of one length."""
    x = x[::-1] if reverse else x
    hx = start[0] if len(start) == 1 else tuple(start)
    y, state = layer(np.swapaxes(x, 0, 1) if layer.batch_first else x, hx)
    y = np.swapaxes(y, 0, 1) if layer.batch_first else y
    return y[::-1] if reverse else y, state if isinstance(state, tuple) else (state,)
