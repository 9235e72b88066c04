# SPDX-License-Identifier: BSD-3-Clause
"""RNN, LSTM and GRU operators from ONNX's own text, in float64, one step at a time.

ONNX Runtime implements most of them, but not layout 1, double, or every function.
"""

import numpy as np
import onnx

FUNCTIONS = {  # name: (function, default alpha, default beta)
    "affine": (lambda x, a, b: a * x + b, 1, 0),
    "elu": (lambda x, a: np.where(x < 0, a * (np.exp(np.minimum(x, 0)) - 1), x), 1),
    "hardsigmoid": (lambda x, a, b: np.clip(a * x + b, 0, 1), 0.2, 0.5),
    "leakyrelu": (lambda x, a: np.where(x < 0, a * x, x), 0.01),
    "relu": (lambda x: np.maximum(x, 0),),
    "scaledtanh": (lambda x, a, b: a * np.tanh(b * x), 1, 1),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)),),
    "softplus": (lambda x: np.logaddexp(0, x),),
    "softsign": (lambda x: x / (1 + np.abs(x)),),
    "tanh": (np.tanh,),
    "thresholdedrelu": (lambda x, a: np.where(x > a, x, 0), 1),
}
PLAIN = {
    "RNN": ["Tanh"],
    "LSTM": ["Sigmoid", "Tanh", "Tanh"],
    "GRU": ["Sigmoid", "Tanh"],
}


def functions(op, D, attributes):
    """f, g and h of each direction."""
    alphas = list(attributes.get("activation_alpha", []))
    betas = list(attributes.get("activation_beta", []))
    found = []
    for name in attributes.get("activations", PLAIN[op] * D):
        f, *parameters = FUNCTIONS[name.lower()]
        for k, numbers in enumerate((alphas, betas)):
            if k < len(parameters) and numbers:
                parameters[k] = numbers.pop(0)
        found.append(lambda x, f=f, p=tuple(parameters): f(x, *p))
    n = len(PLAIN[op])
    return [found[k : k + n] for k in range(0, D * n, n)]


def step(op, x, h, c, W, R, B, P, act, attributes):
    """One sequence's next h and c, from row vectors."""
    H = len(h)
    limit = attributes.get("clip", np.inf)
    f, *others = (lambda a, one=one: one(np.clip(a, -limit, limit)) for one in act)
    Wb, Rb = np.split(B, 2)
    w = (W @ x + Wb).reshape(-1, H)
    rb = Rb.reshape(-1, H)
    r = (R @ h).reshape(-1, H) + rb
    if op == "RNN":
        return f(w[0] + r[0]), None
    if op == "GRU":
        (g,) = others
        z, reset = f(w[0] + r[0]), f(w[1] + r[1])
        if attributes.get("linear_before_reset", 0):
            new = g(w[2] + reset * r[2])
        else:
            new = g(w[2] + R[2 * H :] @ (reset * h) + rb[2])
        return (1 - z) * new + z * h, None
    Pi, Po, Pf = np.split(P, 3)
    g = others[0]
    i, forget = f(w[0] + r[0] + Pi * c), f(w[2] + r[2] + Pf * c)
    if attributes.get("input_forget", 0):
        forget = 1 - i
    c = forget * c + i * g(w[3] + r[3])
    o = f(w[1] + r[1] + Po * c)
    return o * act[2](c), c  # what goes into h is not clipped


def run(model, inputs):
    """Y, Y_h and, of an LSTM, Y_c of a model that `onnx_files.node_model` made."""
    node = model.graph.node[0]
    op = node.op_type
    attributes = {
        one.name: onnx.helper.get_attribute_value(one) for one in node.attribute
    }
    if "activations" in attributes:
        attributes["activations"] = [a.decode() for a in attributes["activations"]]
    v = {name: np.asarray(a) for name, a in inputs.items()}
    for tensor in model.graph.initializer:
        v[tensor.name] = onnx.numpy_helper.to_array(tensor)
    if attributes.get("layout", 0):
        v |= {k: v[k].swapaxes(0, 1) for k in ("X", "h0", "c0") if k in v}
    X = v["X"].astype(float)
    T, N, _ = X.shape
    D, H = v["R"].shape[0], v["R"].shape[2]
    G = v["R"].shape[1] // H
    direction = attributes.get("direction", b"forward")
    lengths = v.get("lengths", np.full(N, T))
    B = v.get("B", np.zeros((D, 2 * G * H))).astype(float)
    P = v.get("P", np.zeros((D, 3 * H))).astype(float)
    Y = np.zeros((T, D, N, H))
    h_n, c_n = (v.get(k, np.zeros((D, N, H))).astype(float) for k in ("h0", "c0"))
    for d, act in enumerate(functions(op, D, attributes)):
        W, R = v["W"][d].astype(float), v["R"][d].astype(float)
        for n in range(N):
            h, c = h_n[d, n], c_n[d, n]
            times = range(lengths[n])
            back = d == 1 or direction == b"reverse"
            for t in reversed(times) if back else times:
                h, c = step(op, X[t, n], h, c, W, R, B[d], P[d], act, attributes)
                Y[t, d, n] = h
            h_n[d, n] = h
            if c is not None:
                c_n[d, n] = c
    states = [h_n, c_n][: 2 if op == "LSTM" else 1]
    if attributes.get("layout", 0):
        return [Y.transpose(2, 0, 1, 3), *(s.swapaxes(0, 1) for s in states)]
    return [Y, *states]
