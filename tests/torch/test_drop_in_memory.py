# SPDX-License-Identifier: BSD-3-Clause
"""Memory that is kept for the next call: how much, and until when."""

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import twins  # noqa: E402

import fastrnn.torch  # noqa: E402
from fastrnn.native import memory as native_memory  # noqa: E402

MiB = 1 << 20


def step(module, T, B=8):
    y, _ = module(torch.ones(T, B, module.input_size))
    y.sum().backward()


def tapes(module):
    """The pool of a module's tapes."""
    return fastrnn.torch._weights.find(
        module, fastrnn.torch._path.layers_spec(module)
    ).tapes


ALONE = """
import gc
import torch
import fastrnn.torch
from fastrnn.native import memory


def held():
    gc.collect()
    return sum(o.held for o in gc.get_objects() if type(o) is memory.Pool)


modules = [fastrnn.torch.LSTM(64, 64, 2), fastrnn.torch.GRU(64, 64)]
for T in [20, 180, 60, 200]:
    for module in modules:
        module(torch.ones(T, 8, 64))[0].sum().backward()
assert held() > 2 << 20, held()
del module
loss = modules[0](torch.ones(200, 8, 64))[0].sum()  # a graph that outlives its module
modules.clear()
loss.backward()
assert held() > 2 << 20, held()
del loss
assert held() == 0, held()
"""


def test_all_of_it_ends_with_the_last_module():
    """In a process where nobody else has any."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", ALONE], check=True)


def test_many_lengths_do_not_pile_up(rng):
    """At most twice what the longest needs, whatever came before it."""
    _, module = twins.pair("LSTM", I=64, H=64, num_layers=2)
    step(module, 200)
    alone = tapes(module).held
    for T in rng.integers(1, 200, 40):
        step(module, int(T))
        assert tapes(module).held <= 2 * alone


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
    for _ in range(3):
        loss, seen = 0, []
        for _ in range(70):
            y, _ = module(torch.ones(100, 16, 64))
            seen.append(y.grad_fn.saved_tensors[-1].data_ptr())
            loss = loss + y.sum()
        loss.backward()
        addresses.append(set(seen))
        del loss, y
    assert len(addresses[0]) == 70
    assert addresses[1] == addresses[2]


def test_memory_is_lent_as_a_buffer():
    pool = native_memory.Pool(4)
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
    pool = native_memory.Pool(100)
    for n in range(1, 40):
        pool.take(n * MiB)
        assert pool.held <= 2 * n * MiB
    for _ in range(130):
        pool.take(2 * MiB)
    assert pool.held <= 4 * MiB
