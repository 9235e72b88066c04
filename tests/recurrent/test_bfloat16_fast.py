# SPDX-License-Identifier: BSD-3-Clause
"""`compute="bfloat16-fast"`: rounded operands, sums in the order of this processor."""

import subprocess
import sys

import half
import numpy as np
import pytest

import fastrnn
from fastrnn.native import core

FAST = core.kernels("bfloat16-fast")
needs_amx = pytest.mark.skipif(
    FAST.target != "x86_v4_amx", reason="needs a processor with AMX, and Linux's leave"
)
# Fewer and more rows than a tile register has, words that are left over, odd numbers.
SHAPES = [(5, 3, 3, 5), (9, 33, 17, 37), (2, 301, 5, 9), (5, 40, 70, 96)]
LAYERS = {
    "rnn": ("RNN", {}),
    "lstm": ("LSTM", {}),
    "gru": ("GRU", {}),
    "mingru": ("MinGRU", {}),
    "normalised": ("LSTM", {"layer_norm": True}),
    "reset before": ("GRU", {"reset_after": False}),
    "projection": ("LSTM", {"proj_size": 3}),
    "two directions": ("LSTM", {"num_layers": 2, "bidirectional": True}),
    "masks by gate": (
        "GRU",
        {"recurrent_dropout": 0.2, "recurrent_dropout_mode": "per_gate"},
    ),
}


def made(which, I, H, compute="bfloat16-fast", **more):
    cls, options = LAYERS[which]
    return getattr(fastrnn, cls)(I, H, seed=1, compute=compute, **options, **more)


def data(T, B, I):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, T + 1, B)
    lengths[0] = T
    return rng.standard_normal((T, B, I)).astype("f"), lengths


def results(layer, x, n_threads=1, **given):
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(n_threads)
    try:
        y, _ = layer(x, **given)
        y = y.copy()
        dy = np.random.default_rng(1).standard_normal(y.shape).astype("f")
        layer.zero_grad()
        dx, _ = layer.backward(dy)
        return [y, dx.copy(), layer.flat_grads.copy()]
    finally:
        fastrnn.set_num_threads(before)


def as_bytes(arrays):
    return [one.tobytes() for one in arrays]


@pytest.mark.parametrize("which", LAYERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_threads_have_the_same_bits_and_bfloat16_is_near(which, shape):
    T, B, I, H = shape
    x, lengths = data(T, B, I)
    for given in ({}, {"lengths": lengths}):
        found = [results(made(which, I, H), x, n, **given) for n in (1, 2, 7)]
        assert as_bytes(found[1]) == as_bytes(found[0])
        assert as_bytes(found[2]) == as_bytes(found[0])
        plain = results(made(which, I, H, "float32"), x, **given)
        half_way = results(made(which, I, H, "bfloat16"), x, **given)
        for fast, other, exact in zip(found[0], half_way, plain, strict=True):
            error, allowed = half.distance(fast, exact), half.distance(other, exact)
            assert error <= 1.2 * allowed + 1e-4


@pytest.mark.parametrize("cls", half.CELLS)
@pytest.mark.parametrize("sizes", [(50, 16, 64, 64), (20, 37, 51, 83)])
def test_errors_are_those_of_rounded_operands(cls, sizes):
    T, B, I, H = sizes
    layer = getattr(fastrnn, cls)(I, H, seed=1, compute="bfloat16-fast")
    x, _ = data(T, B, I)
    y, dx, _ = results(layer, x)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype("f")
    exact = half.run(cls, layer.parameters, x, dy, half.exact)
    assert 5e-4 < half.distance(y, exact["y"]) <= 4e-3
    assert half.distance(dx, exact["dx"]) <= 6e-3
    assert half.distance(layer.grads["weight_ih_l0"], exact["dW"]) <= 6e-3
    assert half.distance(layer.grads["weight_hh_l0"], exact["dR"]) <= 6e-3


@pytest.mark.parametrize("which", ["rnn", "lstm", "gru", "projection", "reset before"])
def test_a_stream_and_a_row_alone_have_the_same_bits(which):
    layer = made(which, 39, 45).eval()
    x, _ = data(6, 37, 39)
    y, _ = layer(x)
    stream = layer.stream(37)
    for x_t, y_t in zip(x, y, strict=True):
        assert stream.step(np.ascontiguousarray(x_t)).tobytes() == y_t.tobytes()
    alone, _ = layer(x[:, 20:21])
    assert alone.tobytes() == y[:, 20:21].tobytes()


def test_a_sequence_in_parts_has_the_same_bits():
    x, lengths = data(90, 3, 7)
    whole = results(made("lstm", 7, 40), x, lengths=lengths)
    parts = results(made("lstm", 7, 40, checkpoint_every=7), x, lengths=lengths)
    assert as_bytes(parts) == as_bytes(whole)


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (7, 5, 3), (601, 33, 17), (40, 700, 3), (70, 2111, 40)]
)
def test_linear(shape):
    half.check_linear(shape, "bfloat16-fast")


