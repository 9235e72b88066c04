# SPDX-License-Identifier: BSD-3-Clause
"""Optimisers against formulas in float64, against PyTorch, and against themselves."""

import numpy as np
import pytest
import safetensors.numpy
from optimizer_cases import CASES, IDS
from tolerances import MARGIN

import fastrnn
from fastrnn.native import core
from fastrnn.nn.layers import Linear
from fastrnn.train import optim

N_STEPS = 10

# Sizes that are no multiple of a vector, one vector, and enough for several threads.
SIZES = [1, 5, 16, 67, 7 * 16384 + 13]


def flat_model(size, dtype, values):
    model = Linear(size, 1, bias=False, dtype=dtype)
    model.flat_parameters[:] = values
    return model


def gradients(rng, size, dtype):
    """One gradient per step, of falling size so that AMSGrad's maximum matters."""
    scales = np.linspace(1.5, 0.2, N_STEPS)[:, np.newaxis]
    return (rng.standard_normal((N_STEPS, size)) * scales).astype(dtype)


def run(name, options, start, steps):
    model = flat_model(start.size, start.dtype.name, start)
    optimizer = getattr(optim, name)(model, **options)
    path = []
    for grad in steps:
        model.flat_grads[:] = grad
        optimizer.step()
        np.testing.assert_array_equal(model.flat_grads, grad)
        path.append(model.flat_parameters.copy())
    return np.array(path)


def reference_sgd(p, g, t, state, lr, momentum=0, dampening=0, nesterov=False):
    if momentum == 0:
        return p - lr * g
    b = g if t == 1 else momentum * state["b"] + (1 - dampening) * g
    state["b"] = b
    return p - lr * (g + momentum * b if nesterov else b)


def reference_rmsprop(
    p, g, t, state, lr=0.01, alpha=0.99, eps=1e-8, momentum=0, centered=False
):
    state["s"] = s = alpha * state.get("s", 0) + (1 - alpha) * g**2
    state["a"] = a = alpha * state.get("a", 0) + (1 - alpha) * g
    u = g / (np.sqrt(s - centered * a**2) + eps)
    state["b"] = b = momentum * state.get("b", 0) + u
    return p - lr * b


def reference_adagrad(
    p, g, t, state, lr=0.01, lr_decay=0, initial_accumulator_value=0, eps=1e-10
):
    state["s"] = s = state.get("s", initial_accumulator_value) + g**2
    return p - lr / (1 + (t - 1) * lr_decay) * g / (np.sqrt(s) + eps)


def reference_adam(
    p, g, t, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, amsgrad=False
):
    b1, b2 = betas
    state["m"] = m = b1 * state.get("m", 0) + (1 - b1) * g
    state["s"] = s = b2 * state.get("s", 0) + (1 - b2) * g**2
    state["most"] = most = np.maximum(state.get("most", 0), s)
    root = np.sqrt((most if amsgrad else s) / (1 - b2**t))
    return p - lr * m / (1 - b1**t) / (root + eps)


REFERENCES = {
    "SGD": reference_sgd,
    "RMSprop": reference_rmsprop,
    "Adagrad": reference_adagrad,
    "Adam": reference_adam,
    "AdamW": reference_adam,
}


def reference(name, options, start, steps):
    options = dict(options)
    sign = -1 if options.pop("maximize", False) else 1
    decay = options.pop("weight_decay", 0.01 if name == "AdamW" else 0)
    p, state, path = start.astype(np.float64), {}, []
    for t, grad in enumerate(steps.astype(np.float64), start=1):
        grad = sign * grad
        if name == "AdamW":
            p = p * (1 - options.get("lr", 1e-3) * decay)
        else:
            grad = grad + decay * p
        p = REFERENCES[name](p, grad, t, state, **options)
        path.append(p)
    return np.array(path)


