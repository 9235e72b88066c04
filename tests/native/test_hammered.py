# SPDX-License-Identifier: BSD-3-Clause
"""What several Python threads share, hammered by eight of them at once.

One layer in eval mode, its packed weights, the pools of memory and the number of
threads. On a free-threaded Python these calls run at the same moment; elsewhere they
still meet wherever a call has released the interpreter lock.
"""

import sys
import sysconfig
import threading
import time

import numpy as np
import pytest

import fastrnn
from fastrnn.native import core, memory

N_THREADS = 8
SECONDS = 0.25  # of hammering, for each test
SIZES = [(1, 1), (7, 3), (30, 2), (5, 33)]  # T, B


def hammer(work):
    """Calls work(rank, round) on all threads at once, again and again, for a while.

    Returns the number of calls; the first error of a thread is raised here.
    """
    errors, counts = [], [0] * N_THREADS
    start = threading.Barrier(N_THREADS)

    def run(rank):
        try:
            start.wait(timeout=30)
            end = time.monotonic() + SECONDS
            while not errors and time.monotonic() < end:
                work(rank, counts[rank])
                counts[rank] += 1
        except BaseException as error:  # raised again below, in pytest's thread
            errors.append(error)

    run_all(run, errors)
    assert min(counts) > 0
    return sum(counts)


def run_all(run, errors):
    """Run ``run(rank)`` on all threads, then raise the first of its `errors`."""
    threads = [threading.Thread(target=run, args=(n,)) for n in range(N_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


@pytest.fixture(params=[1, 2])
def team_size(request):
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(request.param)
    yield request.param
    fastrnn.set_num_threads(before)


@pytest.fixture(params=[fastrnn.LSTM, fastrnn.GRU])
def layer(request):
    return request.param(10, 33, num_layers=2, seed=0).eval()


@pytest.fixture
def inputs(rng):
    return [rng.standard_normal((T, B, 10), dtype="float32") for T, B in SIZES]


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="for free-threaded Python"
)
def test_free_threaded_python_stays_free_threaded():
    """A module that does not say that it can do without it brings the lock back."""
    assert not sys._is_gil_enabled()


def test_one_layer(team_size, layer, inputs):
    want = [layer(x)[0].tobytes() for x in inputs]

    def work(rank, n):
        k = (rank + n) % len(inputs)
        assert layer(inputs[k])[0].tobytes() == want[k]

    hammer(work)


def test_one_layer_whose_weights_are_packed_anew(team_size, layer, inputs):
    """All threads find new weights at the same moment, and none packs half of them."""
    choices, want = [], []
    for n in range(2):
        layer.flat_parameters[:] += 0.125 * n
        choices.append(layer.flat_parameters.copy())
        want.append(layer(inputs[1])[0].tobytes())
    assert want[0] != want[1]
    now = [0]

    def change():
        now[0] = 1 - now[0]
        layer.flat_parameters[:] = choices[now[0]]

    change()
    together = threading.Barrier(N_THREADS, action=change, timeout=30)
    apart = threading.Barrier(N_THREADS, timeout=30)
    errors, rounds = [], 100

    def run(rank):
        try:
            for _ in range(rounds):
                together.wait()
                assert layer(inputs[1])[0].tobytes() == want[now[0]]
                apart.wait()  # nobody changes weights that a call reads
        except BaseException as error:
            errors.append(error)
            together.abort()
            apart.abort()

    run_all(run, errors)


def test_layers_that_train_and_streams(team_size, inputs):
    """Each thread has its own; what they share is the pools beneath."""

    def results(layer, k):
        y, _ = layer.zero_grad() or layer(inputs[k])
        layer.backward(y)
        return y.tobytes(), layer.flat_grads.tobytes()

    layers = [fastrnn.LSTM(10, 33, seed=0) for _ in range(N_THREADS)]
    want = [results(layers[0], k) for k in range(len(inputs))]

    def work(rank, n):
        k = (rank + n) % len(inputs)
        assert results(layers[rank], k) == want[k]

    hammer(work)


def test_one_pool_lends_no_memory_twice():
    pool = memory.Pool(4)
    sizes = [64, 1000, 4096, 70000]

    def work(rank, n):
        loans = [pool.array(size, np.uint8) for size in sizes]
        for k, array in enumerate(loans):
            array[:] = 16 * k + rank
        for k, array in enumerate(loans):
            assert (array == 16 * k + rank).all()

    hammer(work)
    assert 0 <= pool.held <= 2 * N_THREADS * sum(sizes) + (1 << 20)


@pytest.mark.skipif(not core.THREADING, reason="a build without threads uses one")
def test_the_number_of_threads_changes_meanwhile(team_size, layer, inputs):
    want = [layer(x)[0].tobytes() for x in inputs]

    def work(rank, n):
        if rank == 0:
            fastrnn.set_num_threads(1 + n % 3)
            return
        k = (rank + n) % len(inputs)
        assert layer(inputs[k])[0].tobytes() == want[k]

    hammer(work)
