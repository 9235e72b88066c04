# SPDX-License-Identifier: BSD-3-Clause
"""csrc/kernels/parallel.h and the bitwise contract of csrc/README.md.

The same bits for any number of threads, on any target with FMA, and for a row alone or
in a batch; concurrent calls; the interpreter lock; fork.
"""

import concurrent.futures
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from cells import (
    CELLS,
    LARGE_SHAPES,
    STATES,
    Case,
    assert_same_bits,
    data,
    parts_of,
    run,
    run_backward,
    run_forward,
    state_of,
)

import fastrnn
from fastrnn.native import core
from fastrnn.recurrent import table

SHAPES = [(1, 1, 1, 1), (5, 3, 9, 17), *LARGE_SHAPES]
SHAPE_IDS = ["T{}-B{}-I{}-H{}".format(*shape) for shape in SHAPES]
FORK_LIMIT = 60  # seconds until a child that hangs is ended


@pytest.fixture
def threads():
    """`set_num_threads`, undone after the test."""
    before = fastrnn.get_num_threads()
    yield fastrnn.set_num_threads
    fastrnn.set_num_threads(before)


def all_results(case, dtype):
    outputs, gradients = run(case, dtype)
    return {**outputs, **{f"d{name}": array for name, array in gradients.items()}}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_IDS)
def test_same_bits_for_any_number_of_threads(isa, dtype, cell, shape, threads):
    case = Case(cell, *shape)
    threads(1)
    want = all_results(case, dtype)
    for n_threads in (2, 3, 7):
        threads(n_threads)
        got = all_results(case, dtype)
        assert_same_bits(f"{n_threads} threads:", got, want)


@pytest.mark.parametrize(
    ("shape", "num_layers"), [((6, 64, 30, 256), 1), ((72, 2, 30, 128), 4)]
)
def test_same_bits_on_as_many_threads_as_a_server_has(shape, num_layers, threads):
    """Rows and units cut both ways, and layers that share the threads between them."""
    case = Case("lstm", *shape, num_layers=num_layers)
    threads(1)
    want = all_results(case, "float32")
    for n_threads in (16, 60, 64):
        threads(n_threads)
        got = all_results(case, "float32")
        assert_same_bits(f"{n_threads} threads:", got, want)


@pytest.mark.parametrize("cell", CELLS)
def test_same_bits_for_stacks_on_any_number_of_threads(isa, dtype, cell, threads):
    case = Case(cell, 6, 24, 20, 96, num_layers=2, bidirectional=True)
    threads(1)
    want = all_results(case, dtype)
    for n_threads in (2, 3, 7):
        threads(n_threads)
        assert_same_bits(f"{n_threads} threads:", all_results(case, dtype), want)


def in_one(state):
    """Of an LSTM, h and c, of any widths."""
    parts = state if isinstance(state, tuple) else (state,)
    return np.concatenate([part.ravel() for part in parts])


def results_at_once(layer, x, dy, n_threads, lengths=None):
    """All results of a step and of an inference, and how many cells ran at once."""
    layer.train().zero_grad()
    y, state = layer(x, lengths=lengths)
    dx, d_state = layer.backward(dy)
    found = {"y": y, "dx": dx, "grads": layer.flat_grads.copy()}
    found |= {"state": in_one(state), "d_state": in_one(d_state)}
    y, state = layer.eval()(x, lengths=lengths)
    found |= {"inferred": y, "inferred state": in_one(state)}
    B, T = x.shape[:2] if layer.batch_first else x.shape[1::-1]
    kernels, batch_first = core.kernels(layer.dtype), layer.batch_first
    return found, layer._runtime.plan_for(kernels, n_threads, batch_first, T, B).at_once


@pytest.mark.parametrize("lengths", [None, [30, 0, 7], [30, 30, 12]])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("layer", table.classes().values())
def test_directions_run_at_once_with_the_same_bits(
    isa, dtype, layer, batch_first, lengths, threads, rng
):
    layer = layer(
        40, 70, 2, bidirectional=True, batch_first=batch_first, dtype=dtype, seed=1
    )
    x = rng.standard_normal((3, 30, 40) if batch_first else (30, 3, 40))
    dy = rng.standard_normal((*x.shape[:2], 140))
    threads(1)
    want, at_once = results_at_once(layer, x, dy, 1, lengths)
    assert at_once == 1
    for n_threads in (2, 4):
        threads(n_threads)
        got, at_once = results_at_once(layer, x, dy, n_threads, lengths)
        assert at_once == (1 if layer._cells[0].is_scan else 2)
        assert_same_bits(f"{n_threads} threads:", got, want)


