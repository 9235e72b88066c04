# SPDX-License-Identifier: BSD-3-Clause
"""`accelerate` of classes that derive from PyTorch's, and of parametrized copies."""

import abc
import copy
import pickle

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import twins  # noqa: E402
from torch.nn.utils import parametrizations, parametrize  # noqa: E402

import fastrnn.torch  # noqa: E402
from fastrnn.torch import accelerate, explain, restore  # noqa: E402


class Named(torch.nn.LSTM):
    """Methods, arguments and attributes of its own; the forward is PyTorch's."""

    def __init__(self, label, *args, **options):
        super().__init__(*args, **options)
        self.label = label

    def start(self, x):
        return x.new_zeros(1, x.shape[1], self.hidden_size)


class Scaled(torch.nn.GRUCell):
    """PyTorch scripts it; it does not script a class derived from a layer's."""

    @torch.jit.export
    def twice(self, x: torch.Tensor):
        return 2 * x


class Encoder(abc.ABC, torch.nn.RNNBase):
    """As pytorch-forecasting does it: a forward that goes on to `super`'s."""

    @abc.abstractmethod
    def blank(self, x): ...

    def forward(self, x, hx=None, lengths=None):
        if lengths is None:
            return super().forward(x, hx=hx)
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths)
        y, state = super().forward(packed, hx=hx)
        return torch.nn.utils.rnn.pad_packed_sequence(y)[0], state


class GRUEncoder(Encoder, torch.nn.GRU):
    def blank(self, x):
        return 0 * x


class Slotted(torch.nn.GRUCell):
    __slots__ = ("note",)


def accelerated(module):
    return accelerate(module, verbose=False)


def test_a_class_that_only_adds(rng):
    x, module = twins.draw(rng, 5, 4, 3), Named("a", 3, 6)
    want, parameters = module(x)[0], list(module.parameters())
    state = module.state_dict()
    assert accelerated(module) is module
    assert isinstance(module, (Named, fastrnn.torch.LSTM))
    assert isinstance(module, fastrnn.torch.LSTM)
    assert explain(module, x) == ("fastrnn", "float32 on the CPU")
    assert repr(module) == "Named(3, 6)"
    assert type(module).__qualname__ == Named.__qualname__
    assert (module.label, module.start(x).shape) == ("a", (1, 4, 6))
    assert all(a is b for a, b in zip(module.parameters(), parameters, strict=True))
    assert torch.allclose(module(x)[0], want, atol=1e-6)
    assert type(accelerated(Named("b", 2, 2))) is type(module)
    other = Named("c", 3, 6)
    other.load_state_dict(module.state_dict())
    module.load_state_dict(state)
    assert restore(module) is module
    assert type(module) is Named


@pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        copy.deepcopy,
        *(
            lambda m, p=p: pickle.loads(pickle.dumps(m, protocol=p))
            for p in range(pickle.HIGHEST_PROTOCOL + 1)
        ),
    ],
)
def test_copies(rng, copied):
    x, module = twins.draw(rng, 5, 4, 3), accelerated(Named("a", 3, 6))
    twin = copied(module)
    assert type(twin) is type(module)
    assert twin.label == "a"
    assert torch.equal(twin(x)[0], module(x)[0])
    assert type(restore(twin)) is Named
    assert isinstance(module, fastrnn.torch.LSTM)


def test_a_forward_that_goes_on_to_super(rng, monkeypatch):
    x, module = twins.draw(rng, 5, 4, 3), GRUEncoder(3, 6)
    lengths = torch.tensor([5, 4, 2, 1])
    want = [module(x, lengths=lengths)[0], module(x)[0]]
    accelerated(module)
    calls, forward = [], fastrnn.torch._stack.forward
    monkeypatch.setattr(
        fastrnn.torch._stack, "forward", lambda *a: calls.append(a) or forward(*a)
    )
    got = [module(x, lengths=lengths)[0], module(x)[0]]
    assert len(calls) == 2
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert explain(module, x).name == "fastrnn"


def test_a_class_with_slots(rng):
    cell, x = Slotted(3, 6), twins.draw(rng, 4, 3)
    cell.note = "n"
    want = cell(x)
    accelerated(cell)
    assert explain(cell, x).name == "fastrnn"
    assert torch.allclose(cell(x), want, atol=1e-6)
    assert cell.note == "n"
    assert type(restore(cell)) is Slotted


