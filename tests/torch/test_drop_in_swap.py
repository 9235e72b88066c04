# SPDX-License-Identifier: BSD-3-Clause
"""Parameters that are replaced, swapped or converted after calls; what stays behind."""

import copy
import gc
import pickle
import threading
import weakref

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import twins  # noqa: E402
from torch.nn.utils import parametrizations  # noqa: E402

from fastrnn.torch import _weights  # noqa: E402

KINDS = {
    "layers": lambda: twins.pair("LSTM", num_layers=2),
    "cell": lambda: twins.pair("GRU", twins.CELLS),
}


@pytest.fixture(params=[False, True], ids=["assigned", "swapped"])
def swap(request):
    """Whether conversions swap tensors."""
    torch.__future__.set_swap_module_params_on_conversion(request.param)
    yield request.param
    torch.__future__.set_swap_module_params_on_conversion(False)


@pytest.fixture(params=KINDS)
def two(request):
    return KINDS[request.param]()


def x_for(module, rng, dtype=torch.float32):
    x = twins.draw(rng, 5, 4, 3, dtype=dtype)
    return x[0] if isinstance(module, torch.nn.modules.rnn.RNNCellBase) else x


def assert_same_gradients(theirs, ours, x):
    found = []
    for module in (theirs, ours):
        module.zero_grad()
        y = twins.flat(module(x))[0]
        y.square().sum().backward()
        found.append([y.detach(), *[p.grad for p in module.parameters()]])
    names = ["y", *dict(theirs.named_parameters())]
    dtype = str(x.dtype).removeprefix("torch.")
    twins.assert_all_same(names, *found[::-1], dtype, 300)


def test_conversions_between_calls(rng, two, swap):
    theirs, ours = two
    x = x_for(ours, rng)
    before = [id(p) for p in ours.parameters()]
    for dtype in (torch.float32, torch.float64, torch.float32):
        for module in two:
            module.to(dtype)
        for _ in range(2):
            assert_same_gradients(theirs, ours, x.to(dtype))
        with torch.no_grad():
            ours(x.to(dtype))
    if swap:
        assert [id(p) for p in ours.parameters()] == before
    for module in two:
        module.to_empty(device="meta")
        module.to_empty(device="cpu")
        for p in module.parameters():
            torch.nn.init.constant_(p, 0.25)
    assert_same_gradients(theirs, ours, x)


def test_swapped_by_hand(rng):
    """Of cells: PyTorch itself keeps weak references to the weights of layers."""
    theirs, ours = two = KINDS["cell"]()
    x = x_for(ours, rng)
    assert_same_gradients(theirs, ours, x)
    for module in two:
        for k, p in enumerate(module.parameters()):
            p.grad = None
            other = torch.nn.Parameter(torch.full_like(p, 0.1 * k - 0.2))
            torch.utils.swap_tensors(p, other)
    assert_same_gradients(theirs, ours, x)


def test_state_dicts_assigned(rng, two, swap):
    theirs, ours = two
    if not isinstance(ours, torch.nn.modules.rnn.RNNCellBase):
        # PyTorch itself keeps weak references to the weights of layers.
        torch.__future__.set_swap_module_params_on_conversion(False)
    x = x_for(ours, rng)
    assert_same_gradients(theirs, ours, x)
    state = {name: 2 * p.detach() for name, p in theirs.named_parameters()}
    for module in two:
        module.load_state_dict(state, assign=True)
    assert_same_gradients(theirs, ours, x)
    state = {name: -p.detach() for name, p in theirs.named_parameters()}
    for module in two:
        module.zero_grad()
        module.load_state_dict(state)
    assert_same_gradients(theirs, ours, x)


def test_parameters_that_are_views_of_one_buffer(rng, two):
    """As sharded training has them; and the buffer is written to as a whole."""
    theirs, ours = two
    x = x_for(ours, rng)
    assert_same_gradients(theirs, ours, x)
    buffers = []
    for module in two:
        names = list(dict(module.named_parameters()))
        flat = torch.cat([module.get_parameter(n).detach().flatten() for n in names])
        buffers.append(flat)
        at = 0
        for name in names:
            shape = module.get_parameter(name).shape
            view = flat[at : at + shape.numel()].view(shape)
            setattr(module, name, torch.nn.Parameter(view))
            at += shape.numel()
    for _ in range(2):
        assert_same_gradients(theirs, ours, x)
        for flat in buffers:
            flat.mul_(0.5)
    assert_same_gradients(theirs, ours, x)


def test_weight_norm_comes_and_goes(rng, two):
    theirs, ours = two
    x = x_for(ours, rng)
    name = next(n for n, _ in theirs.named_parameters() if "weight_hh" in n)
    assert_same_gradients(theirs, ours, x)
    for module in two:
        parametrizations.weight_norm(module, name)
    assert_same_gradients(theirs, ours, x)
    for module in two:
        torch.nn.utils.parametrize.remove_parametrizations(module, name)
    assert_same_gradients(theirs, ours, x)


def homes():
    """How many modules something is kept of."""
    gc.collect()
    return len(_weights._homes)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_kept_ends_with_the_module(rng, kind, compiled):
    before = homes()
    _, ours = KINDS[kind]()
    x = x_for(ours, rng)
    call = torch.compile(ours, backend="eager") if compiled else ours
    twins.flat(call(x))[0].sum().backward()
    with torch.no_grad():
        call(x)
    watched = weakref.ref(ours)
    by_pytorch = compiled and kind == "cell"  # its operators: there is nothing to keep
    assert homes() == before + (not by_pytorch)
    del ours, call
    torch.compiler.reset()
    assert homes() == before
    assert watched() is None


def test_copies_share_nothing(rng, two):
    _, ours = two
    x = x_for(ours, rng)
    want = twins.flat(ours(x))[0]
    for copied in (
        copy.deepcopy(ours),
        copy.copy(ours),
        pickle.loads(pickle.dumps(ours)),
    ):
        before = homes()
        assert torch.equal(twins.flat(copied(x))[0], want)
        assert homes() == before + 1
        assert not any("fastrnn" in repr(value) for value in vars(copied).values())
        del copied


def test_no_weak_references_to_tensors(rng, two):
    _, ours = two
    x = x_for(ours, rng)
    y = twins.flat(ours(x))[0]
    y.sum().backward()
    for tensor in (x, y, *ours.parameters()):
        others = {id(r) for r in getattr(ours, "_flat_weight_refs", ())}
        assert all(id(r) in others for r in weakref.getweakrefs(tensor))


def test_swapping_while_threads_run_others(rng):
    """Each thread has a module of its own."""
    errors = []
    x = twins.draw(rng, 5, 4, 3)
    modules = [twins.pair("GRU")[1] for _ in range(4)]
    torch.__future__.set_swap_module_params_on_conversion(True)

    def work(seed):
        ours = modules[seed]
        want = ours(x)[0].detach()
        for _ in range(10):
            dtype = ours.double()(x.double())[0].dtype
            got = ours.float()(x)[0].detach()
            if not torch.equal(got, want) or dtype != torch.float64:
                errors.append(seed)

    threads = [threading.Thread(target=work, args=[k]) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.__future__.set_swap_module_params_on_conversion(False)
    assert not errors
