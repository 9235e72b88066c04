# SPDX-License-Identifier: BSD-3-Clause
"""`accelerate`, `restore` and `patched`."""

import copy

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import twins  # noqa: E402
from torch.nn.utils import parametrizations, parametrize  # noqa: E402

import fastrnn.torch  # noqa: E402


class Own(torch.nn.LSTM):
    """A user's class."""

    def forward(self, input, hx=None):
        return torch.nn.LSTM.forward(self, 2 * input, hx)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Linear(3, 3)
        self.parts = torch.nn.ModuleDict(
            {"lstm": torch.nn.LSTM(3, 4), "gru": torch.nn.GRU(4, 5, batch_first=True)}
        )
        self.cell = torch.nn.GRUCell(5, 2)
        self.projected = torch.nn.LSTM(2, 4, proj_size=2)
        self.own = Own(2, 2)

    def forward(self, x):
        x, _ = self.parts["lstm"](self.embed(x))
        x, _ = self.parts["gru"](x)
        h = self.cell(x[-1])
        return self.own(self.projected(h)[0])[0]


REPORT = """\
fastrnn.torch: replaced parts.lstm: LSTM(3, 4)
fastrnn.torch: replaced parts.gru: GRU(4, 5, batch_first=True)
fastrnn.torch: replaced cell: GRUCell(5, 2)
fastrnn.torch: replaced projected: LSTM(2, 4, proj_size=2)
fastrnn.torch: left own: Own(2, 2): Own has a forward of its own
"""
RESTORE = f"fastrnn.torch: {fastrnn.torch.accelerate.__globals__['_RESTORE']}\n"


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
def test_an_existing_optimiser_goes_on(rng, capsys):
    model = Model()
    twin = copy.deepcopy(model)
    optimizers = [torch.optim.Adam(m.parameters(), lr=0.05) for m in (model, twin)]
    objects = list(model.modules())
    parameters = list(model.parameters())
    x = twins.draw(rng, 6, 4, 3)
    for step in range(6):
        if step == 2:
            assert fastrnn.torch.accelerate(model) is model
            assert capsys.readouterr().out == REPORT + RESTORE
            assert type(model.parts["lstm"]) is fastrnn.torch.LSTM
            assert type(model.projected) is fastrnn.torch.LSTM
        if step == 4:
            assert fastrnn.torch.restore(model) is model
            assert type(model.parts["lstm"]) is torch.nn.LSTM
            assert type(model.cell) is torch.nn.GRUCell
        for m, optimizer in zip((model, twin), optimizers, strict=True):
            optimizer.zero_grad()
            m(x).square().mean().backward()
            optimizer.step()
    # The modules and the parameters are the very same ones.
    assert all(a is b for a, b in zip(model.modules(), objects, strict=True))
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    for got, want in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(got, want, rtol=1e-3, atol=1e-5)
    assert capsys.readouterr().out == ""


def test_a_layer_alone_and_silence(capsys):
    layer = fastrnn.torch.accelerate(torch.nn.RNN(2, 3), verbose=False)
    assert type(layer) is fastrnn.torch.RNN
    assert capsys.readouterr().out == ""
    fastrnn.torch.accelerate(fastrnn.torch.restore(layer))
    assert capsys.readouterr().out == (
        "fastrnn.torch: replaced the model itself: RNN(2, 3)\n" + RESTORE
    )


@pytest.mark.parametrize("function", ["accelerate", "restore"])
def test_not_a_module(function):
    with pytest.raises(
        TypeError, match=rf"{function}: model must be a torch.nn.Module, got str"
    ):
        getattr(fastrnn.torch, function)("model")


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
@pytest.mark.parametrize("style", ["parametrization", "hook"])
@pytest.mark.parametrize("accelerated_first", [False, True])
def test_weight_norm(rng, style, accelerated_first):
    normalise = (
        parametrizations.weight_norm
        if style == "parametrization"
        else torch.nn.utils.weight_norm
    )
    theirs, ours = torch.nn.GRU(3, 5), torch.nn.GRU(3, 5)
    ours.load_state_dict(theirs.state_dict())
    normalise(theirs, "weight_hh_l0")
    if accelerated_first:
        normalise(fastrnn.torch.accelerate(ours, verbose=False), "weight_hh_l0")
    else:
        fastrnn.torch.accelerate(normalise(ours, "weight_hh_l0"), verbose=False)
    assert isinstance(ours, fastrnn.torch.GRU)
    x = twins.draw(rng, 4, 2, 3)
    assert fastrnn.torch.explain(ours, x).name == "fastrnn"
    for module in (theirs, ours):
        module(x)[0].square().sum().backward()
    assert repr(ours) == repr(theirs)
    for (name, got), (_, want) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        twins.assert_same(name, got.grad, want.grad, "float32", 200)
    assert not isinstance(fastrnn.torch.restore(ours), fastrnn.torch.GRU)
    fastrnn.torch.accelerate(ours, verbose=False)
    if style == "parametrization":
        parametrize.remove_parametrizations(ours, "weight_hh_l0")
        assert type(ours) is fastrnn.torch.GRU


def test_patched_reaches_every_name():
    from torch.nn import LSTM
    from torch.nn.modules.rnn import GRUCell

    with fastrnn.torch.patched():
        assert type(torch.nn.LSTM(3, 4)) is fastrnn.torch.LSTM
        assert type(LSTM(3, 4, num_layers=2)) is fastrnn.torch.LSTM
        assert type(GRUCell(3, 4)) is fastrnn.torch.GRUCell
        assert type(Own(3, 4)) is Own
        with fastrnn.torch.patched():
            assert type(torch.nn.RNN(3, 4, nonlinearity="relu")) is fastrnn.torch.RNN
        assert type(torch.nn.GRU(3, 4)) is fastrnn.torch.GRU
    assert type(torch.nn.LSTM(3, 4)) is torch.nn.LSTM
    assert type(copy.deepcopy(LSTM(3, 4))) is LSTM


def test_patched_ends_with_an_error():
    with pytest.raises(KeyError), fastrnn.torch.patched():
        raise KeyError
    assert type(torch.nn.LSTM(3, 4)) is torch.nn.LSTM
