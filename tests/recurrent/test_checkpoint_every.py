# SPDX-License-Identifier: BSD-3-Clause
"""recurrent/blocks.py: `checkpoint_every` changes memory and time, and no bit."""

import copy
import subprocess
import sys

import numpy as np
import pytest
from cells import CELLS, Case, assert_correct, assert_same_bits, data, run, run_backward

import fastrnn

T = 7
# Not dividing T, dividing it, one step, all but one, all, more than there are.
EVERY = [1, 2, 3, 6, 7, 100]
STACKS = {
    "single": {},
    "stack": {"num_layers": 3},
    "bidirectional": {"bidirectional": True},
    "both": {"num_layers": 2, "bidirectional": True},
    "no-bias": {"num_layers": 2, "bias": False},
}


def results(case, dtype, every, **options):
    """Outputs and gradients, on top of gradients that are there already."""
    layer = case.layer(dtype, checkpoint_every=every, **options)
    layer.flat_grads[:] = np.linspace(-1, 1, layer.flat_grads.size)
    outputs, gradients = run(case, dtype, layer)
    return {**outputs, **{f"d{name}": array for name, array in gradients.items()}}


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("cell", CELLS)
def test_same_bits_as_without(isa, dtype, cell, every, stack):
    case = Case(cell, T, 3, 5, 19, **stack)
    got, want = (results(case, dtype, k) for k in (every, None))
    assert_same_bits(f"every {every}:", got, want)


@pytest.mark.parametrize("n_threads", [1, 2, 3], indirect=True)
@pytest.mark.parametrize(
    "shape", [(70, 33, 5, 70), (40, 2, 20, 300), (211, 1, 9, 70)], ids=str
)
@pytest.mark.parametrize("cell", CELLS)
def test_same_bits_on_every_schedule(isa, cell, shape, n_threads):
    """Long enough for several blocks of rows in backward, in one call and in ours."""
    case = Case(cell, *shape)
    got, want = (results(case, "float32", k) for k in (31, None))
    assert_same_bits("every 31:", got, want)


@pytest.mark.parametrize("stack", ["stack", "both"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_same_dropout(dtype, stack, batch_first, rng):
    x, dy = rng.standard_normal((3, T, 5)), None
    found = []
    for every in (2, None):
        layer = fastrnn.LSTM(
            5, 6, dropout=0.4, seed=1, batch_first=batch_first, dtype=dtype,
            checkpoint_every=every, **STACKS[stack],
        )  # fmt: skip
        for _ in range(2):  # the second time with other masks
            y, (h_n, c_n) = layer(x)
            dy = np.cos(np.arange(y.size)).reshape(y.shape) if dy is None else dy
            dx, (dh_0, dc_0) = layer.backward(dy, (None, c_n))
        found.append(dict(y=y, h=h_n, c=c_n, dx=dx, dh=dh_0, dc=dc_0, **layer.grads))
    assert_same_bits("", *found)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("stack", ["stack", "both"])
@pytest.mark.parametrize("d_state", [False, True])
def test_batch_first_without_dy_and_unbatched(stack, batch_first, d_state, rng):
    x = rng.standard_normal((4, T, 5)).astype("f")
    found = []
    for every in (3, None):
        layer = fastrnn.GRU(
            5, 6, seed=1, batch_first=batch_first, checkpoint_every=every,
            **STACKS[stack],
        )  # fmt: skip
        _, h_n = layer(x)
        dx, d_h = layer.backward(None, h_n)
        y, h_n = layer(x[0])
        dx_0, d_h_0 = layer.backward(y, h_n if d_state else None)
        found.append(dict(dx=dx, d_h=d_h, dx_0=dx_0, d_h_0=d_h_0, **layer.grads))
    assert_same_bits("", *found)


@pytest.mark.parametrize("cell", CELLS)
def test_correct(dtype, cell):
    case = Case(cell, 5, 3, 4, 6, num_layers=2, bidirectional=True)
    layer = case.layer(dtype, checkpoint_every=2)
    assert_correct(case, dtype, *run(case, dtype, layer))


def test_contexts_in_any_order_and_a_setting_that_changes(rng):
    case = Case("lstm", T, 3, 5, 9, num_layers=2)
    layer, d = case.layer("float32"), data(case)
    contexts = []
    for every in (2, None, 3):
        layer.checkpoint_every = every
        layer(d.x, d.state("float32"))
        contexts.append(layer.context)
    layer.flat_parameters[:] *= 2  # backward is that of the weights that ran
    gradients = []
    for k in (1, 2, 0):
        layer.zero_grad()
        got = run_backward(layer, d.dy, d.d_state("float32"), contexts[k])
        gradients.append(got)
    assert_same_bits("every 3:", gradients[1], gradients[0])
    assert_same_bits("every 2:", gradients[2], gradients[0])


def test_threads_may_change_before_backward():
    case = Case("gru", 40, 33, 5, 70)
    before, found = fastrnn.get_num_threads(), []
    try:
        for n_threads in (1, 2):
            layer, d = case.layer("float32", checkpoint_every=7), data(case)
            fastrnn.set_num_threads(3 - n_threads)
            layer(d.x, d.state("float32"))
            fastrnn.set_num_threads(n_threads)
            found.append(run_backward(layer, d.dy, d.d_state("float32")))
    finally:
        fastrnn.set_num_threads(before)
    assert_same_bits("threads:", *found)


def test_setting():
    layer = fastrnn.LSTM(3, 4, checkpoint_every=5)
    assert layer.checkpoint_every == 5
    assert "checkpoint_every=5" in repr(layer)
    assert copy.deepcopy(layer).checkpoint_every == 5
    layer.checkpoint_every = None
    assert repr(layer) == repr(fastrnn.LSTM(3, 4))
    for value, error in ((0, ValueError), (-1, ValueError), (2.5, TypeError)):
        message = f"LSTM: checkpoint_every must be a positive integer, got {value}"
        with pytest.raises(error, match=f"^{message}$"):
            layer.checkpoint_every = value
        with pytest.raises(error, match=f"^{message}$"):
            fastrnn.LSTM(3, 4, checkpoint_every=value)
    assert layer.checkpoint_every is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize("num_layers", [1, 2])
def test_memory_does_not_grow_with_the_sequence(num_layers):
    """Peak of a step beyond x, y, their gradients and the parameters, in a process."""
    code = """if True:
        import re, sys, numpy as np, fastrnn
        def status(name):
            text = open("/proc/self/status").read()
            return int(re.search(name + r":\\s+(\\d+) kB", text)[1]) * 1024
        T, B, H, every, L = 8000, 4, 64, 90, int(sys.argv[1])
        layer = fastrnn.LSTM(H, H, L, checkpoint_every=every, seed=0)
        x, dy = np.ones((2, T, B, H), "f")
        layer.backward(layer(x[:2 * every])[0])
        open("/proc/self/clear_refs", "w").write("5")
        before = status("VmRSS")
        y, _ = layer(x)
        dx, _ = layer.backward(dy)
        print(status("VmHWM") - before - y.nbytes - dx.nbytes)
    """
    done = subprocess.run(
        [sys.executable, "-c", code, str(num_layers)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 4e6  # a tape of the whole takes 41 MB