@pytest.mark.parametrize("lengths", [None, [70, 0, 33], [70, 70, 12]])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(
    ("layer", "options"),
    [
        *((layer, {}) for layer in table.classes().values()),
        (fastrnn.LSTM, {"proj_size": 30, "peephole": True}),
        (fastrnn.GRU, {"reset_after": False}),
    ],
)
def test_layers_run_at_once_with_the_same_bits(
    isa, dtype, layer, options, batch_first, lengths, threads, rng
):
    """Five of them: some have to wait for others, and some for a round to end."""
    layer = layer(40, 50, 5, batch_first=batch_first, dtype=dtype, seed=1, **options)
    x = rng.standard_normal((3, 70, 40) if batch_first else (70, 3, 40))
    dy = rng.standard_normal((*x.shape[:2], options.get("proj_size", 50)))
    threads(1)
    want, at_once = results_at_once(layer, x, dy, 1, lengths)
    assert at_once == 1
    for n_threads in (2, 3, 4):
        threads(n_threads)
        got, at_once = results_at_once(layer, x, dy, n_threads, lengths)
        assert at_once == (1 if layer._cells[0].is_scan else n_threads)
        assert_same_bits(f"{n_threads} threads:", got, want)


def test_eight_layers_at_once_are_the_most(threads, rng):
    x, dy = rng.standard_normal((140, 3, 40)), rng.standard_normal((140, 3, 50))
    results = []
    for n_threads, most in ((1, 1), (16, 8)):
        threads(n_threads)
        layer = fastrnn.LSTM(40, 50, 10, seed=1)
        found, at_once = results_at_once(layer, x, dy, n_threads)
        assert at_once == most
        results.append(found)
    assert_same_bits("16 threads:", *results)


@pytest.mark.parametrize(("T", "dropout"), [(30, 0.0), (70, 0.5)])
def test_layers_take_turns_where_that_is_better(threads, rng, T, dropout):
    """When steps are few, and with dropout, which takes the output of a layer whole."""
    x, dy = rng.standard_normal((T, 3, 40)), rng.standard_normal((T, 3, 50))
    results = []
    for n_threads in (1, 2):
        threads(n_threads)
        layer = fastrnn.GRU(40, 50, 3, dropout=dropout, seed=1)
        found, at_once = results_at_once(layer, x, dy, n_threads)
        assert at_once == (2 if n_threads == 2 and T == 70 else 1)
        results.append(found)
    assert_same_bits("2 threads:", *results)


