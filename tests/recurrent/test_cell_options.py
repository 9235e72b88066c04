# SPDX-License-Identifier: BSD-3-Clause
"""Options of the layers' cells: values, gradients, copies, streams, refusals.

The judges are PyTorch for projections, and for the rest the equations in float64
(option_cells.py), differentiated by central differences.
"""

import copy
import math
import pickle

import numpy as np
import pytest
import reference
from cells import KINDS, all_parameters, nonlinearity_of, parts_of, state_of
from option_cells import ALPHA, BETA, CASES, Cell, differences

import fastrnn
from fastrnn.native import celltable
from fastrnn.recurrent import arguments

TAKES = arguments.PARAMETERS  # functions with parameters, and their defaults


def spec(name):
    """A function with the parameters that option_cells.py gives it."""
    values = (ALPHA, BETA)[: len(TAKES.get(name, ()))]
    return (name, *values) if values else name


def layer_arguments(kind, activations, options):
    """A case of option_cells.py as a layer's arguments."""
    given = dict(options)
    arguments = {}
    if clip := given.pop("clip", None):
        arguments["cell_clip"] = clip
    if given.pop("reset_before", False):
        arguments["reset_after"] = False
    if alpha := given.pop("skip_scale", None):
        arguments |= {"rescale": True, "highway_bias": math.log((alpha**2 - 1) / 2)}
    if activations:
        # By the letter that a plain cell's function has: sigmoids open and close gates.
        named = {"recurrent_activation": [], "activation": []}
        plain = reference.CELLS[kind].functions
        for name, function in zip(activations, plain, strict=True):
            opens = function == "sigmoid"
            which = "recurrent_activation" if opens else "activation"
            named[which].append(spec(name))
        for name, specs in named.items():
            if specs:
                arguments[name] = specs if len(specs) > 1 else specs[0]
    return arguments | given


def make(cell_kind, activations, options, I, H, **more):
    cls = getattr(fastrnn, celltable.cell(cell_kind).layer)
    arguments = layer_arguments(cell_kind, activations, options)
    if not activations:
        arguments |= nonlinearity_of(cell_kind)
    arguments |= all_parameters(cell_kind)
    return cls(I, H, **arguments, seed=3, **more)


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    return request.param


def load(layer, v):
    names = {"W": "weight_ih_l0", "R": "weight_hh_l0", "b_ih": "bias_ih_l0"}
    names |= {"b_hh": "bias_hh_l0", "W_hr": "weight_hr_l0"}
    names["P"] = f"{celltable.cell(layer._cell).vectors}_l0"
    names = {key: name for key, name in names.items() if key in v}
    layer.load_state_dict(
        {
            name: v[key].reshape(layer.parameters[name].shape)
            for key, name in names.items()
        }
    )
    return names


def run(layer, kind, v, d):
    """Outputs and gradients by option_cells.py's names."""
    names = load(layer, v)
    layer.zero_grad()
    hx = state_of([v[name][None] for name in ("h0", "c0") if name in v])
    y, state = layer(v["x"], hx)
    d_state = state_of([d[name][None] for name in ("h_n", "c_n") if name in d])
    dx, d_hx = layer.backward(d["y"], d_state)
    state, d_hx = parts_of(state), parts_of(d_hx)
    grads = {key: layer.grads[name].copy() for key, name in names.items()}
    grads |= {"x": dx, "h0": d_hx[0][0]}
    if "c0" in v:
        grads["c0"] = d_hx[1][0]
    return [y, *(part[0] for part in state)], grads


def test_values_and_gradients(isa, case):
    kind, activations, options = case
    cell = Cell(kind, activations, **options)
    v, d = cell.data()
    layer = make(*case, v["x"].shape[2], 18, dtype="float64")
    out, grads = run(layer, kind, v, d)
    for got, want in zip(out, cell.forward(v), strict=False):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-11)
    rng = np.random.default_rng(1)
    for name, value in v.items():
        at = rng.choice(value.size, min(value.size, 12), replace=False)
        want = differences(cell, v, d, name, at)
        np.testing.assert_allclose(
            grads[name].flat[at], want, rtol=2e-6, atol=2e-7, err_msg=name
        )


