# SPDX-License-Identifier: BSD-3-Clause
"""Values and all gradients against PyTorch, over options and input forms.

Every three of the options and forms meet in some case; with FASTRNN_EXHAUSTIVE=1 every
combination is a case (4000 of them, a minute or two).
"""

import itertools
import os

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import tolerances  # noqa: E402
import twins  # noqa: E402
from covering import covering  # noqa: E402
from twins import B, H, I, T  # noqa: E402

import fastrnn.torch  # noqa: E402

FACTORS = {
    "kind": (*twins.KINDS, "projected"),
    "dtype": ("float32", "float64"),
    "layers, dropout": ((1, 0.0), (2, 0.0), (2, 0.4), (3, 0.0), (3, 0.4)),
    "bidirectional": (False, True),
    "batch_first": (False, True),
    "bias": (True, False),
    "form": ("batched", "unbatched", "packed", "packed unsorted", "packed one"),
    "with_hx": (False, True),
}
CASES = list(itertools.product(*FACTORS.values()))
if os.environ.get("FASTRNN_EXHAUSTIVE") != "1":
    CASES = [CASES[k] for k in covering(CASES, strength=3)]


def arguments(rng, kind, form, batch_first, n_cells, dtype):
    """x and states as the form wants them."""
    rows = 1 if form == "packed one" else B
    lead = (rows, T) if batch_first else (T, rows)
    x = twins.draw(rng, *(T,) if form == "unbatched" else lead, I, dtype=dtype)
    outer = (n_cells,) if form == "unbatched" else (n_cells, rows)
    widths = {"LSTM": (H, H), "projected": (twins.P, H)}.get(kind, (H,))
    return x, [twins.draw(rng, *outer, width, dtype=dtype) for width in widths]


def everything(module, form, x, states, gradients, with_hx):
    """Outputs and gradients of one call, from the same random numbers."""
    x, *states = twins.leaves([x, *states])
    input = x
    if form.startswith("packed"):
        input = twins.packed(x, form, module.batch_first)
    hx = None
    if with_hx:
        hx = tuple(states) if len(states) == 2 else states[0]
    torch.manual_seed(3)
    outputs = twins.flat(module(input, hx))
    if gradients is None:
        return [output.detach() for output in outputs]
    torch.autograd.backward(outputs, gradients)
    d_inputs = [leaf.grad for leaf in (x, *states)]
    return [*outputs, *d_inputs, *[p.grad for p in module.parameters()]]


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize(
    (
        "kind",
        "dtype",
        "depth",
        "bidirectional",
        "batch_first",
        "bias",
        "form",
        "with_hx",
    ),
    CASES,
)
def test_values_and_gradients(
    rng, kind, dtype, depth, bidirectional, batch_first, bias, form, with_hx
):
    real = getattr(torch, dtype)
    theirs, ours = twins.pair(
        kind,
        num_layers=depth[0],
        dropout=depth[1],
        bidirectional=bidirectional,
        batch_first=batch_first,
        bias=bias,
        dtype=real,
    )
    D = 1 + bidirectional
    gates = twins.LAYERS[kind][1]
    n_terms = tolerances.chain_terms(T, B, I, H, gates, depth[0], D, True)
    x, states = arguments(rng, kind, form, batch_first, depth[0] * D, real)
    assert fastrnn.torch.explain(ours, x).name == "fastrnn"
    shapes = [o.shape for o in everything(theirs, form, x, states, None, with_hx)]
    gradients = [twins.draw(rng, *shape, dtype=real) for shape in shapes]
    want, got = (
        everything(module, form, x, states, gradients, with_hx)
        for module in (theirs, ours)
    )
    names = ["y", "h_n", "c_n"][: 1 + len(states)]
    names += ["dx", "dh0", "dc0"][: 1 + len(states)]
    names += [name for name, _ in ours.named_parameters()]
    twins.assert_all_same(names, got, want, dtype, n_terms)
    assert got[0].stride() == want[0].stride()


