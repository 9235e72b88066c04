# SPDX-License-Identifier: BSD-3-Clause
"""Bad input raises what PyTorch raises, word for word."""

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import twins  # noqa: E402
from torch.nn.utils.rnn import PackedSequence  # noqa: E402

import fastrnn.torch  # noqa: E402

zeros = torch.zeros
LAYER_CALLS = {
    "input 1-D": lambda kind: (zeros(3),),
    "input 4-D": lambda kind: (zeros(2, 2, 2, 3),),
    "input size": lambda kind: (zeros(5, 4, 2),),
    "no steps": lambda kind: (zeros(0, 4, 3),),
    "no rows": lambda kind: (zeros(5, 0, 3),),
    "input dtype": lambda kind: (zeros(5, 4, 3, dtype=torch.float64),),
    "input integers": lambda kind: (zeros(5, 4, 3, dtype=torch.int64),),
    "half": lambda kind: (zeros(5, 4, 3, dtype=torch.float16),),
    "hx of the wrong size": lambda kind: (zeros(5, 4, 3), state(kind, 1, 3, 6)),
    "hx unbatched": lambda kind: (zeros(5, 4, 3), state(kind, 1, 6)),
    "hx batched, input not": lambda kind: (zeros(5, 3), state(kind, 1, 1, 6)),
    "hx dtype": lambda kind: (
        zeros(5, 4, 3),
        state(kind, 1, 4, 6, dtype=torch.float64),
    ),
    "packed, wrong width": lambda kind: (packed(2),),
    "packed, hx of the wrong size": lambda kind: (packed(3), state(kind, 1, 3, 6)),
    "not a tensor": lambda kind: ([[1.0]],),
    "None": lambda kind: (None,),
    "meta": lambda kind: (zeros(5, 4, 3, device="meta"),),
}


def state(kind, *shape, **options):
    part = zeros(*shape, **options)
    return (part, part) if kind == "LSTM" else part


def packed(width):
    return PackedSequence(zeros(6, width), torch.tensor([4, 2]))


def outcome(call, *args):
    """The type and message of what a call raises, or what it returns."""
    try:
        value = call(*args)
    except Exception as error:
        return type(error), str(error)
    return [(part.shape, part.dtype) for part in twins.flat(value)]


@pytest.mark.parametrize("kind", twins.KINDS)
@pytest.mark.parametrize("case", LAYER_CALLS)
def test_layers(kind, case):
    theirs, ours = twins.pair(kind)
    args = LAYER_CALLS[case](kind)
    assert outcome(ours, *args) == outcome(theirs, *args)


CELL_CALLS = {
    "input 3-D": lambda kind: (zeros(1, 4, 3),),
    "input size": lambda kind: (zeros(4, 2),),
    "no rows": lambda kind: (zeros(0, 3),),
    "input dtype": lambda kind: (zeros(4, 3, dtype=torch.float64),),
    "hx of the wrong size": lambda kind: (zeros(4, 3), state(kind, 3, 6)),
    "hx 3-D": lambda kind: (zeros(4, 3), state(kind, 1, 4, 6)),
    "hx unbatched": lambda kind: (zeros(4, 3), state(kind, 6)),
}


@pytest.mark.parametrize("kind", twins.CELLS)
@pytest.mark.parametrize("case", CELL_CALLS)
def test_cells(kind, case):
    theirs, ours = twins.pair(kind, twins.CELLS)
    args = CELL_CALLS[case](kind)
    assert outcome(ours, *args) == outcome(theirs, *args)


CONSTRUCTORS = {
    "no size": {"input_size": 0, "hidden_size": 4},
    "bias": {"input_size": 3, "hidden_size": 4, "bias": 1},
    "dropout": {"input_size": 3, "hidden_size": 4, "dropout": 2.0},
    "layers": {"input_size": 3, "hidden_size": 4, "num_layers": 0},
    "proj": {"input_size": 3, "hidden_size": 4, "proj_size": 4},
    "unknown": {"input_size": 3, "hidden_size": 4, "peephole": True},
}


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("case", CONSTRUCTORS)
def test_constructors(name, case):
    found = []
    for library in (torch.nn, fastrnn.torch):
        with pytest.raises((TypeError, ValueError)) as caught:
            getattr(library, name)(**CONSTRUCTORS[case])
        found.append((caught.type, str(caught.value)))
    assert found[0] == found[1]


def test_weights_of_the_wrong_shape():
    found = []
    for module in twins.pair("GRU"):
        module.weight_hh_l0 = torch.nn.Parameter(zeros(6, 18))
        found.append(outcome(module, zeros(5, 4, 3)))
    assert found[0] == found[1]
    assert isinstance(found[0], tuple)