def stacked(case, dtype, **more):
    """A layer of two, and all that one training step of it gives."""
    layer = make(*case, 5, 18, num_layers=2, dtype=dtype, **more)
    return layer, step(layer)


def step(layer):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((7, 3, 5)).astype(layer.dtype)
    layer.zero_grad()
    y, state = layer(x)
    dx, d_hx = layer.backward(np.cos(np.arange(y.size)).reshape(y.shape))
    parts = [*state, *d_hx] if isinstance(state, tuple) else [state, d_hx]
    return [y, dx, *parts, *(grad.copy() for grad in layer.grads.values())]


def same_bits(found, want):
    for a, b in zip(found, want, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_bits_with_checkpoints_threads_and_copies(isa, dtype, case, bidirectional):
    layer, want = stacked(case, dtype, bidirectional=bidirectional)
    assert all(np.isfinite(array).all() for array in want)
    layer.checkpoint_every = 3
    same_bits(step(layer), want)
    layer.checkpoint_every = None
    same_bits(step(copy.deepcopy(layer)), want)
    same_bits(step(pickle.loads(pickle.dumps(layer))), want)
    before = fastrnn.get_num_threads()
    try:
        for n_threads in (1, 2):
            fastrnn.set_num_threads(n_threads)
            same_bits(step(layer), want)
    finally:
        fastrnn.set_num_threads(before)
    y, _ = layer.eval()(np.random.default_rng(5).standard_normal((7, 3, 5)))
    np.testing.assert_array_equal(y, want[0])


def test_float32_is_near_float64(case):
    layer, _ = stacked(case, "float64")
    other = make(*case, 5, 18, num_layers=2, dtype="float32")
    other.load_state_dict(layer.state_dict())
    for got, exact in zip(step(other), step(layer), strict=True):
        bound = 5e-5 * max(1, np.abs(exact).max())
        np.testing.assert_allclose(got, exact, rtol=0, atol=bound)


def test_steps_of_a_stream_have_the_bits_of_a_forward(isa, dtype, case):
    layer = make(*case, 5, 18, num_layers=2, dtype=dtype).eval()
    x = np.random.default_rng(5).standard_normal((6, 3, 5)).astype(dtype)
    y, state = layer(x)
    stream = layer.stream(3)
    np.testing.assert_array_equal([stream.step(x_t).copy() for x_t in x], y)
    for got, want in zip(
        (stream.h, stream.c), state if stream.c is not None else (state,), strict=False
    ):
        np.testing.assert_array_equal(got, want)


# --- projections, against PyTorch ------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_projection_is_pytorch_s(isa, bidirectional, bias, batch_first, rng):
    torch = pytest.importorskip("torch", reason="compares with torch.nn")
    arguments = {
        "num_layers": 2, "bias": bias, "batch_first": batch_first,
        "bidirectional": bidirectional, "proj_size": 4,
    }  # fmt: skip
    theirs = torch.nn.LSTM(5, 9, **arguments).double()
    ours = fastrnn.LSTM(5, 9, **arguments, dtype="float64")
    state_dict = {k: v.detach().numpy() for k, v in theirs.state_dict().items()}
    assert {k: v.shape for k, v in state_dict.items()} == {
        k: v.shape for k, v in ours.parameters.items()
    }
    ours.load_state_dict(state_dict)
    D = 1 + bidirectional
    x = rng.standard_normal((6, 3, 5))
    B = 6 if batch_first else 3
    h0, c0 = rng.standard_normal((2 * D, B, 4)), rng.standard_normal((2 * D, B, 9))
    inputs = [torch.tensor(a, requires_grad=True) for a in (x, h0, c0)]
    y_t, (h_t, c_t) = theirs(inputs[0], tuple(inputs[1:]))
    y, (h_n, c_n) = ours(x, (h0, c0))
    d = [rng.standard_normal(tuple(part.shape)) for part in (y_t, h_t, c_t)]
    total = 0
    for part, gradient in zip((y_t, h_t, c_t), d, strict=True):
        total = total + (part * torch.tensor(gradient)).sum()
    total.backward()
    dx, (dh0, dc0) = ours.backward(d[0], (d[1], d[2]))
    pairs = [(y, y_t), (h_n, h_t), (c_n, c_t)]
    pairs += zip((dx, dh0, dc0), (part.grad for part in inputs), strict=True)
    pairs += [(ours.grads[name], p.grad) for name, p in theirs.named_parameters()]
    for got, want in pairs:
        np.testing.assert_allclose(got, want.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_projection_unbatched_and_last_output_alone(rng):
    layer = fastrnn.LSTM(5, 9, proj_size=4, bidirectional=True, seed=0)
    x = rng.standard_normal((6, 5)).astype("f")
    y, (h_n, c_n) = layer(x)
    batched, (h_b, c_b) = layer(x[:, None])
    same_bits((y, h_n, c_n), (batched[:, 0], h_b[:, 0], c_b[:, 0]))
    last = fastrnn.LSTM(
        5, 9, proj_size=4, bidirectional=True, seed=0, return_sequences=False
    )
    z, _ = last(x)
    np.testing.assert_array_equal(z, np.concatenate([y[-1, :4], y[0, 4:]]))
    dx, (dh, dc) = last.backward(np.ones(8, "f"), (None, np.ones((2, 9), "f")))
    assert (dx.shape, dh.shape, dc.shape) == ((6, 5), (2, 4), (2, 9))
    dy = np.zeros_like(y)
    dy[-1, :4] = dy[0, 4:] = 1
    layer(x)
    np.testing.assert_array_equal(
        dx, layer.backward(dy, (None, np.ones((2, 9), "f")))[0]
    )


# --- arguments -------------------------------------------------------------------


def test_a_plain_function_by_name_is_the_plain_cell(rng):
    x = rng.standard_normal((4, 2, 3)).astype("f")
    plain = fastrnn.LSTM(3, 5, seed=0)
    named = fastrnn.LSTM(
        3, 5, activation="tanh", recurrent_activation="sigmoid", seed=0
    )
    np.testing.assert_array_equal(named(x)[0], plain(x)[0])


def test_function_defaults_and_ways_to_write_them(rng):
    x = rng.standard_normal((4, 2, 3))
    ways = [
        "hard_sigmoid", ("hard_sigmoid", 0.2), ["hard_sigmoid", 0.2, 0.5],
        {"name": "hard_sigmoid", "alpha": 0.2}, ["hard_sigmoid"] * 2,
        ["hard_sigmoid", {"name": "hard_sigmoid", "beta": 0.5}],
    ]  # fmt: skip
    found = [
        fastrnn.GRU(3, 5, recurrent_activation=way, dtype="float64", seed=0)(x)[0]
        for way in ways
    ]
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    third = fastrnn.GRU(
        3, 5, recurrent_activation=("hard_sigmoid", 1 / 6), dtype="float64", seed=0
    )
    assert np.abs(third(x)[0] - found[0]).max() > 1e-3
    line = fastrnn.RNN(3, 5, activation="linear", dtype="float64", seed=0)
    same = fastrnn.RNN(3, 5, activation="identity", dtype="float64", seed=0)
    p = line.parameters
    y = line(x)[0]
    want = x[0] @ p["weight_ih_l0"].T + p["bias_ih_l0"] + p["bias_hh_l0"]
    np.testing.assert_allclose(y[0], want, rtol=1e-12)
    np.testing.assert_array_equal(same(x)[0], y)


def test_repr_and_description_have_the_options():
    layer = fastrnn.LSTM(3, 5, proj_size=2, peephole=True, cell_clip=3.0)
    assert repr(layer) == "LSTM(3, 5, proj_size=2, peephole=True, cell_clip=3.0)"
    assert "reset_after=False" in repr(fastrnn.GRU(3, 5, reset_after=False))


REFUSED = [
    ("LSTM", {"proj_size": 5}, ValueError, "proj_size must be 0 for none or less than"),
    ("LSTM", {"proj_size": 7}, ValueError, r"hidden_size = 5, got 7"),
    ("LSTM", {"proj_size": -1}, ValueError, "proj_size must be 0 for none"),
    ("LSTM", {"proj_size": 2.0}, TypeError, "proj_size must be an integer, got 2.0"),
    ("LSTM", {"peephole": 1}, TypeError, "peephole must be True or False, got 1"),
    ("GRU", {"peephole": True}, TypeError, "has no argument 'peephole'"),
    ("RNN", {"proj_size": 2}, TypeError, "has no argument 'proj_size'"),
    ("RNN", {"activation": "swish"}, ValueError, "activation must be one of 'tanh'"),
    ("GRU", {"activation": ["elu", "elu"]}, ValueError, "must be a name, .* got"),
    ("LSTM", {"activation": ["elu"] * 3}, ValueError, "or 2 of these for g and c_t"),
    ("LSTM", {"activation": 3}, TypeError, "activation must be a name.* got 3"),
    ("RNN", {"activation": ("tanh", 2.0)}, ValueError, "'tanh' has no parameters"),
    ("RNN", {"activation": ("elu", float("nan"))}, ValueError, "alpha of activation"),
    ("GRU", {"cell_clip": 0}, ValueError, r"cell_clip must be a number in \(0, inf\)"),
    ("GRU", {"clip_state_grad": -1}, ValueError, "clip_state_grad must be a number"),
    ("GRU", {"clip_state_grad": ("l1", 1)}, ValueError, "kind must be one of 'value'"),
    ("GRU", {"clip_state_grad": "1"}, TypeError, "clip_state_grad must be a number"),
    ("LSTM", {"forget_bias": 1, "bias": False}, ValueError, "got bias=False"),
    (
        "LSTM", {"forget_bias": 1, "input_forget": True}, ValueError,
        "got input_forget=True",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "given", "error", "message"), REFUSED)
def test_refusals(kind, given, error, message):
    with pytest.raises(error, match=message) as caught:
        getattr(fastrnn, kind)(3, 5, **given)
    assert str(caught.value).startswith(kind)


# --- initial state, forget bias ---------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_learned_initial_state(kind, dtype, rng):
    more = {"proj_size": 4} if kind == "LSTM" else {}
    arguments = {"num_layers": 2, "bidirectional": True, "dtype": dtype, **more}
    layer = getattr(fastrnn, kind)(3, 6, **arguments, learn_initial_state=True, seed=0)
    plain = getattr(fastrnn, kind)(3, 6, **arguments, seed=0)
    names = [f"{letter}_0" for letter in layer._cells[0].states]
    assert list(layer.parameters)[-len(names) :] == names
    assert not any(layer.parameters[name].any() for name in names)
    for name in names:
        drawn = rng.standard_normal(layer.parameters[name].shape)
        layer.parameters[name][...] = np.abs(drawn) + 0.5 if name == "n_0" else drawn
    for name, value in plain.parameters.items():
        np.testing.assert_array_equal(layer.parameters[name], value)
    x = rng.standard_normal((5, 4, 3)).astype(dtype)
    hx = [np.repeat(layer.parameters[name][:, None], 4, axis=1) for name in names]
    y, _ = layer(x)
    dy = rng.standard_normal(y.shape).astype(dtype)
    want, _ = plain(x, state_of(hx))
    np.testing.assert_array_equal(y, want)
    dx, _ = layer.backward(dy)
    dx_want, d_want = plain.backward(dy)
    np.testing.assert_array_equal(dx, dx_want)
    for name, gradient in zip(names, parts_of(d_want), strict=True):
        np.testing.assert_allclose(
            layer.grads[name], gradient.sum(axis=1), rtol=1e-5, atol=1e-6
        )
    layer.zero_grad()
    layer(x, state_of([np.zeros_like(part) for part in hx]))
    layer.backward(dy)
    assert not any(layer.grads[name].any() for name in names)


def test_stream_begins_with_the_learned_state(rng):
    layer = fastrnn.LSTM(3, 6, learn_initial_state=True, seed=0).eval()
    for name in ("h_0", "c_0"):
        layer.parameters[name][...] = rng.standard_normal((1, 6))
    x = rng.standard_normal((3, 2, 3)).astype("f")
    stream = layer.stream(2)
    y, _ = layer(x)
    np.testing.assert_array_equal([stream.step(x_t).copy() for x_t in x], y)
    stream.reset([False, True])
    np.testing.assert_array_equal(stream.step(x[0])[1], y[0, 1])


def test_forget_bias():
    layer = fastrnn.LSTM(3, 5, 2, forget_bias=1.5, proj_size=2, seed=0)
    for k in (0, 1):
        assert (layer.parameters[f"bias_ih_l{k}"][5:10] == 1.5).all()
        assert not layer.parameters[f"bias_hh_l{k}"][5:10].any()
    by_hand = fastrnn.LSTM(3, 5, 2, proj_size=2, seed=0)
    fastrnn.init.forget_gate_bias_(by_hand, 1.5)
    np.testing.assert_array_equal(by_hand.flat_parameters, layer.flat_parameters)


# --- the gradient of the state ---------------------------------------------------


def by_steps(layer, x, dy, bounded):
    """dL/dh_t from single steps, each bounded before it goes back; norms and dx."""
    T = len(x)
    states = [None]
    for t in range(T):
        states.append(layer(x[t : t + 1], states[-1])[1])
    carried, flow, dx = np.zeros_like(parts_of(states[1])[0]), [], []
    dc = [np.zeros_like(part) for part in parts_of(states[1])[1:]]
    for t in reversed(range(T)):
        layer(x[t : t + 1], states[t])
        total = carried + dy[t][None]
        flow.append(np.sqrt((total**2).sum()))
        total = bounded(total)
        d_x, d_hx = layer.backward(None, state_of([total, *dc]))
        dx.append(d_x[0])
        carried, *dc = parts_of(d_hx)
    return np.array(flow[::-1]), np.array(dx[::-1])


BOUNDS = {
    "none": (None, lambda d: d),
    "value": (0.3, lambda d: np.clip(d, -0.3, 0.3)),
    "norm": (
        ("norm", 0.7),
        lambda d: d * np.minimum(1, 0.7 / np.sqrt((d**2).sum(-1, keepdims=True))),
    ),
}


@pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)
@pytest.mark.parametrize("every", [None, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_flow_and_clipped_state_gradients(isa, kind, bound, every, rng):
    given, bounded = bound
    more = {"proj_size": 4} if kind == "LSTM" else {}
    cls = getattr(fastrnn, kind)
    layer = cls(3, 6, clip_state_grad=given, dtype="float64", seed=0, **more)
    plain = cls(3, 6, dtype="float64", seed=0, **more)
    layer.checkpoint_every = every
    x = rng.standard_normal((5, 4, 3))
    y, _ = layer(x)
    dy = rng.standard_normal(y.shape)
    want_flow, want_dx = by_steps(plain, x, dy, bounded)
    dx, _, flow = layer.backward(dy, record_flow=True)
    assert flow.shape == (1, 5)
    np.testing.assert_allclose(flow[0], want_flow, rtol=1e-9)
    np.testing.assert_allclose(dx, want_dx, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("every", [None, 2])
def test_flow_of_each_layer_and_direction(every, rng):
    layer = fastrnn.GRU(3, 6, 2, bidirectional=True, dtype="float64", seed=0)
    x = rng.standard_normal((5, 4, 3))
    y, _ = layer(x)
    dy = np.zeros_like(y)
    dy[2] = 1
    want = layer.backward(dy, record_flow=True)[2]
    assert want.shape == (4, 5)
    # The loss sees step 2 alone: of the top layer, what runs away from it stays zero.
    assert (want[2] > 0).tolist() == [True, True, True, False, False]
    assert (want[3] > 0).tolist() == [False, False, True, True, True]
    assert (want[:2] > 0).all()
    layer.checkpoint_every = every
    layer(x)
    np.testing.assert_array_equal(layer.backward(dy, record_flow=True)[2], want)


def test_options_pickle():
    options = celltable.CellOptions([("tanh", 0.0, 0.0)], clip=2.0)
    assert isinstance(pickle.loads(pickle.dumps(options)), celltable.CellOptions)
