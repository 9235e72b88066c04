# SPDX-License-Identifier: BSD-3-Clause
"""csrc/dispatch.c and _core: which target runs, FASTRNN_ISA, what calls refuse."""

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import fastrnn
from fastrnn.native import core


def python(code, **environment):
    """Run `code` in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def tables_of(name):
    """The target that each table of kernels is of, where `name` is active.

    x86_v4_bf16 has one for products of bfloat16 alone.
    """
    plain = "x86_v4" if name == "x86_v4_bf16" else name
    return [plain, plain, name]


@pytest.mark.parametrize("name", core.SUPPORTED)
def test_fastrnn_isa_forces_a_target(name):
    code = (
        "import fastrnn; from fastrnn.native import core;"
        "print(core.active_target(), *[core.kernels(dtype).target"
        " for dtype in ('float32', 'float64', 'bfloat16')])"
    )
    done = python(code, FASTRNN_ISA=name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [name, *tables_of(name)]


@pytest.mark.parametrize("name", ["", None])
def test_without_fastrnn_isa_the_best_target_runs(name, monkeypatch):
    """The first one, but for pairs of bfloat16 that a processor adds slowly."""
    monkeypatch.delenv("FASTRNN_ISA", raising=False)
    environment = {} if name is None else {"FASTRNN_ISA": name}
    done = python(
        "from fastrnn.native import core; print(core.active_target())", **environment
    )
    best = core.SUPPORTED[0]
    assert done.stdout.split() in ([best], [tables_of(best)[0]])


def test_impossible_fastrnn_isa_is_an_import_error():
    done = python("import fastrnn", FASTRNN_ISA="x86_v9")
    assert done.returncode == 1
    valid = ", ".join(core.SUPPORTED)
    message = (
        f"ImportError: FASTRNN_ISA='x86_v9': not a built target; valid here: {valid}"
    )
    assert done.stderr.splitlines()[-1] == message


def test_supported_targets_are_built_ones_in_order():
    assert [name for name in core.BUILT if name in core.SUPPORTED] == list(
        core.SUPPORTED
    )
    assert core.SUPPORTED[-1] == "baseline"


def test_use_isa_switches_and_restores(dtype):
    before = core.active_target()
    for name in core.SUPPORTED:
        with core.use_isa(name):
            assert core.active_target() == name
            kernels = core.kernels(dtype)
            assert (kernels.target, kernels.dtype) == (tables_of(name)[0], dtype)
            assert kernels.lanes * np.dtype(dtype).itemsize in (16, 32, 64)
        assert core.active_target() == before


def test_use_isa_restores_after_an_error_and_refuses_a_wrong_name():
    before = core.active_target()
    with pytest.raises(ZeroDivisionError), core.use_isa(core.SUPPORTED[-1]):
        _ = 1 / 0
    assert core.active_target() == before
    with (
        pytest.raises(ValueError, match=r"use_isa: name must be one of .*got 'mmx'"),
        core.use_isa("mmx"),
    ):
        pass


def test_show_config_prints_what_a_bug_report_needs(capsys):
    assert fastrnn.show_config() is None
    text = capsys.readouterr().out
    for name in (fastrnn.__version__, *core.BUILT, core.COMPILER):
        assert name in text
    for word in ("built", "supported", "active", "openmp", "threads", "compiler"):
        assert word in text.lower(), f"{word} not in:\n{text}"
    lines = {line.split()[0].lower().rstrip(":"): line for line in text.splitlines()}
    assert set(core.SUPPORTED) <= set(re.split(r"[\s,:]+", lines["supported"]))
    assert core.active_target() in lines["active"]
    assert str(fastrnn.get_num_threads()) in lines["threads"]


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm is not installed")
@pytest.mark.skipif(sys.platform != "linux", reason="nm -D reads ELF")
def test_only_the_module_init_symbol_is_exported():
    done = subprocess.run(
        ["nm", "-D", "--defined-only", core.__file__],
        capture_output=True,
        text=True,
        check=True,
    )
    names = {line.split()[-1] for line in done.stdout.splitlines()}
    # Older linkers export their own section markers.
    assert names - {"_init", "_fini", "_edata", "_end", "__bss_start"} == {
        "PyInit_core"
    }


class TestArrays:
    """What every method of `Kernels` refuses, tried on the smallest one."""

    @pytest.fixture
    def activation(self, dtype):
        return core.kernels(dtype).activation

    def test_wrong_dtype(self, activation, dtype):
        other = "float64" if dtype == "float32" else "float32"
        kinds = {"float32": "f", "float64": "d"}
        message = f"must have buffer format {kinds[dtype]!r}, got {kinds[other]!r}"
        right, wrong = np.ones(4, dtype), np.ones(4, other)
        with pytest.raises(TypeError, match=f"^x {message}$"):
            activation("tanh", wrong, right)
        with pytest.raises(TypeError, match=f"^y {message}$"):
            activation("tanh", right, wrong)
        np.testing.assert_array_equal(right, np.ones(4))

    def test_other_byte_order(self, activation, dtype):
        swapped = np.ones(4, np.dtype(dtype).newbyteorder(">"))
        with pytest.raises(TypeError, match=r"^x must be aligned and in native byte"):
            activation("tanh", swapped, np.ones(4, dtype))

    @pytest.mark.parametrize("n", [0, 3, 5])
    def test_wrong_length(self, activation, dtype, n):
        y = np.full(n, 7, dtype)
        with pytest.raises(ValueError, match=f"^y must have 4 elements, got {n}$"):
            activation("tanh", np.ones(4, dtype), y)
        assert (y == 7).all()

    def test_read_only_output(self, activation, dtype):
        y = np.full(4, 7, dtype)
        y.flags.writeable = False
        with pytest.raises(ValueError, match="read-only"):
            activation("tanh", np.ones(4, dtype), y)
        assert (y == 7).all()

    def test_read_only_input_is_fine(self, activation, dtype):
        x, y = np.zeros(4, dtype), np.empty(4, dtype)
        x.flags.writeable = False
        activation("sigmoid", x, y)
        assert (y == 0.5).all()

    def test_not_contiguous(self, activation, dtype):
        with pytest.raises(ValueError, match="not C-contiguous"):
            activation("tanh", np.ones(8, dtype)[::2], np.ones(4, dtype))

    def test_not_an_array(self, activation, dtype):
        with pytest.raises(TypeError, match=r"^x must be an array, got list$"):
            activation("tanh", [1.0] * 4, np.ones(4, dtype))

    def test_nothing_outside_the_output_is_written(self, isa, dtype):
        """Guard words on both sides, for every remainder."""
        kernels = core.kernels(dtype)
        for n in range(2 * kernels.lanes + 2):
            room = np.full(n + 2 * kernels.lanes, 7, dtype)
            y = room[kernels.lanes : kernels.lanes + n]
            kernels.activation("tanh", np.ones(n, dtype), y)
            assert (y != 7).all()
            y[:] = 7
            assert (room == 7).all()
