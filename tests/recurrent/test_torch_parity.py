# SPDX-License-Identifier: BSD-3-Clause
"""Options, weights, numbers and gradients as in torch.nn, where it is installed."""

import itertools

import cells
import gradcheck
import numpy as np
import pytest
import tolerances

import fastrnn

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

CELLS = {"tanh": ("RNN", 1), "relu": ("RNN", 1), "lstm": ("LSTM", 4), "gru": ("GRU", 3)}
T, B, I, H = 6, 5, 7, 11
GRID = list(
    itertools.product(
        (1, 3), (False, True), (False, True), (True, False), (True, False)
    )
)
GRID_IDS = [
    f"{n}layers{'-bidirectional' * bi}{'-batch_first' * bf}"
    f"{'-no_bias' * (not bias)}{'-unbatched' * (not batched)}"
    for n, bi, bf, bias, batched in GRID
]


def both(cell, dtype, **options):
    """A torch.nn layer and ours with its state dict."""
    kind, _ = CELLS[cell]
    if kind == "RNN":
        options["nonlinearity"] = cell
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = getattr(torch.nn, kind)(I, H, dtype=getattr(torch, dtype), **options)
    ours = getattr(fastrnn, kind)(I, H, dtype=dtype, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def tolerance(cell, dtype, num_layers, directions, backward):
    n_terms = tolerances.chain_terms(
        T, B, I, H, CELLS[cell][1], num_layers, directions, backward
    )
    return 2 * tolerances.relative(dtype, n_terms)  # both sides round


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("num_layers", "bidirectional", "batch_first", "bias", "batched"),
    GRID,
    ids=GRID_IDS,
)
def test_outputs_and_gradients(
    rng, cell, dtype, num_layers, bidirectional, batch_first, bias, batched
):
    theirs, ours = both(
        cell,
        dtype,
        num_layers=num_layers,
        bidirectional=bidirectional,
        batch_first=batch_first,
        bias=bias,
    )
    assert list(ours.state_dict()) == list(theirs.state_dict())
    D = 1 + bidirectional
    lead = ((B, T) if batch_first else (T, B)) if batched else (T,)
    state_shape = (num_layers * D, B, H) if batched else (num_layers * D, H)
    n_states = 2 if cell == "lstm" else 1

    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype)

    x, dy = normal(*lead, I), normal(*lead, D * H)
    states = [normal(*state_shape) for _ in range(n_states)]
    d_states = [normal(*state_shape) for _ in range(n_states)]

    # Theirs.
    leaves = [torch.tensor(a, requires_grad=True) for a in (x, *states)]
    hx = tuple(leaves[1:]) if cell == "lstm" else leaves[1]
    want_y, want_n = theirs(leaves[0], hx)
    want_n = want_n if cell == "lstm" else (want_n,)
    torch.autograd.backward(
        [want_y, *want_n], [torch.tensor(a) for a in (dy, *d_states)]
    )

    # Ours.
    hx, d_hx = (tuple(s) if cell == "lstm" else s[0] for s in (states, d_states))
    y, n = ours(x, hx)
    dx, d_first = ours.backward(dy, d_hx)
    n, d_first = (n, d_first) if cell == "lstm" else ((n,), (d_first,))

    names = ["y", "h_n", "c_n"]
    allowed = tolerance(cell, dtype, num_layers, D, backward=False)
    for name, got, want in zip(names, (y, *n), (want_y, *want_n), strict=False):
        assert got.dtype == dtype
        gradcheck.assert_close(name, got, want.detach().numpy(), allowed)
    names = ["x", "h0", "c0"][: len(leaves)]
    want = {k: leaf.grad.numpy() for k, leaf in zip(names, leaves, strict=True)}
    want |= {k: parameter.grad.numpy() for k, parameter in theirs.named_parameters()}
    got = dict(zip(names, (dx, *d_first), strict=True)) | dict(ours.grads)
    allowed = tolerance(cell, dtype, num_layers, D, backward=True)
    cells.assert_all_close("gradient", got, want, allowed)


@pytest.mark.parametrize("cell", CELLS)
def test_without_a_state(rng, cell, dtype):
    theirs, ours = both(cell, dtype, num_layers=2)
    x = rng.standard_normal((T, B, I)).astype(dtype)
    with torch.no_grad():
        want, _ = theirs(torch.tensor(x))
    allowed = tolerance(cell, dtype, 2, 1, backward=False)
    gradcheck.assert_close("y", ours(x)[0], want.numpy(), allowed)


@pytest.mark.parametrize("cell", CELLS)
def test_a_large_layer(rng, cell):
    """Sizes at which blocks, panels and both schedules are used."""
    kind, gates = CELLS[cell]
    options = {"nonlinearity": cell} if kind == "RNN" else {}
    theirs = getattr(torch.nn, kind)(65, 200, **options)
    ours = getattr(fastrnn, kind)(65, 200, **options)
    ours.load_state_dict(theirs.state_dict())
    for steps, rows in ((30, 64), (50, 2)):
        x = rng.standard_normal((steps, rows, 65), dtype="float32")
        dy = rng.standard_normal((steps, rows, 200), dtype="float32")
        theirs.zero_grad()
        ours.zero_grad()
        leaf = torch.tensor(x, requires_grad=True)
        want, _ = theirs(leaf)
        want.backward(torch.tensor(dy))
        y, _ = ours(x)
        dx, _ = ours.backward(dy)
        n_terms = tolerances.chain_terms(steps, rows, 65, 200, gates, backward=True)
        allowed = 2 * tolerances.relative("float32", n_terms)
        gradcheck.assert_close("y", y, want.detach().numpy(), allowed)
        gradcheck.assert_close("dx", dx, leaf.grad.numpy(), allowed)
        for name, parameter in theirs.named_parameters():
            want = parameter.grad.numpy()
            gradcheck.assert_close(name, ours.grads[name], want, allowed)


@pytest.mark.parametrize("cell", CELLS)
def test_state_dicts_in_files_go_both_ways(tmp_path, cell, dtype):
    torch_files = pytest.importorskip(
        "safetensors.torch", reason="safetensors lacks its torch part"
    )
    theirs, ours = both(cell, dtype, num_layers=2, bidirectional=True)
    torch_files.save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    ours.flat_parameters[:] = 0
    ours.load(tmp_path / "theirs.safetensors")
    for name, want in theirs.state_dict().items():
        np.testing.assert_array_equal(ours.parameters[name], want.numpy())
    ours.flat_parameters[:] *= 2
    ours.save(tmp_path / "ours.safetensors")
    theirs.load_state_dict(torch_files.load_file(tmp_path / "ours.safetensors"))
    for name, got in theirs.state_dict().items():
        np.testing.assert_array_equal(ours.parameters[name], got.numpy())


@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
def test_repr_is_torchs(cell):
    options = {"num_layers": 2, "batch_first": True, "bidirectional": True}
    theirs, ours = both(cell, "float32", **options)
    want = repr(theirs)
    assert repr(ours) == want