def test_the_cases_cover_all_triples():
    for three in itertools.combinations(range(len(FACTORS)), 3):
        values = [list(FACTORS.values())[at] for at in three]
        met = {tuple([case[at] for at in three]) for case in CASES}
        assert met == set(itertools.product(*values))


@pytest.mark.parametrize("kind", twins.CELLS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(B, I), (I,)], ids=["batched", "unbatched"])
def test_cells(rng, kind, dtype, bias, shape):
    real = getattr(torch, dtype)
    theirs, ours = twins.pair(kind, twins.CELLS, bias=bias, dtype=real)
    n_terms = tolerances.chain_terms(1, B, I, H, twins.CELLS[kind][1], backward=True)
    n_states = 2 if kind == "LSTM" else 1
    x = twins.draw(rng, *shape, dtype=real)
    states = [twins.draw(rng, *shape[:-1], H, dtype=real) for _ in range(n_states)]
    gradients = [twins.draw(rng, *shape[:-1], H, dtype=real) for _ in states]
    names = [f"out{i}" for i in range(n_states)] + ["dx"]
    names += [f"dh{i}" for i in range(n_states)]
    names += [name for name, _ in ours.named_parameters()]
    for with_hx in (False, True):
        found = []
        for cell in (theirs, ours):
            cell.zero_grad()
            leaf, *starts = twins.leaves([x, *states])
            hx = (tuple(starts) if kind == "LSTM" else starts[0]) if with_hx else None
            outputs = twins.flat(cell(leaf, hx))
            torch.autograd.backward(outputs, gradients)
            d_inputs = [part.grad for part in (leaf, *starts)]
            d_weights = [p.grad for p in cell.parameters()]
            found.append([*outputs, *d_inputs, *d_weights])
        twins.assert_all_same(names, found[1], found[0], dtype, n_terms)


@pytest.mark.parametrize("kind", twins.KINDS)
def test_a_large_layer(rng, kind):
    """Sizes at which memory is lent, blocks, panels and both schedules are used."""
    theirs, ours = twins.pair(kind, I=65, H=200, num_layers=2)
    for steps, rows in ((30, 64), (50, 2), (31, 63)):
        x = twins.draw(rng, steps, rows, 65)
        dy = twins.draw(rng, steps, rows, 200)
        found = []
        for module in (theirs, ours):
            module.zero_grad()
            (leaf,) = twins.leaves([x])
            y, _ = module(leaf)
            y.backward(dy)
            found.append([y, leaf.grad, *[p.grad for p in module.parameters()]])
        n_terms = tolerances.chain_terms(
            steps, rows, 65, 200, twins.KINDS[kind][1], 2, 1, True
        )
        names = ["y", "dx", *[name for name, _ in ours.named_parameters()]]
        twins.assert_all_same(names, found[1], found[0], "float32", n_terms)


@pytest.mark.parametrize("kind", twins.KINDS)
def test_modules_look_like_pytorchs(kind):
    options = {"num_layers": 2, "bidirectional": True, "dropout": 0.1}
    theirs, ours = twins.pair(kind, **options)
    assert isinstance(ours, type(theirs))
    assert repr(ours) == repr(theirs)
    assert ours.extra_repr() == theirs.extra_repr()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours.flatten_parameters()
    theirs, ours = twins.pair(kind, twins.CELLS)
    assert isinstance(ours, type(theirs))
    assert repr(ours) == repr(theirs)
    theirs.load_state_dict(ours.state_dict(), strict=True)


def test_the_same_seed_gives_the_same_weights():
    for name in ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"):
        found = []
        for library in (torch.nn, fastrnn.torch):
            torch.manual_seed(5)
            found.append(list(getattr(library, name)(3, 4).parameters()))
        for theirs, ours in zip(*found, strict=True):
            assert torch.equal(theirs, ours)
