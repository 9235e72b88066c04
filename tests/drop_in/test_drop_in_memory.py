# SPDX-License-Identifier: BSD-3-Clause
"""Memory that is kept for the next call: how much, and until when."""

import gc

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import twins  # noqa: E402

import fastrnn.torch  # noqa: E402
from fastrnn import _weights  # noqa: E402

MiB = 1 << 20


def held():
    """Bytes in pools, of tapes, scratch and packed weights."""
    gc.collect()
    pools = [o for o in gc.get_objects() if type(o) is _weights.MemoryPool]
    return sum(pool.held for pool in pools)


def step(module, T, B=8):
    y, _ = module(torch.ones(T, B, module.input_size))
    y.sum().backward()


def tapes(module):
    """The pool of a module's tapes."""
    return fastrnn.torch._weights.find(
        module, fastrnn.torch._path.layers_spec(module)
    ).packer.tapes


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_all_of_it_ends_with_the_last_module(rng, kind):
    before = held()
    modules = [twins.pair(kind, I=64, H=64, num_layers=2)[1] for _ in range(2)]
    for T in rng.integers(10, 200, 20):
        for module in modules:
            step(module, int(T))
    assert held() > before + MiB
    pool = tapes(modules[0])
    assert tapes(modules[1]) is pool
    del modules, module, pool
    assert held() <= before  # pools of tests before this one may have shrunk


def test_a_graph_that_outlives_its_module(rng):
    before = held()
    _, module = twins.pair("LSTM", I=64, H=64)
    loss = module(torch.ones(200, 8, 64))[0].sum()
    del module
    loss.backward()
    del loss
    assert held() <= before


def test_many_lengths_do_not_pile_up(rng):
    """At most twice what the longest needs, whatever came before it."""
    _, module = twins.pair("LSTM", I=64, H=64, num_layers=2)
    step(module, 200)
    alone = held()
    for T in rng.integers(1, 200, 100):
        step(module, int(T))
        assert held() <= 2 * alone


def test_what_nobody_needs_any_more_goes(rng):
    _, module = twins.pair("LSTM", I=64, H=64, num_layers=2)
    step(module, 1000)
    large = tapes(module).held
    for _ in range(130):
        step(module, 100)
    assert tapes(module).held <= large / 4


def test_a_training_loop_allocates_nothing_new(rng):
    """Also one that runs many forwards before it goes back."""
    _, module = twins.pair("GRU", I=64, H=64)
    addresses = []
    for _ in range(4):
        loss, seen = 0, []
        for _ in range(70):
            y, _ = module(torch.ones(100, 16, 64))
            seen.append(y.grad_fn.saved_tensors[-1].data_ptr())
            loss = loss + y.sum()
        loss.backward()
        addresses.append(set(seen))
        del loss, y
    assert len(addresses[0]) == 70
    assert addresses[1] == addresses[2] == addresses[3]


def test_memory_is_lent_as_a_buffer():
    pool = _weights.MemoryPool(4)
    memory = pool.take(2 * MiB)
    view = memoryview(memory)
    assert (view.nbytes, view.readonly) == (2 * MiB, False)
    assert pool.held == 2 * MiB
    tensor = torch.frombuffer(memory, dtype=torch.float32)
    assert tensor.data_ptr() % 64 == 0
    del memory, view
    other = pool.take(2 * MiB)  # the first is in use still
    assert torch.frombuffer(other, dtype=torch.float32).data_ptr() != tensor.data_ptr()
    del tensor, other
    assert pool.held == 4 * MiB
    with pytest.raises(ValueError, match="take: n_bytes must be >= 0, got -1"):
        pool.take(-1)


def test_a_pool_is_bounded_by_what_was_in_use_at_once():
    pool = _weights.MemoryPool(100)
    for n in range(1, 40):
        pool.take(n * MiB)
        assert pool.held <= 2 * n * MiB
    for _ in range(130):
        pool.take(2 * MiB)
    assert pool.held <= 4 * MiB
