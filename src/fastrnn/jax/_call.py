# SPDX-License-Identifier: BSD-3-Clause
"""A forward or a backward of one layer, as a program of XLA calls it.

A `Call` is all that is known of it when XLA compiles: which arrays go in, in which
order, and which come out. `run` computes it on NumPy arrays; `_lower` puts it into the
program.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from fastrnn.recurrent.pure import Form, recurrence

WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

# The dtype of the words of a tape. A tape is private, and some of its words are never
# written: as integers they have no derivative, and nobody takes them for NaN.
WORD = np.dtype("uint32")


class Call(NamedTuple):
    """A forward or a backward of a layer, for one row of weights or several.

    Attributes
    ----------
    form : Form
        The cell, its sizes, options and dtype.
    direction : str
        "forward" or "backward".
    operands : tuple of str
        The names of the arrays that go in, in order. A forward has those of `WEIGHTS`
        that the form has, x, h0, c0 (LSTM), and mask where there is one; a backward has
        these, y, tape and origin where forward made them, and those of dy, dh_n, dc_n
        that are not zero.
    results : tuple of str
        The names of the arrays that come out, in order: y, h_n, c_n (LSTM), tape and
        origin (both only if a backward may follow), or dx, dh0, dc0 and "d" with the
        name of each weight, of which those that nobody wants are left out.
    groups : int or None
        None for one call. Otherwise the call is done `groups` times, and all results
        and those operands of `grouped` have a leading axis of this length.
    grouped : tuple of bool
        Whether an operand has the leading axis; those without it are for all groups.
    hold : bool
        What y shows at masked steps: the output before, or zero.
    site : Hashable or None
        Where packed weights are kept; None for a place of their own for each place in a
        program.

    Notes
    -----
    Without the leading axis x is (T, B, I), y and dy (T, B, H), states and their
    gradients (B, H), mask (T, B) of bool, all in C order. tape is (T, B, K) of `WORD`,
    its rows belong to those of the batch unless there is a mask. With a mask its words
    are in an order of their own, and origin, (B, 2) of int32, has in row b the numbers
    B and b: what vmap makes of the tapes of several calls, or takes from one, is not
    (B, 0), (B, 1), .., and backward then makes the tape again.
    """

    form: Form
    direction: str
    operands: tuple[str, ...]
    results: tuple[str, ...]
    groups: int | None = None
    grouped: tuple[bool, ...] = ()
    hold: bool = True
    site: Hashable = None

    def shapes(self, T: int, B: int) -> tuple[tuple[tuple[int, ...], np.dtype], ...]:
        """The shape and the dtype of each result, the leading axis included."""
        form, dtype = self.form, np.dtype(self.form.dtype)
        I, H = form.input_size, form.hidden_size
        found: dict[str, tuple[tuple[int, ...], np.dtype]] = {
            "y": ((T, B, H), dtype),
            "dx": ((T, B, I), dtype),
            "tape": ((T, B, tape_width(form)), WORD),
            "origin": ((B, 2), np.dtype("int32")),
        }
        found |= dict.fromkeys(("h_n", "c_n", "dh0", "dc0"), ((B, H), dtype))
        for name, shape in zip(WEIGHTS, recurrence(form).weight_shapes, strict=False):
            found["d" + name] = (shape, dtype)
        front = () if self.groups is None else (self.groups,)
        return tuple((front + found[n][0], found[n][1]) for n in self.results)


def tape_width(form: Form) -> int:
    """The number of `WORD`s that a row of a step has on the tape."""
    return recurrence(form).tape_size(1, 1) * np.dtype(form.dtype).itemsize // 4


def run(
    call: Call, operands: Sequence[np.ndarray], results: Sequence[np.ndarray]
) -> None:
    """Compute a call on NumPy arrays.

    Parameters
    ----------
    call : Call
    operands : sequence of ndarray
        Only read.
    results : sequence of ndarray
        Written.
    """
    compute = _forward if call.direction == "forward" else _backward
    if call.groups is None:
        compute(call, operands, results)
        return
    for k in range(call.groups):
        own = [
            a[k] if has else a for a, has in zip(operands, call.grouped, strict=True)
        ]
        compute(call, own, [a[k] for a in results])


def _forward(call, operands, results):
    given = dict(zip(call.operands, operands, strict=True))
    wanted = dict(zip(call.results, results, strict=True))
    tape = wanted.get("tape")
    recurrence(call.form).forward(
        [given[name] for name in WEIGHTS if name in given],
        given["x"],
        given["h0"],
        given.get("c0"),
        mask=given.get("mask"),
        hold=call.hold,
        keep="origin" in wanted or tape is not None,
        site=call.site,
        out=(wanted["y"], wanted["h_n"], wanted.get("c_n"), _floats(tape, call.form)),
    )
    if "origin" in wanted:
        wanted["origin"][:] = _origin(given["x"].shape[1])


def _backward(call, operands, results):
    given = dict(zip(call.operands, operands, strict=True))
    wanted = dict(zip(call.results, results, strict=True))
    weights = [given[name] for name in WEIGHTS if name in given]
    x, h0, c0, mask = given["x"], given["h0"], given.get("c0"), given.get("mask")
    layer = recurrence(call.form)
    options = {"mask": mask, "hold": call.hold, "site": call.site}
    tape = _floats(given.get("tape"), call.form)
    if "origin" in given and not np.array_equal(given["origin"], _origin(x.shape[1])):
        tape = layer.forward(weights, x, h0, c0, **options)[3]
    dweights = tuple(wanted.get("d" + name) for name in WEIGHTS if name in given)
    layer.backward(
        weights,
        x,
        h0,
        c0,
        given["y"],
        tape,
        given.get("dy"),
        given.get("dh_n"),
        given.get("dc_n"),
        **options,
        out=(wanted.get("dx"), wanted.get("dh0"), wanted.get("dc0"), dweights),
    )


def _floats(tape, form):
    """A tape of words as the one-dimensional array of numbers that kernels know."""
    return None if tape is None else tape.reshape(-1).view(form.dtype)


def _origin(B):
    """What origin says where the tape is that of one call of B rows, and whole."""
    return np.stack([np.full(B, B), np.arange(B)], axis=1).astype(np.int32)