@pytest.mark.skipif(not core.THREADING, reason="a build without threads uses one")
@pytest.mark.parametrize("limit", ["1", "2", "3"])
def test_fewer_threads_come_than_were_asked_for(limit):
    """Then there may be fewer of them than calls to run at once."""
    code = """
import numpy as np, fastrnn
for layer, x in (fastrnn.LSTM(40, 50, 4, seed=1), (70, 3, 40)), (
    fastrnn.GRU(40, 50, 2, bidirectional=True, seed=1), (30, 3, 40)
):
    found = []
    for n_threads in (1, 4):
        fastrnn.set_num_threads(n_threads)
        layer.zero_grad()
        y, _ = layer(np.ones(x, "f"))
        found.append((y, *layer.backward(y)[:1], layer.flat_grads.copy()))
    for one, four in zip(*found):
        assert one.tobytes() == four.tobytes()
"""
    environment = {**os.environ, "OMP_THREAD_LIMIT": limit}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(
    not {"x86_v3", "x86_v4"} <= set(core.SUPPORTED),
    reason="needs a processor with both FMA targets of x86-64",
)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_IDS)
def test_same_bits_on_every_fma_target(dtype, cell, shape, threads):
    results = []
    for isa, n_threads in (("x86_v3", 1), ("x86_v4", 2)):
        threads(n_threads)
        with core.use_isa(isa):
            results.append(all_results(Case(cell, *shape), dtype))
    assert_same_bits("x86_v4 beside x86_v3:", *results)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("T", "B", "I", "H"), [(5, 3, 9, 17), (3, 33, 20, 70), (2, 16, 9, 530)]
)
def test_a_row_alone_has_the_bits_it_has_in_a_batch(isa, dtype, cell, T, B, I, H):
    case = Case(cell, T, B, I, H)
    d, layer = data(case), case.layer(dtype)
    names = ["y", "x"]
    names += [f"{letter}{end}" for letter in STATES[cell] for end in ("_n", "0")]

    def call(rows):
        def part(array):
            return None if array is None else array[:, rows].astype(dtype)

        def state(parts):
            return state_of([part(array) for array in parts])

        outputs = run_forward(layer, part(d.x), state(d.start))
        gradients = run_backward(layer, part(d.dy), state(d.d_end))
        results = {**outputs, **gradients}
        return {name: results[name] for name in names if name in results}

    whole = call(slice(None))
    for row in (0, B // 2, B - 1):
        alone = call(slice(row, row + 1))
        want = {name: array[:, row : row + 1] for name, array in whole.items()}
        assert_same_bits(f"row {row}:", alone, want)


@pytest.mark.parametrize("cell", CELLS)
def test_rows_do_not_depend_on_the_size_of_the_batch(isa, dtype, cell):
    """Row 0 in batches of 1 to 20: every remainder of a register tile."""
    whole = Case(cell, 3, 20, 6, 13)
    d, layer = data(whole), whole.layer(dtype).eval()
    x = d.x.astype(dtype)
    want = layer(x, None)[0]
    for B in range(1, 20):
        got = layer(x[:, :B], None)[0]
        assert_same_bits(f"B = {B}:", {"y": got}, {"y": want[:, :B]})


@pytest.mark.parametrize("n_inner", [1, 2])
def test_separate_layers_in_concurrent_python_threads(threads, n_inner):
    threads(n_inner)
    cases = [Case(cell, 9, 12, 10, 33, num_layers=2) for cell in CELLS]
    want = {case: all_results(case, "float32") for case in cases}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        jobs = [(case, pool.submit(all_results, case, "float32")) for case in cases * 5]
        for case, job in jobs:
            assert_same_bits(case.cell, job.result(timeout=60), want[case])


@pytest.mark.parametrize("cell", CELLS)
def test_one_layer_in_concurrent_python_threads(threads, cell):
    """In eval mode a layer holds nothing of a call."""
    threads(1)
    cases = [Case(cell, T, B, 10, 33) for T, B in [(5, 7), (9, 2), (30, 16), (2, 40)]]
    layer = cases[0].layer("float32").eval()

    def call(case):
        d = data(case)
        return run_forward(layer, d.x.astype("float32"), d.state("float32"))

    want = {case: call(case) for case in cases}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        jobs = [(case, pool.submit(call, case)) for case in cases * 20]
        for case, job in jobs:
            assert_same_bits(repr(case), job.result(timeout=60), want[case])


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_interpreter_lock_is_released(threads, direction):
    """Another Python thread keeps running during a call."""
    threads(1)
    layer = fastrnn.LSTM(128, 256, seed=0)
    x = np.random.default_rng(0).standard_normal((120, 32, 128), dtype="float32")
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.wait(0.001):
            ticks.append(time.perf_counter())

    def longest_silence():
        """Of the other thread during one call, as a share of the call."""
        y, _ = layer(x)
        begin = time.perf_counter()
        layer(x) if direction == "forward" else layer.backward(y)
        end = time.perf_counter()
        inside = [begin, *(t for t in ticks if begin < t < end), end]
        return np.diff(inside).max() / (end - begin)

    ticker = threading.Thread(target=tick)
    ticker.start()
    # A busy machine may stop the other thread as well: one good call of ten is proof.
    try:
        shares = [longest_silence() for _ in range(10)]
    finally:
        stop.set()
        ticker.join()
    assert min(shares) < 0.5, shares


@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_processor_keeps_subnormal_numbers_after_a_call(threads, n_threads):
    """The kernels flush them to zero, NumPy must not do so afterwards."""
    threads(n_threads)
    all_results(Case("lstm", 20, 33, 5, 70), "float32")
    smallest = np.nextafter(np.zeros(100, "float32"), np.float32(1))
    assert (smallest * np.float32(2) > 0).all()
    assert (smallest + smallest > 0).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.skipif(not core.THREADING, reason="a build without threads has no pool")
@pytest.mark.parametrize("cell", CELLS)
def test_a_forked_child_works_after_the_parent_used_threads(threads, cell):
    """On one thread: GNU OpenMP's pool does not survive the fork."""
    case = Case(cell, 8, 16, 20, 64)
    threads(2)
    want = all_results(case, "float32")
    with warnings.catch_warnings():
        # Python 3.12+ warns of every fork beside threads; this one is the test's point.
        warnings.filterwarnings(
            "ignore", ".*multi-threaded, use of fork", DeprecationWarning
        )
        child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(FORK_LIMIT)  # a child that hangs is killed by its own clock
            assert fastrnn.get_num_threads() == 1
            with pytest.raises(RuntimeError, match=r"set_num_threads: .*'spawn'"):
                fastrnn.set_num_threads(2)
            assert_same_bits("child:", all_results(case, "float32"), want)
            status = 0
        finally:
            os._exit(status)  # never back into pytest
    _, status = os.waitpid(child, 0)
    assert not os.WIFSIGNALED(status), f"child ended by signal {os.WTERMSIG(status)}"
    assert os.WEXITSTATUS(status) == 0
    # And the parent still does.
    assert_same_bits("parent:", all_results(case, "float32"), want)


@pytest.mark.skipif(not core.THREADING, reason="a build without threads uses one")
@pytest.mark.parametrize(("setting", "want"), [("3", 3), (" 5 ,2", 5)])
def test_omp_num_threads_is_the_default(setting, want):
    code = "import fastrnn; print(fastrnn.get_num_threads())"
    environment = {**os.environ, "OMP_NUM_THREADS": setting}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True
    )
    assert int(done.stdout) == want