def assert_path(got, want, start, dtype):
    """A dozen roundings a step, each relative to the parameters or to their change.

    A centred second moment is a difference that can cancel, and lr / sqrt(s - a^2) then
    magnifies its rounding; so the change has a margin of its own.
    """
    eps = np.finfo(dtype).eps
    moved = np.abs(np.diff(want, axis=0, prepend=start[np.newaxis])).cumsum(axis=0)
    allowed = MARGIN * eps * (N_STEPS * np.abs(want) + 4 * MARGIN * moved + 1e-3)
    assert np.isfinite(got).all()
    assert (np.abs(got - want) <= allowed).all(), (np.abs(got - want) / allowed).max()


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
@pytest.mark.parametrize("size", SIZES[:-1])
def test_step_follows_the_formula(name, options, size, dtype, isa, rng):
    start = rng.standard_normal(size).astype(dtype)
    steps = gradients(rng, size, dtype)
    want = reference(name, options, start, steps)
    assert_path(run(name, options, start, steps), want, start, dtype)


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_step_is_pytorchs(name, options, dtype, rng):
    torch = pytest.importorskip("torch", reason="parity needs PyTorch")
    start = rng.standard_normal(67).astype(dtype)
    steps = gradients(rng, 67, dtype)
    parameter = torch.nn.Parameter(torch.tensor(start))
    theirs = getattr(torch.optim, name)([parameter], **options)
    want = []
    for grad in steps:
        parameter.grad = torch.tensor(grad)
        theirs.step()
        want.append(parameter.detach().numpy().astype(np.float64))
    assert_path(run(name, options, start, steps), np.array(want), start, dtype)


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adagrad", "Adam", "AdamW"])
def test_defaults_are_pytorchs(name):
    torch = pytest.importorskip("torch", reason="parity needs PyTorch")
    theirs = getattr(torch.optim, name)([torch.nn.Parameter(torch.zeros(1))])
    ours = getattr(optim, name)(Linear(1, 1))
    for option in ("lr", *ours._hyperparameters):
        if option in theirs.defaults:
            assert getattr(ours, option) == theirs.defaults[option], option
        else:
            assert option == "initial_accumulator_value"


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_bits_depend_on_neither_threads_nor_target(name, options, dtype, rng):
    size = SIZES[-1]
    start = rng.standard_normal(size).astype(dtype)
    steps = gradients(rng, size, dtype)[:2]
    before = fastrnn.get_num_threads()
    results = {}
    for isa in core.SUPPORTED:
        for n_threads in (1, 2, 7):
            fastrnn.set_num_threads(n_threads)
            with core.use_isa(isa):
                results[isa, n_threads] = run(name, options, start, steps)[-1]
    fastrnn.set_num_threads(before)
    want = results["baseline", 1]
    for key, got in results.items():
        assert got.tobytes() == want.tobytes(), key


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_state_dict_resumes_to_the_bit(name, options, dtype, rng, tmp_path):
    start = rng.standard_normal(67).astype(dtype)
    steps = gradients(rng, 67, dtype)
    unbroken = run(name, options, start, steps)
    model = flat_model(67, dtype, start)
    first = getattr(optim, name)(model, **options)
    for grad in steps[:4]:
        model.flat_grads[:] = grad
        first.step()
    safetensors.numpy.save_file(first.state_dict(), tmp_path / "state.safetensors")

    structure = {k: v for k, v in options.items() if k in ("amsgrad", "centered")}
    if "momentum" in options:
        structure["momentum"] = 0.123
    second = getattr(optim, name)(model, lr=77, **structure)
    second.load_state_dict(safetensors.numpy.load_file(tmp_path / "state.safetensors"))
    assert second.n_steps == 4
    assert second.lr == first.lr
    for grad in steps[4:]:
        model.flat_grads[:] = grad
        second.step()
    np.testing.assert_array_equal(model.flat_parameters, unbroken[-1])


