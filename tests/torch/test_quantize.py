# SPDX-License-Identifier: BSD-3-Clause
"""fastrnn.torch.quantize: PyTorch's models with weights of one byte or two."""

import copy
import io
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils import parametrizations, prune  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # noqa: E402

import fastrnn  # noqa: E402
import fastrnn.torch  # noqa: E402
from fastrnn.torch import QuantizedLinear, layers  # noqa: E402

FORMATS = ("int8", "bfloat16")
MODES = {
    "LSTM": (torch.nn.LSTM, {}),
    "GRU": (torch.nn.GRU, {"num_layers": 2, "bias": False}),
    "RNN": (torch.nn.RNN, {"bidirectional": True, "nonlinearity": "relu"}),
    "ours": (fastrnn.torch.LSTM, {"batch_first": True, "bidirectional": True}),
    "options": (layers.LSTM, {"peephole": True, "num_layers": 2}),
}


class Net(torch.nn.Module):
    """An embedding, layers of PyTorch's and of ours, and an output."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(20, 16)
        self.lstm = torch.nn.LSTM(16, 32, 2, batch_first=True, dropout=0.1)
        self.gru = fastrnn.torch.GRU(32, 24, batch_first=True)
        self.out = torch.nn.Linear(24, 20)

    def forward(self, indices, lengths=None):
        self.lstm.flatten_parameters()
        x = self.embed(indices)
        if lengths is not None:
            x = pack_padded_sequence(x, lengths, True, enforce_sorted=False)
        y, _ = self.gru(self.lstm(x)[0])
        if lengths is not None:
            y, _ = pad_packed_sequence(y, True)
        return self.out(y)


def net():
    torch.manual_seed(0)
    return Net().eval()


def relative(y, want):
    y, want = (np.asarray(part.detach()) for part in (y, want))
    return np.sqrt(np.mean((y - want) ** 2) / np.mean(want**2))


INDICES = torch.arange(36).view(4, 9) * 7 % 20
LENGTHS = torch.tensor([3, 9, 1, 5])


@pytest.mark.parametrize("weights", FORMATS)
@pytest.mark.parametrize("mode", MODES)
def test_a_layer_is_what_it_was_but_for_rounding(mode, weights):
    torch.manual_seed(0)
    make, options = MODES[mode]
    module = make(5, 33, **options)
    small = fastrnn.torch.quantize(module, weights)
    assert small.quantized == weights
    assert not small.training
    assert not list(small.parameters())
    x = torch.randn(7, 3, 5)
    y, state = module(x)
    got, end = small(x)
    assert not got.requires_grad
    assert relative(got, y) < 2e-2
    start = tuple(state) if isinstance(state, tuple) else state
    want, _ = module(x, start)
    assert relative(small(x, start)[0], want) < 2e-2
    assert relative(small(x[:, 0])[0], module(x[:, 0])[0]) < 2e-2
    parts = end if isinstance(end, tuple) else (end,)
    whole = state if isinstance(state, tuple) else (state,)
    assert [part.shape for part in parts] == [part.shape for part in whole]
    assert isinstance(module, make)
    assert torch.equal(module(x)[0], y)


@pytest.mark.parametrize("weights", FORMATS)
def test_bits_are_those_of_the_layer_of_numpy_arrays(weights):
    torch.manual_seed(0)
    module = torch.nn.GRU(5, 33)
    layer = fastrnn.GRU(5, 33)
    layer.load_state_dict({k: v.detach() for k, v in module.state_dict().items()})
    x = torch.randn(7, 3, 5)
    got = fastrnn.torch.quantize(module, weights)(x)[0].numpy()
    np.testing.assert_array_equal(got, layer.quantize(weights)(x.numpy())[0])
    linear = torch.nn.Linear(5, 33)
    dense = fastrnn.Linear(5, 33)
    dense.load_state_dict({k: v.detach() for k, v in linear.state_dict().items()})
    got = fastrnn.torch.quantize(linear, weights)(x).numpy()
    np.testing.assert_array_equal(got, dense.quantize(weights)(x.numpy()))


@pytest.mark.parametrize("weights", FORMATS)
def test_a_model_runs_is_copied_and_saved(weights):
    model, calls = net(), ((INDICES,), (INDICES, LENGTHS))
    small = fastrnn.torch.quantize(model, weights)
    assert [type(part).__name__ for part in small.children()] == [
        "Embedding",
        "LSTM",
        "GRU",
        "QuantizedLinear",
    ]
    for call in calls:
        assert 0 < relative(small(*call), model(*call)) < 1e-2
    want = small(INDICES)
    file = io.BytesIO()
    torch.save(small.state_dict(), file)
    for assign in (False, True):
        torch.manual_seed(1)
        other = fastrnn.torch.quantize(Net(), weights)
        assert not torch.equal(other(INDICES), want)
        file.seek(0)
        other.load_state_dict(torch.load(file), assign=assign)
        assert torch.equal(other(INDICES), want)
    for again in (copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        assert torch.equal(again(INDICES), want)
    with torch.no_grad():
        small.out.weight.zero_()
        small.lstm.bias_hh_l0.zero_()
    assert torch.equal(small(INDICES), small.out.bias.expand(4, 9, 20))
    again.double()
    again.embed.float()
    assert torch.equal(again(INDICES), want)


def test_hooks_shared_modules_and_parametrizations_are_kept():
    torch.manual_seed(0)
    linear, seen = torch.nn.Linear(5, 5), []
    model = torch.nn.Sequential(
        linear, parametrizations.weight_norm(torch.nn.Linear(5, 5)), linear
    )
    linear.register_forward_hook(lambda module, args, y: seen.append(type(module)))
    small = fastrnn.torch.quantize(model)
    assert small[0] is small[2]
    x = torch.randn(2, 5)
    assert relative(small(x), model.eval()(x)) < 2e-2
    assert seen == [QuantizedLinear] * 2 + [torch.nn.Linear] * 2


class Own(torch.nn.LSTM):
    def forward(self, x):
        return super().forward(x)[0]


class Derived(torch.nn.GRU):
    def init_hidden(self):
        return None


class OwnAttention(torch.nn.MultiheadAttention):
    """It reads the weight of its output's Linear itself."""