@pytest.mark.skipif(not core.THREADING, reason="a build without threads uses one")
@pytest.mark.parametrize("binding", ["OMP_PROC_BIND=true", "OMP_PLACES=cores"])
def test_threads_that_openmp_binds_are_as_many_as_others(binding):
    code = "import fastrnn; print(fastrnn.get_num_threads())"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
    name, _, value = binding.partition("=")
    found = [
        subprocess.run(
            [sys.executable, "-c", code], env=one, capture_output=True, check=True
        ).stdout
        for one in (environment, {**environment, name: value})
    ]
    assert found[0] == found[1]


def test_set_num_threads(threads):
    threads(3)
    assert fastrnn.get_num_threads() == (3 if core.THREADING else 1)


@pytest.mark.parametrize("n_threads", [0, 1.5, "2", None, True])
def test_set_num_threads_refuses(threads, n_threads):
    before = fastrnn.get_num_threads()
    error = ValueError if n_threads == 0 else TypeError
    with pytest.raises(error, match=r"set_num_threads.*got") as caught:
        threads(n_threads)
    assert repr(n_threads) in str(caught.value)
    assert fastrnn.get_num_threads() == before


def test_more_threads_than_anybody_has_are_refused():
    before = fastrnn.get_num_threads()
    message = "set_num_threads: n must be at most 1024, got 1025"
    with pytest.raises(ValueError, match=f"^{message}$"):
        fastrnn.set_num_threads(1025)
    assert fastrnn.get_num_threads() == before


@pytest.mark.parametrize("kind", table.classes().values())
def test_a_state_may_be_overwritten_before_backward(kind, rng):
    layer = kind(3, 5, dtype="float64", seed=0)
    x, state = rng.standard_normal((4, 2, 3)), np.abs(rng.standard_normal((4, 1, 2, 5)))
    hx = state_of([part.copy() for part in state[: layer._states]])
    dy = rng.standard_normal((4, 2, 5))
    layer(x, hx)
    expected, _ = layer.backward(dy)
    layer(x, hx)
    for part in parts_of(hx):
        part.fill(np.nan)
    dx, _ = layer.backward(dy)
    np.testing.assert_array_equal(dx, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_locks_held_at_a_fork_are_open_in_the_child():
    layer = fastrnn.GRU(3, 5, seed=0).eval()
    x = np.ones((4, 2, 3), "f")
    layer(x)
    layer.flat_parameters[:] *= 2  # to be packed again, which takes the lock
    with layer._runtime.packed_weights._lock, warnings.catch_warnings():
        # Python 3.12 warns of any fork while there are threads; this child execs none.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # a deadlock ends the child
            layer(x)
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_backward_in_a_forked_child_of_a_forward_on_several_threads(threads):
    """It goes on with one thread, which is all that the child may use."""
    case = Case("lstm", 8, 16, 20, 64, num_layers=2)
    d, layer = data(case), case.layer("float32")
    threads(2)
    run_forward(layer, d.x.astype("f"), d.state("f"))
    want = run_backward(layer, d.dy.astype("f"), d.d_state("f"))
    layer.zero_grad()
    run_forward(layer, d.x.astype("f"), d.state("f"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(FORK_LIMIT)
            got = run_backward(layer, d.dy.astype("f"), d.d_state("f"))
            assert_same_bits("child:", got, want)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
