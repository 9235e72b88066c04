# SPDX-License-Identifier: BSD-3-Clause
"""Threads, stacks and memory that are not there: exceptions, never the end of all.

What would end the process is tried in one of its own.
"""

import os
import subprocess
import sys

import pytest

import fastrnn
from fastrnn.native import core

pytestmark = [
    pytest.mark.skipif(core.THREADING != "OpenMP", reason="about OpenMP's threads"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks into Linux's files"),
]

STEP = """
import resource, signal, sys, threading, warnings
import numpy as np
import fastrnn
from fastrnn.native import core

def memory(more):
    '''Let the process have so many bytes more; None: what it wants.'''
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    soft = resource.RLIM_INFINITY if more is None else size + more
    resource.setrlimit(resource.RLIMIT_AS, (soft, resource.RLIM_INFINITY))

def step(n_threads):
    fastrnn.set_num_threads(n_threads)
    layer = fastrnn.LSTM(64, 96, 2, bidirectional=True, seed=0)
    y, _ = layer(np.ones((30, 32, 64), "f"))
    dx, _ = layer.backward(y)
    head = fastrnn.Linear(192, 64, seed=1)
    head.backward(head(y))
    fastrnn.Adam(layer).step()
    return dx.tobytes() + layer.flat_parameters.tobytes() + head.flat_grads.tobytes()
"""


def run(code, **environment):
    """Output of a process that has to end by itself."""
    done = subprocess.run(
        [sys.executable, "-c", STEP + code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr or f"ended with {done.returncode}"
    return done.stdout


@pytest.mark.parametrize("size", ["8k", "16k", "20000B", "64k", "1m", "nonsense"])
def test_small_stacks_of_openmp_do_or_are_refused(size):
    code = """
want = step(1)
try:
    print("same" if step(4) == want else "another")
except RuntimeError as error:
    print("refused", error, step(1) == want)
"""
    found = run(code, OMP_STACKSIZE=size)
    if size in ("16k", "20000B") and found.startswith("refused"):
        assert "OMP_STACKSIZE" in found
        assert f"needs {core.STACK} bytes of stack" in found
        assert found.strip().endswith("True")
    else:
        assert found == "same\n"


@pytest.mark.parametrize("n_threads", [1, 512])
@pytest.mark.parametrize("size", [32768, 65536, 131072])
def test_python_threads_with_small_stacks_do_or_are_refused(size, n_threads):
    """A team of 512 used to want 128 KiB of its caller's stack."""
    code = f"""
def work():
    try:
        found.append(step({n_threads}))
    except RuntimeError as error:
        found.append(str(error))

found = [step(1)]
threading.stack_size({size})
thread = threading.Thread(target=work)
thread.start()
thread.join()
print("same" if found[0] == found[1] else found[1])
"""
    found = run(code)
    assert found == "same\n" or (size == 32768 and "threading.stack_size" in found)


def test_a_stack_that_is_too_small_is_refused():
    """What is left of a thread's own stack is looked at in each call."""
    code = """
import ctypes
kind = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
libc = ctypes.CDLL(None)
refusals = []

def deeper(*_):
    '''Some hundred bytes of stack for each call of qsort, until we are refused.'''
    try:
        core.prepare(1)
    except RuntimeError as error:
        refusals.append(str(error))
        return 0
    array = (ctypes.c_char * 2)()
    libc.qsort(array, 2, 1, callback)
    return 0

callback = kind(deeper)
sys.setrecursionlimit(100_000)
threading.stack_size(256 << 10)
thread = threading.Thread(target=deeper)
thread.start()
thread.join()
print(refusals[0])
"""
    found = run(code)
    assert "threading.stack_size sets what new threads get" in found


def test_threads_that_memory_cannot_hold_are_a_memory_error():
    code = """
layer = fastrnn.LSTM(64, 96, seed=0)
x = np.ones((30, 32, 64), "f")
fastrnn.set_num_threads(1)
y, _ = layer(x)
layer.flat_grads[:] = 1
fastrnn.set_num_threads(64)
memory(50 << 20)
for call in (lambda: layer(x), lambda: layer.backward(y), fastrnn.Adam(layer).step):
    try:
        call()
    except MemoryError as error:
        print(error)
memory(None)
print((layer.flat_grads == 1).all(), layer.context.spent)
layer.backward(y)
print(step(64) == step(1))
"""
    refused = "no memory to start 64 threads\n"
    assert run(code) == 3 * refused + "True False\nTrue\n"


def test_threads_that_the_system_refuses_are_a_runtime_error():
    code = """
import os
step(1)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
if os.getuid() == 0:
    os.setuid(65534)  # root may have any number
try:
    step(4)
except RuntimeError as error:
    print(error)
step(1)
"""
    assert "4 threads are more than the system lets this process start" in run(code)


def test_a_team_that_cannot_come_back_is_told_of():
    """Threads end where a call needs fewer, and there may be no memory for new ones."""
    code = """
small, large = (fastrnn.LSTM(64, H, seed=0) for H in (8, 96))
x = np.ones((30, 32, 64), "f")
fastrnn.set_num_threads(64)
want = large(x)[0].tobytes()
small(x)
memory(30 << 20)
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    print(large(x)[0].tobytes() == want)
    memory(None)
    small(x)
print(*{str(one.message).partition(" ")[2] for one in told})
"""
    lines = run(code).splitlines()
    assert lines[0] == "True"
    assert "ran on one thread: there was no memory" in lines[1]


@pytest.mark.parametrize("n_threads", [1, 3, 40])
def test_any_limit_of_memory_gives_results_or_memory_errors(n_threads):
    code = f"""
rng = np.random.default_rng({n_threads})
want = step(1)
for more in rng.integers(0, 64 << 20, 25):
    memory(int(more))
    try:
        assert step({n_threads}) == want
    except MemoryError:
        pass
memory(None)
print(step({n_threads}) == want)
"""
    assert run(code) == "True\n"


KERNELS = """
import os, re

def lowest():
    '''How far down each of OpenMP's stacks, 256 KiB of zeros at first, was written.'''
    found = {}
    with open("/proc/self/mem", "rb") as memory, open("/proc/self/maps") as maps:
        for line in maps:
            match = re.match(r"(\\w+)-(\\w+) rw-p 00000000 00:00 0\\s*$", line)
            if match is None:
                continue
            low, high = (int(end, 16) for end in match.groups())
            if (256 << 10) <= high - low <= (264 << 10):
                memory.seek(low)
                written = np.frombuffer(memory.read(high - low), np.uint8).nonzero()[0]
                if written.size:
                    found[high] = high - low - int(written[0])
    return found

def every_kernel(dtype):
    rng, n = np.random.default_rng(0), 4
    for kind, options in (
        ("RNN", {}), ("LSTM", {}), ("GRU", {}), ("GRU", {"reset_after": False}),
        ("LSTM", {"proj_size": 30, "peephole": True, "cell_clip": 3.0}),
    ):
        for T, B in ((70, 3), (20, 64)):
            layer = getattr(fastrnn, kind)(61, 77, 2, dtype=dtype, seed=0, **options)
            x = rng.standard_normal((T, B, 61))
            for lengths in None, np.sort(rng.integers(1, T, B))[::-1]:
                layer.backward(layer(x, lengths=lengths)[0])
    layer = fastrnn.Linear(301, 2003, dtype=dtype, seed=0)
    layer.backward(layer(rng.standard_normal((600, 301))))
    for optimizer in fastrnn.SGD, fastrnn.Adam, fastrnn.RMSprop, fastrnn.Adagrad:
        optimizer(layer, lr=0.1).step()
    for power in 1.0, 2.0, 3.0, np.inf:
        fastrnn.clip_grad_norm_(layer, 1.0, power)
    fastrnn.clip_grad_value_(layer, 1.0)
    table = fastrnn.Embedding(1000, 64, dtype=dtype, seed=0)
    y = table(rng.integers(0, 1000, 4000))
    table.backward(y)
    fastrnn.Dropout(0.5, seed=0)(y)
    fastrnn.cross_entropy(y, rng.integers(0, 64, 4000))
    fastrnn.mse_loss(y, y)
    core.kernels(dtype).fma_peak(n, 1000)

fastrnn.set_num_threads(4)
core.prepare(4)
before = lowest()
for dtype in ("float32", "float64"):
    every_kernel(dtype)
after = lowest()
print(len(before), max(after[stack] - before[stack] for stack in before))
"""


def test_kernels_use_little_stack(isa):
    """At most what csrc/README.md says, with room for a signal's frame."""
    stacks, most = map(int, run(KERNELS, OMP_STACKSIZE="256k", FASTRNN_ISA=isa).split())
    assert stacks >= 3
    assert 1000 < most <= core.STACK - 3000


def test_a_refused_team_changes_nothing_here():
    with pytest.raises(ValueError, match=r"n_threads must be in \[1, 1024\], got 0"):
        core.prepare(0)
    assert fastrnn.get_num_threads() >= 1