@pytest.mark.parametrize(
    "part",
    [
        lambda: torch.nn.LSTM(4, 4, proj_size=2),
        lambda: torch.nn.LSTM(4, 4).double(),
        lambda: Own(4, 4),
        lambda: layers.MGU(4, 4),
        lambda: layers.LayerNormLSTM(4, 4),
        lambda: torch.nn.TransformerEncoderLayer(4, 2),
        lambda: OwnAttention(4, 2),
        lambda: Derived(4, 4),
    ],
)
def test_what_has_no_kernels_stays(part):
    part = part()
    with pytest.raises(ValueError, match=r"must have a torch\.nn\.LSTM, GRU, RNN or"):
        fastrnn.torch.quantize(part)
    small = fastrnn.torch.quantize(torch.nn.ModuleList([part, torch.nn.Linear(4, 4)]))
    assert type(small[0]) is type(part)
    assert type(small[1]) is QuantizedLinear


def test_a_pruned_layer_stays():
    """A hook makes its weight anew in each call."""
    module = prune.l1_unstructured(torch.nn.Linear(4, 4), "weight", 0.5)
    with pytest.raises(ValueError, match=r"must have a torch\.nn\.LSTM"):
        fastrnn.torch.quantize(module)


def test_bad_arguments_are_refused():
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got int"):
        fastrnn.torch.quantize(3)
    with pytest.raises(ValueError, match="weights must be"):
        fastrnn.torch.quantize(net(), "int4")
    with pytest.raises(ValueError, match="weights must be"):
        QuantizedLinear(3, 4, weights="int4")
    wide = torch.nn.Linear(3, 4)
    with torch.no_grad():
        wide.weight[0] = torch.inf
    with pytest.raises(ValueError, match="weight must be finite for int8"):
        fastrnn.torch.quantize(wide)
    small = fastrnn.torch.quantize(torch.nn.Linear(3, 4))
    for x, error, match in (
        (torch.ones(2, 4), ValueError, "x must have shape"),
        (torch.ones(2, 3, dtype=torch.float64), TypeError, "not torch.float32"),
        (np.ones((2, 3)), TypeError, "no Tensor"),
    ):
        with pytest.raises(error, match=match):
            small(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert small(torch.ones(2, 3, dtype=torch.bfloat16)).dtype is torch.float32
    with pytest.raises(RuntimeError, match=r"a torch\.func transform"):
        torch.func.vmap(small)(torch.ones(2, 3))
    want = small(torch.ones(2, 3))
    own = small.weight
    for wrong, error, match in (
        (torch.zeros(1, 3, dtype=torch.int8), ValueError, "weight must have shape"),
        (torch.zeros(4, 3), TypeError, "weight is torch.float32, not torch.int8"),
    ):
        small.weight = wrong
        with pytest.raises(error, match=match):
            small(torch.ones(2, 3))
        small.weight = own
        assert torch.equal(small(torch.ones(2, 3)), want)


@pytest.mark.parametrize("weights", FORMATS)
def test_weights_of_a_call_are_not_those_of_the_module(weights):
    small = fastrnn.torch.quantize(net(), weights)
    want, before = small(INDICES), copy.deepcopy(small.state_dict())
    others = {name: torch.zeros_like(one) for name, one in small.named_buffers()}
    y = torch.func.functional_call(small, others, (INDICES,))
    assert torch.equal(y, torch.zeros_like(y))
    assert torch.equal(small(INDICES), want)
    for name, value in small.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("weights", FORMATS)
def test_a_state_dict_of_other_types_is_refused(weights):
    for module in (torch.nn.Linear(3, 4), torch.nn.LSTM(3, 4)):
        small = fastrnn.torch.quantize(module, weights)
        before = copy.deepcopy(small.state_dict())
        with pytest.raises(
            RuntimeError, match=r"must be of torch.*, got torch\.float32"
        ):
            small.load_state_dict(module.state_dict(), strict=False)
        for name, value in small.state_dict().items():
            assert torch.equal(value, before[name])


@pytest.mark.parametrize("weights", FORMATS)
def test_inference_mode(weights):
    model = net()
    want = fastrnn.torch.quantize(model, weights)(INDICES)
    with torch.inference_mode():
        small = fastrnn.torch.quantize(model, weights)
        assert torch.equal(small(INDICES), want)
        again = copy.deepcopy(small)
        again.load_state_dict(small.state_dict(), assign=True)
        assert torch.equal(again(INDICES), want)
    assert torch.equal(small(INDICES), want)
    assert torch.equal(again(INDICES), want)


def test_a_layer_without_bias_has_none_as_in_pytorch():
    small = fastrnn.torch.quantize(torch.nn.Linear(3, 4, bias=False))
    assert small.bias is None
    assert list(small.state_dict()) == ["weight", "weight_scale"]


def test_explain_knows_layers_of_our_own():
    model = torch.nn.Sequential(layers.MGU(3, 4))
    x = torch.randn(2, 3, 3)
    path = fastrnn.torch.explain(model, x)["0"]
    assert str(path) == "fastrnn: float32 on the CPU"
    path = fastrnn.torch.explain(model[0], x.double())
    assert path.reason.endswith("the input is torch.float64, not torch.float32")
    small = fastrnn.torch.quantize(torch.nn.LSTM(3, 4))
    path = fastrnn.torch.explain(small, x)
    assert path.reason == "float32 on the CPU with weights of int8"
