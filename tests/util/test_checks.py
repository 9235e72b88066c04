# SPDX-License-Identifier: BSD-3-Clause
"""The rules of `checks` that no layer's own test reaches, and their messages."""

import math

import numpy as np
import pytest
from arrays import read_only

from fastrnn.util import checks

A = np.zeros((2, 3), "f")


def test_what_fits_passes():
    checks.writable("f", "array", A)
    checks.shape("f", "x", A, ("...",), (None,))
    checks.shape("f", "x", A, ("...", "I"), (None, 3))
    checks.shape("f", "x", A, ("T", "I"), (None, None))
    checks.not_empty("f", "x", A, ("T", "I"))
    assert checks.choice("f", "mode", "sum", ("mean", "sum")) == "sum"
    assert checks.real_in("f", "beta", 0, "[0, 1)") == 0
    assert checks.real_in("f", "beta", np.float32(0.5), "(0, 1)") == 0.5
    assert checks.real_in("f", "norm", math.inf, "(0, inf]") == math.inf
    assert checks.positive_int("f", "n", np.int8(3)) == 3
    assert checks.flag("f", "bias", np.bool_(True)) is True
    assert checks.dtype_name("f", np.dtype("f8")) == "float64"
    assert checks.dtype_name("f", "<f4") == "float32"


def test_conversion_makes_no_copy_without_need():
    assert checks.float_array("f", "x", A, "float32") is A
    indices = np.zeros((2, 2), np.int64)
    assert checks.integer_array("f", "x", indices) is indices
    assert checks.float_array("f", "x", A.T, "float32").flags.c_contiguous
    assert checks.float_array("f", "x", A.astype(">f4"), "float32").dtype.isnative


def test_float_dtype():
    assert checks.float_dtype(np.zeros(2)) == "float64"
    assert checks.float_dtype(np.zeros(2, ">f8")) == "float64"
    for other in (A, np.zeros(2, int), np.float16(1), [1.0], "x", None):
        assert checks.float_dtype(other) == "float32"
    torch = pytest.importorskip("torch", reason="tensors have a dtype of their own")
    assert checks.float_dtype(torch.zeros(2, dtype=torch.float64)) == "float64"
    assert checks.float_dtype(torch.zeros(2)) == "float32"


def test_generators():
    rng = np.random.default_rng(0)
    assert checks.generator("f", rng) is rng
    first = checks.generator("f", np.int64(7)).random()
    assert first == np.random.Generator(np.random.PCG64(7)).random()
    assert first == checks.generator("f", 7).random()
    assert checks.generator("f", None).random() != checks.generator("f", None).random()


MESSAGES = [
    (
        lambda: checks.writable("f", "array", [1]),
        TypeError,
        "f: array must be a numpy.ndarray, got list",
    ),
    (
        lambda: checks.writable("f", "array", np.zeros(2, int)),
        TypeError,
        "f: array must be floating, got dtype int64",
    ),
    (
        lambda: checks.writable("f", "array", read_only(A)),
        ValueError,
        "f: array must be writable, got a read-only array",
    ),
    (
        lambda: checks.not_negative("f", "patience", -1),
        ValueError,
        "f: patience must be an integer >= 0, got -1",
    ),
    (
        lambda: checks.shape("f", "h", A, ("H",), (3,)),
        ValueError,
        "f: h must have shape (H,) = (3,), got (2, 3)",
    ),
    (
        lambda: checks.shape("f", "h", A, ("T", "B", "I"), (None,) * 3),
        ValueError,
        "f: h must have shape (T, B, I), got (2, 3)",
    ),
    (
        lambda: checks.not_empty("f", "x", np.zeros((2, 0)), ("T", "B")),
        ValueError,
        "f: x must have B >= 1, got shape (2, 0)",
    ),
    (
        lambda: checks.choice("f", "mode", "max", ("mean", "sum")),
        ValueError,
        "f: mode must be one of 'mean', 'sum', got 'max'",
    ),
    (
        lambda: checks.real_in("f", "beta", 1, "[0, 1)"),
        ValueError,
        "f: beta must be a number in [0, 1), got 1",
    ),
    (
        lambda: checks.real_in("f", "lr", 0.0, "(0, inf)"),
        ValueError,
        "f: lr must be a number in (0, inf), got 0.0",
    ),
    (
        lambda: checks.real_in("f", "lr", True, "(0, inf)"),
        TypeError,
        "f: lr must be a number in (0, inf), got True",
    ),
    (
        lambda: checks.real_in("f", "lr", 1j, "(0, inf)"),
        TypeError,
        "f: lr must be a number in (0, inf), got 1j",
    ),
    (
        lambda: checks.dtype_name("f", "nonsense"),
        ValueError,
        "f: dtype must be 'float32' or 'float64', got 'nonsense'",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), MESSAGES)
def test_messages(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "value",
    [np.array(["2026-01-01"], "M8[D]"), [None], b"ab", np.zeros(2, "f,f"), {1: 2}],
    ids=["date", "object", "bytes", "record", "dict"],
)
def test_what_is_no_number(value):
    with pytest.raises(TypeError, match=r"f: x must be real numbers, got dtype "):
        checks.float_array("f", "x", value, "float32")
    with pytest.raises(TypeError, match=r"f: x must be integers, got dtype "):
        checks.integer_array("f", "x", value)
