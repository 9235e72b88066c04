# SPDX-License-Identifier: BSD-3-Clause
"""fastrnn layers for RNN, LSTM and GRU nodes: orders of gates, names of functions.

The operators' inputs, by position::

    0 X (T, B, I)   1 W (D, G H, I)   2 R (D, G H, H)   3 B (D, 2 G H)
    4 sequence_lens (B,)   5 initial_h (D, B, H)   6 initial_c (D, B, H)   7 P (D, 3 H)

With layout 1, X is (B, T, I) and states are (B, D, H).
"""

import numpy as np

from fastrnn.nn.module import Module
from fastrnn.recurrent import GRU, LSTM, RNN
from fastrnn.recurrent.arguments import PARAMETERS
from fastrnn.util import checks

# The recurrent operators of ONNX. It has none for fastrnn's other recurrent layers.
CLASSES = {"RNN": RNN, "LSTM": LSTM, "GRU": GRU}

# For each of fastrnn's gates, its place in ONNX's order. The LSTM has i f g o here and
# i o f c in ONNX, the GRU r z n here and z r h in ONNX.
GATES = {"RNN": (0,), "LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2)}

# ONNX's names of functions by fastrnn's names.
FUNCTIONS = {
    "affine": "Affine",
    "elu": "Elu",
    "hard_sigmoid": "HardSigmoid",
    "leaky_relu": "LeakyRelu",
    "relu": "Relu",
    "scaled_tanh": "ScaledTanh",
    "sigmoid": "Sigmoid",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "tanh": "Tanh",
    "thresholded_relu": "ThresholdedRelu",
}
# The functions of a node that names none, as ONNX lists them: f, g, h. The function f
# is that of the gates (of an RNN, its only one), g makes the candidate for h or c, and
# h is applied to c.
PLAIN = {
    "RNN": ("tanh",),
    "LSTM": ("sigmoid", "tanh", "tanh"),
    "GRU": ("sigmoid", "tanh"),
}


def reorder(op, array, to_onnx=False):
    """Bring gates, the rows of (G * H, ...), from ONNX's order into ours or back."""
    order = np.argsort(GATES[op]) if to_onnx else GATES[op]
    gates = np.split(array, len(order))
    return np.concatenate([gates[k] for k in order])


class Directions(Module):
    """Two layers for the directions of a node whose directions differ in functions."""

    _saved = False

    def __init__(self, ahead, back):
        self.ahead, self.back = ahead, back


# -- at load time ----------------------------------------------------------------------


def _choice(who, node, attribute, *accepted):
    """The value of an attribute, one of those accepted; the first is the default."""
    value = node.get(attribute, accepted[0])
    if value not in accepted:
        listed = " or ".join(map(repr, accepted))
        raise ValueError(f"{who}: {attribute} must be {listed}, got {value!r}")
    return value


def _functions(who, node, D):
    """The functions of each direction as fastrnn's layers take them, in ONNX's order.

    A node has two lists, of alphas and of betas, for the parameters of all its
    functions. Each function that has parameters takes the next ones from the lists, and
    its default values where a list has ended.
    """
    known = {theirs.lower(): ours for ours, theirs in FUNCTIONS.items()}
    plain = PLAIN[node.op]
    names = [one.lower() for one in node.get("activations", ())] or [*plain] * D
    if len(names) != D * len(plain) or not known.keys() >= set(names):
        raise ValueError(
            f"{who}: activations must be {D * len(plain)} of "
            f"{', '.join(FUNCTIONS.values())}, got {node.get('activations')}"
        )
    lists = [iter(node.get(f"activation_{key}", ())) for key in ("alpha", "beta")]
    found = []
    for name in (known[one] for one in names):
        defaults = PARAMETERS.get(name, ())
        given = [next(one, x) for one, x in zip(lists, defaults, strict=False)]
        found.append((name, *given) if given else name)
    n = len(plain)
    return [tuple(found[k : k + n]) for k in range(0, D * n, n)]


def _arguments(op, functions):
    """The arguments of a layer for f, g and h, without those that are its defaults."""
    f, *others = functions
    if op == "RNN":
        return {"nonlinearity": f} if f in ("tanh", "relu") else {"activation": f}
    arguments = {}
    if f != "sigmoid":
        arguments["recurrent_activation"] = f
    if others != ["tanh"] * len(others):
        arguments["activation"] = others[0] if len(others) == 1 else others
    return arguments


def _weight(who, name, constants, source, ndim):
    """The array of a weight, which must be a constant; None if it is left out."""
    if not source:
        return None
    if source not in constants:
        raise ValueError(
            f"{who}: {name} must be constant, got the computed value {source!r}"
        )
    array = constants[source]
    if array.dtype.name not in checks.DTYPES or array.ndim != ndim:
        raise ValueError(
            f"{who}: {name} must be float32 or float64 with {ndim} axes, "
            f"got {array.dtype.name} of shape {array.shape}"
        )
    return array


def make_layer(who, node, constants):
    """Make the layer that computes a recurrent node.

    Parameters
    ----------
    who : str
        The file and the node, for errors.
    node : Node
    constants : mapping of str to ndarray
        The arrays that are known when the file is read, by name.

    Returns
    -------
    RNN, LSTM, GRU or Directions

    Raises
    ------
    ValueError
        If weights are not constant or have wrong shapes, or if an attribute has a value
        that the operator does not define.
    """
    op, G = node.op, len(GATES[node.op])
    direction = _choice(who, node, "direction", "forward", "reverse", "bidirectional")
    D = 2 if direction == "bidirectional" else 1
    inputs = [*node.inputs, *[""] * 8]
    W, R, bias, peephole = (
        _weight(who, name, constants, inputs[k], ndim)
        for k, name, ndim in ((1, "W", 3), (2, "R", 3), (3, "B", 2), (7, "P", 2))
    )
    H, I = node.get("hidden_size", R.shape[-1]), W.shape[-1]
    for name, array, shape in (
        ("W", W, (D, G * H, I)),
        ("R", R, (D, G * H, H)),
        ("B", bias, (D, 2 * G * H)),
        ("P", peephole, (D, 3 * H)),
    ):
        if array is not None and array.shape != shape:
            raise ValueError(
                f"{who}: {name} must have shape {shape}, got {array.shape}"
            )
    if peephole is not None and not peephole.any():
        peephole = None  # some exporters write zeros for an LSTM without peepholes
    options = {
        "bias": bias is not None,
        "batch_first": bool(_choice(who, node, "layout", 0, 1)),
        "cell_clip": node.get("clip"),
        "dtype": W.dtype.name,
    }
    if op == "LSTM":
        options["peephole"] = peephole is not None
        options["input_forget"] = bool(_choice(who, node, "input_forget", 0, 1))
    if op == "GRU":
        options["reset_after"] = bool(_choice(who, node, "linear_before_reset", 0, 1))

    def make(directions, functions, **more):
        try:
            layer = CLASSES[op](I, H, **options, **_arguments(op, functions), **more)
        except ValueError as error:
            raise ValueError(f"{who}: {error}") from error
        state = {}
        for d, suffix in zip(directions, ("_l0", "_l0_reverse"), strict=False):
            state[f"weight_ih{suffix}"] = reorder(op, W[d])
            state[f"weight_hh{suffix}"] = reorder(op, R[d])
            if bias is not None:
                state[f"bias_ih{suffix}"] = reorder(op, bias[d, : G * H])
                state[f"bias_hh{suffix}"] = reorder(op, bias[d, G * H :])
            if peephole is not None:
                state[f"weight_ph{suffix}"] = peephole[d].reshape(3, H)
        layer.load_state_dict(state)
        return layer

    functions = _functions(who, node, D)
    if D == 1:
        return make([0], functions[0], go_backwards=direction == "reverse")
    if functions[0] == functions[1]:
        return make([0, 1], functions[0], bidirectional=True)
    ahead, back = functions
    return Directions(make([0], ahead), make([1], back, go_backwards=True))


# -- at a call -------------------------------------------------------------------------


def run(who, layer, inputs):
    """Run a layer as its node asks.

    Parameters
    ----------
    layer : RNN, LSTM, GRU or Directions
    inputs : list of ndarray or None
        At the positions that the operator defines. The weights among them are ignored,
        since they are the layer's parameters.

    Returns
    -------
    list of ndarray
        Y, Y_h and, for an LSTM, Y_c. Y is zero past a sequence's end. The last state of
        a sequence of no steps is its initial state; ONNX does not define it, and ONNX
        Runtime gives zero.
    """
    x, *_, lengths, h0, c0, _ = [*inputs, *[None] * 8][:8]
    layers = [layer.ahead, layer.back] if isinstance(layer, Directions) else [layer]
    batch_first, width = layers[0].batch_first, layers[0].input_size
    axes = ("B", "T") if batch_first else ("T", "B")
    checks.shape(who, "X", x, (*axes, "I"), (None, None, width))
    start = [
        state if state is None or not batch_first else np.swapaxes(state, 0, 1)
        for state in ((h0, c0) if layers[0]._states == 2 else (h0,))
    ]
    if len(layers) == 1:
        made = _run(who, layer, x, start, lengths)
    else:
        halves = (
            [None if state is None else state[d : d + 1] for state in start]
            for d in (0, 1)
        )
        both = [
            _run(who, *one, lengths) for one in zip(layers, (x, x), halves, strict=True)
        ]
        axes = (2, *[0] * len(start))
        made = [
            np.concatenate(parts, axis=axis)
            for parts, axis in zip(zip(*both, strict=True), axes, strict=True)
        ]
    y, *end = made
    if batch_first:
        return [y, *(np.swapaxes(state, 0, 1) for state in end)]
    return [y.transpose(0, 2, 1, 3), *end]


def _run(who, layer, x, start, lengths):
    """Run one layer; Y with an axis D before its last, and last states (D, B, H)."""
    try:
        y, end = layer(x, tuple(start) if len(start) > 1 else start[0], lengths=lengths)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{who}: {error}") from error
    if layer.go_backwards:
        y = _by_time(y, lengths, layer.batch_first)
    y = y.reshape(*y.shape[:2], -1, layer.hidden_size)
    return [y, *end] if len(start) > 1 else [y, end]


def _by_time(y, lengths, batch_first):
    """Put the outputs of a layer that goes backwards into the order of time."""
    axis = 1 if batch_first else 0
    if lengths is None:
        return np.flip(y, axis)
    t, ends = np.arange(y.shape[axis]), np.asarray(lengths)[:, None]
    at = np.where(t < ends, ends - 1 - t, t)  # (B, T)
    return np.take_along_axis(y, (at if batch_first else at.T)[..., None], axis)