def test_a_number_that_is_not_finite_stays_where_it_belongs():
    layer = made("rnn", 40, 50)
    x, _ = data(4, 20, 40)
    x[1, 1, 0], x[2, 2, 37] = np.nan, np.nan
    y, _ = layer(x)
    assert np.isnan(y[1:, 1]).all()
    assert np.isnan(y[2:, 2]).all()
    y = y.copy()
    y[1:, 1] = y[2:, 2] = 0
    assert np.isfinite(y).all()


def test_compute_may_change_between_calls():
    """A pack of one table is not another's, though both are of bfloat16."""
    x, _ = data(5, 30, 70)
    layer = made("lstm", 70, 90, "bfloat16").eval()
    first = layer(x)[0].copy()
    layer.compute = "bfloat16-fast"
    fast = layer(x)[0].copy()
    assert half.distance(fast, first) < 3e-4
    layer.compute = "bfloat16"
    assert layer(x)[0].tobytes() == first.tobytes()


def test_models_and_files_keep_it(tmp_path):
    model = fastrnn.Sequential(
        fastrnn.LSTM(5, 16, return_sequences=False, seed=0),
        fastrnn.Linear(16, 3, seed=1),
    )
    model.compile("mse", compute="bfloat16-fast")
    model.save(tmp_path / "m.safetensors")
    again = fastrnn.load_model(tmp_path / "m.safetensors")
    assert [layer.compute for layer in again] == ["bfloat16-fast"] * 2
    x, _ = data(8, 4, 5)
    assert again.predict(x).tobytes() == model.predict(x).tobytes()
    with pytest.raises(ValueError, match="'bfloat16-fast' is not for heads > 1"):
        fastrnn.LSTM(4, 8, heads=2, compute="bfloat16-fast")
    with pytest.raises(ValueError, match="only float32 layers"):
        fastrnn.Linear(4, 8, dtype="float64", compute="bfloat16-fast")


@pytest.mark.parametrize("target", core.SUPPORTED)
def test_the_table_in_use_is_told(target, capsys):
    with core.use_isa(target):
        kernels = core.kernels("bfloat16-fast")
        fastrnn.show_config()
        shown = dict(
            line.split(None, 1)
            for line in capsys.readouterr().out.splitlines()
            if line.startswith("bfloat16-fast")
        )
        assert shown == {"bfloat16-fast": kernels.target}
        if kernels.target != "x86_v4_amx":
            assert kernels is core.kernels("bfloat16")
        elif target not in ("x86_v4", "x86_v4_bf16"):
            pytest.fail("a target without AVX-512 has got AMX")


@needs_amx
def test_bits_are_not_those_of_bfloat16():
    x, _ = data(3, 20, 64)
    fast, plain = (
        made("lstm", 64, 64, compute)(x)[0].copy()
        for compute in ("bfloat16-fast", "bfloat16")
    )
    assert 0 < half.distance(fast, plain) < 3e-4


def test_where_the_system_refuses_registers_bfloat16_is_used():
    """A child in which the request for AMX's registers fails computes as bfloat16."""
    code = (
        "import ctypes, signal\n"
        "stack = ctypes.create_string_buffer(4096)\n"
        "class Stack(ctypes.Structure):\n"
        "    _fields_ = [('sp', ctypes.c_void_p), ('flags', ctypes.c_int),"
        " ('size', ctypes.c_size_t)]\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "given = Stack(ctypes.addressof(stack), 0, 4096)\n"
        "assert libc.sigaltstack(ctypes.byref(given), None) == 0\n"
        "from fastrnn.native import core\n"
        "fast, plain = core.kernels('bfloat16-fast'), core.kernels('bfloat16')\n"
        "assert fast is plain, fast.target\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


SIGNALS = """
import signal, sys, threading, time
import numpy as np
import fastrnn
from fastrnn.native import core

fastrnn.set_num_threads(1)
x = np.ones((20, 64, 320), "f")
layer = fastrnn.LSTM(320, 320, seed=0, compute="bfloat16-fast")
if sys.argv[1] == "int8":
    layer = fastrnn.LSTM(320, 320, seed=0).quantize("int8")
core.kernels("bfloat16-fast")
signal.signal(signal.SIGUSR1, lambda *_: None)
told = []

def deeper():
    '''Uses stack until little more is left than a call asks for.'''
    if core.stack_left() > int(sys.argv[2]):
        return sum(map(lambda _: deeper(), [0]))
    end = time.monotonic() + 0.7
    while time.monotonic() < end and not told:
        try:
            layer(x)
        except RuntimeError as error:
            told.append(str(error))
    return 0

threading.stack_size(128 << 10)
thread = threading.Thread(target=deeper)
thread.start()
while thread.is_alive():
    signal.pthread_kill(thread.ident, signal.SIGUSR1)
    time.sleep(0.0003)
print(told[0] if told else "went through")
"""


@needs_amx
@pytest.mark.parametrize("left", [16_000, 18_500, 21_500, 25_000])
@pytest.mark.parametrize("which", ["bfloat16-fast", "int8"])
def test_signals_find_room_on_the_stack(which, left):
    """With tiles in use, Linux puts 8 KiB more there than it does without."""
    found = subprocess.run(
        [sys.executable, "-c", SIGNALS, which, str(left)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "bytes of stack" in found.stdout or found.stdout == "went through\n"