def left_cases():
    class Doubled(torch.nn.LSTM):
        def forward(self, input, hx=None):
            return torch.nn.LSTM.forward(self, 2 * input, hx)

    class Checked(torch.nn.LSTM):
        def check_forward_args(self, input, hidden, batch_sizes):
            raise AssertionError

    class Below(Checked):
        pass

    class Weights(torch.nn.GRU):
        @property
        def _flat_weights(self):
            return [2 * w for w in self._all]

        @_flat_weights.setter
        def _flat_weights(self, weights):
            self._all = weights

    class Bare(torch.nn.RNNBase):
        pass

    known = set()

    class Meta(type):
        def __new__(cls, name, bases, content):
            if name in known:
                raise TypeError(f"{name} is taken")
            known.add(name)
            return super().__new__(cls, name, bases, content)

    class Registered(torch.nn.GRU, metaclass=Meta):
        pass

    hooked = torch.nn.GRU(3, 6)
    hooked.forward = hooked.forward
    return [
        (Doubled(3, 6), "Doubled has a forward of its own"),
        (Checked(3, 6), "Checked has a check_forward_args of its own"),
        (Below(3, 6), "Checked has a check_forward_args of its own"),
        (Weights(3, 6), "Weights has a _flat_weights of its own"),
        (Bare("GRU", 3, 6), "Bare is a class of its own"),
        (
            Registered(3, 6),
            "Registered cannot be combined with fastrnn's: Registered is taken",
        ),
        (hooked, "its forward was set on the object"),
    ]


def test_what_is_left_and_why(capsys):
    for module, reason in left_cases():
        before = type(module)
        accelerate(module)
        assert capsys.readouterr().out == (
            f"fastrnn.torch: left the model itself: {module}: {reason}\n"
        )
        assert type(module) is before


def normalised():
    return parametrizations.weight_norm(torch.nn.GRU(3, 5), "weight_hh_l0")


def test_a_parametrized_copy_is_another_module(rng):
    """`copy.deepcopy` lets both have one class; what is done to one is its own."""
    x, first = twins.draw(rng, 4, 2, 3), normalised()
    second = accelerated(copy.deepcopy(first))
    assert isinstance(second, fastrnn.torch.GRU)
    assert not isinstance(first, fastrnn.torch.GRU)
    assert explain(first, x).name == "PyTorch"
    third = restore(copy.deepcopy(second))
    assert isinstance(second, fastrnn.torch.GRU)
    assert not isinstance(third, fastrnn.torch.GRU)
    for module in (second, third):
        assert torch.allclose(module(x)[0], first(x)[0], atol=1e-6)
        module(x)[0].sum().backward()
        assert type(module).__name__ == type(first).__name__
    parametrize.remove_parametrizations(second, "weight_hh_l0")
    assert type(second) is fastrnn.torch.GRU
    assert parametrize.is_parametrized(first)
    assert torch.allclose(first(x)[0], second(x)[0], atol=1e-6)
    parametrize.remove_parametrizations(third, "weight_hh_l0")
    assert type(third) is torch.nn.GRU


def test_parametrized_after_accelerate_and_by_a_users_class(rng):
    x = twins.draw(rng, 4, 2, 3)
    plain = accelerated(torch.nn.GRU(3, 5))
    first = parametrizations.weight_norm(plain, "weight_hh_l0")
    second = restore(copy.deepcopy(first))
    assert isinstance(first, fastrnn.torch.GRU)
    assert not isinstance(second, fastrnn.torch.GRU)
    own = parametrizations.weight_norm(Named("a", 3, 5), "weight_hh_l0")
    twin = accelerated(copy.deepcopy(own))
    assert isinstance(twin, (Named, fastrnn.torch.LSTM))
    assert explain(twin, x).name == "fastrnn"
    assert not isinstance(own, fastrnn.torch.LSTM)
    assert torch.allclose(twin(x)[0], own(x)[0], atol=1e-6)
    parametrize.remove_parametrizations(restore(twin), "weight_hh_l0")
    assert type(twin) is Named


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripts_and_compiled_code_of_a_users_class(rng):
    x, module = twins.draw(rng, 5, 4, 3), accelerated(Named("a", 3, 6))
    want = module(x)[0]
    cell = accelerated(Scaled(3, 6))
    scripted = torch.jit.script(cell)
    assert torch.equal(scripted.twice(x), 2 * x)
    assert torch.allclose(scripted(x[0]), cell(x[0]), atol=1e-6)
    assert isinstance(cell, fastrnn.torch.GRUCell)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x)[0], want, atol=1e-6)
    encoder = accelerated(GRUEncoder(3, 6))
    compiled = torch.compile(encoder, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x)[0], encoder(x)[0], atol=1e-6)
    torch._dynamo.reset()


def test_copies_of_parametrized_modules_after_patched():
    """PyTorch asks the object for its `__new__` there, not the class."""
    with fastrnn.torch.patched():
        pass
    layer = torch.nn.GRU(3, 5)
    torch.nn.utils.parametrizations.weight_norm(layer, "weight_hh_l0")
    copied = copy.deepcopy(layer)
    x = torch.ones(4, 2, 3)
    assert torch.equal(copied(x)[0], layer(x)[0])