def test_state_dict_is_a_copy():
    model = flat_model(3, "float32", 1)
    optimizer = optim.Adam(model)
    optimizer.state_dict()["exp_avg"][:] = 9
    assert optimizer.state_dict()["exp_avg"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"exp_avg": None}, ValueError, r"lacks \['exp_avg'\] and has \[\]"),
        ({"more": np.zeros(3)}, ValueError, r"has \['more'\]"),
        ({"exp_avg": np.zeros(4)}, ValueError, r"exp_avg must have .* got \(4,\)"),
        ({"exp_avg": np.array(["a"] * 3)}, TypeError, "exp_avg must be numbers"),
        ({"step": np.array(-1)}, ValueError, "step must be >= 0, got -1"),
        ({"step": np.array(1.5)}, TypeError, "step must be an integer, got 1.5"),
        ({"lr": np.array(np.nan)}, ValueError, r"lr must be a number in \[0, inf\)"),
        ({"betas": np.array([0.5, 1.0])}, ValueError, r"betas\[1\] must be"),
    ],
)
def test_load_state_dict_refuses_and_changes_nothing(change, error, message):
    optimizer = optim.Adam(flat_model(3, "float64", 1))
    optimizer.model.flat_grads[:] = 1
    optimizer.step()
    before = optimizer.state_dict()
    state = {k: v + 1 if k == "exp_avg_sq" else v for k, v in before.items()} | change
    state = {name: value for name, value in state.items() if value is not None}
    with pytest.raises(error, match=message):
        optimizer.load_state_dict(state)
    for name, value in optimizer.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("SGD", {"lr": -0.1}, r"SGD: lr must be a number in \[0, inf\), got -0.1"),
        ("SGD", {"momentum": -1}, "SGD: momentum must be"),
        ("SGD", {"weight_decay": float("nan")}, "SGD: weight_decay must be"),
        ("SGD", {"nesterov": True}, r"SGD: nesterov needs momentum > 0 .* got 0 and 0"),
        ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 1}, "got 0.9 and 1"),
        ("RMSprop", {"alpha": -1}, r"RMSprop: alpha must be a number in \[0, 1\]"),
        ("RMSprop", {"eps": -1}, "RMSprop: eps must be"),
        ("Adagrad", {"lr_decay": -1}, "Adagrad: lr_decay must be"),
        ("Adagrad", {"initial_accumulator_value": -1}, "Adagrad: initial_accum"),
        (
            "Adam",
            {"betas": (1.0, 0.9)},
            r"betas\[0\] must be .*\[0, 1\), got 1.0",
        ),
        ("Adam", {"betas": (0.9, -0.1)}, r"Adam: betas\[1\] must be"),
        ("Adam", {"betas": 0.9}, "Adam: betas must be two numbers, got 0.9"),
        ("AdamW", {"lr": float("inf")}, "AdamW: lr must be"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(optim, name)(Linear(2, 2), **options)


def test_wrong_types_are_refused():
    with pytest.raises(TypeError, match="Adam: model must be a Module, got list"):
        optim.Adam([np.zeros(3)])
    with pytest.raises(TypeError, match="Adam: amsgrad must be True or False, got 1"):
        optim.Adam(Linear(2, 2), amsgrad=1)
    with pytest.raises(TypeError, match="SGD: lr must be a number"):
        optim.SGD(Linear(2, 2), lr="fast")
    with pytest.raises(ValueError, match="SGD: model must have parameters, got none"):
        optim.SGD(fastrnn.nn.module.Module())


def test_learning_rate_can_be_set():
    model = flat_model(3, "float64", 1)
    optimizer = optim.SGD(model, lr=0.5)
    optimizer.lr = 0.25
    model.flat_grads[:] = 2
    optimizer.step()
    assert model.flat_parameters.tolist() == [0.5] * 3
    with pytest.raises(ValueError, match="SGD: lr must be"):
        optimizer.lr = -1
    assert optimizer.lr == 0.25
    optimizer.zero_grad()
    assert model.flat_grads.tolist() == [0] * 3


@pytest.mark.parametrize(
    ("name", "option", "value", "kept"),
    [
        ("SGD", "momentum", 0.9, "momentum_buffer"),
        ("RMSprop", "momentum", 0.9, "momentum_buffer"),
        ("RMSprop", "centered", True, "grad_avg"),
        ("Adam", "amsgrad", True, "max_exp_avg_sq"),
        ("AdamW", "amsgrad", True, "max_exp_avg_sq"),
    ],
)
class TestAnOptionThatNeedsAnArray:
    def test_set_too_late_is_refused(self, name, option, value, kept):
        model = flat_model(3, "float64", 1)
        model.flat_grads[:] = 2
        optimizer = getattr(optim, name)(model)
        setattr(optimizer, option, value)
        message = rf"^{name}\.step: {option} was set to {value}, .* no {kept}; make"
        with pytest.raises(ValueError, match=message):
            optimizer.step()
        assert optimizer.n_steps == 0
        assert model.flat_parameters.tolist() == [1] * 3
        setattr(optimizer, option, 0 if option == "momentum" else False)
        optimizer.step()
        assert optimizer.n_steps == 1

    def test_off_and_on_again_is_as_in_pytorch(self, name, option, value, kept, rng):
        torch = pytest.importorskip("torch", reason="parity needs PyTorch")
        start, steps = rng.standard_normal(67), gradients(rng, 67, "float64")
        model = flat_model(67, "float64", start)
        parameter = torch.nn.Parameter(torch.tensor(start))
        options = {option: value, **({"dampening": 0.3} if name == "SGD" else {})}
        ours = getattr(optim, name)(model, lr=0.1, **options)
        theirs = getattr(torch.optim, name)([parameter], lr=0.1, **options)
        off = 0 if option == "momentum" else False
        path, want = [], []
        for t, grad in enumerate(steps):
            now = off if t in (3, 4) else value
            setattr(ours, option, now)
            theirs.param_groups[0][option] = now
            model.flat_grads[:] = grad
            parameter.grad = torch.tensor(grad)
            ours.step()
            theirs.step()
            path.append(model.flat_parameters.copy())
            want.append(parameter.detach().numpy().copy())
        assert_path(np.array(path), np.array(want), start, "float64")


def test_hyperparameters_are_checked_when_they_are_set():
    optimizer = optim.Adam(flat_model(3, "float32", 1))
    for name, value, error in [
        ("eps", -1, ValueError),
        ("betas", 0.9, ValueError),
        ("betas", (0.9, 1), ValueError),
        ("amsgrad", 1, TypeError),
        ("weight_decay", "0", TypeError),
    ]:
        before = getattr(optimizer, name)
        with pytest.raises(error, match=rf"^Adam: {name}"):
            setattr(optimizer, name, value)
        assert getattr(optimizer, name) == before
    optimizer.betas = [0.5, 0.25]
    assert optimizer.betas == (0.5, 0.25)


def test_nesterov_set_without_momentum_is_refused_by_step():
    optimizer = optim.SGD(flat_model(3, "float32", 1))
    optimizer.nesterov = True
    with pytest.raises(ValueError, match=r"^SGD\.step: nesterov needs momentum > 0"):
        optimizer.step()
    assert optimizer.n_steps == 0


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_step_refuses_a_model_that_has_grown(name):
    model = fastrnn.nn.module.Module()
    model.first = Linear(2, 2)
    optimizer = getattr(optim, name)(model)
    model.second = Linear(2, 2)
    before = model.flat_parameters.copy()
    with pytest.raises(ValueError, match=rf"{name}.step: .* has 12 .* had 6"):
        optimizer.step()
    assert optimizer.n_steps == 0
    np.testing.assert_array_equal(model.flat_parameters, before)


def test_nan_gradients_reach_only_their_own_parameters(isa, dtype):
    for name, options in CASES:
        model = flat_model(5, dtype, 1)
        model.flat_grads[:] = 1, np.nan, 1, 1, 1
        getattr(optim, name)(model, **options).step()
        assert np.isnan(model.flat_parameters).tolist() == [0, 1, 0, 0, 0], name
