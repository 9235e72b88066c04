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
_NO_TAPE = np.empty(0, WORD)


class Call(NamedTuple):
    """A forward or a backward of a layer, for one set of weights or for several.

    Attributes
    ----------
    form : Form
        The cell, its sizes, options and dtype.
    direction : str
        "forward" or "backward"; "linear" for the derivative of a forward, which is
        never computed by the kernels.
    operands : tuple of str
        The names of the arrays that go in, in order. A forward has those of `WEIGHTS`
        that the form has, x, h0, c0 (LSTM), and mask where there is one; a backward has
        these, y, tape and origin where forward made them, and those of dy, dh_n, dc_n
        that are not zero.
    results : tuple of str
        The names of the arrays that come out, in order: y, h_n, c_n (LSTM), tape and
        origin (if a backward may follow and needs them), or those of dx, dh0, dc0 and
        "d" with the name of each weight that somebody wants.
    groups : int or None
        None for one call. Otherwise the call is done `groups` times, and all results
        and those operands of `grouped` have a leading axis of this length.
    grouped : tuple of bool
        Whether an operand has the leading axis; those without it are for all groups.
    hold : bool
        What y shows at masked steps: the output before, or zero.
    batch_first : bool
        Whether x, y, dx, dy and mask are (B, T, ..), and not (T, B, ..).
    site : Hashable or None
        Where packed weights are kept; None for a place of their own for each place in a
        program.

    Notes
    -----
    Without the leading axis x is (T, B, I), y and dy (T, B, H), states and their
    gradients (B, H), mask (T, B) of bool, tape (T, B, K) of `WORD`, and origin (B, 2)
    of int32, all in C order. `batch_first` does not concern the tape.

    origin says of each row of the batch where its part of the tape is from, because
    vmap may put tapes of several calls together or take one apart. A row has (1, 0)
    where its part stands for itself: it is ``tape[:, b]``, as in all calls without a
    mask. With a mask the words of the rows are mingled, and row b of B has (B, b).
    (0, 0) is from a forward that was not computed by the kernels, and has no tape.
    Where origin is not what a forward of the same rows writes, backward makes the tape
    again.
    """

    form: Form
    direction: str
    operands: tuple[str, ...]
    results: tuple[str, ...]
    groups: int | None = None
    grouped: tuple[bool, ...] = ()
    hold: bool = True
    batch_first: bool = False
    site: Hashable = None

    def shapes(self, T: int, B: int) -> list[tuple[tuple[int, ...], np.dtype]]:
        """The shape and the dtype of each result, the leading axis included."""
        form, dtype = self.form, np.dtype(self.form.dtype)
        I, H = form.input_size, form.hidden_size
        outer = (B, T) if self.batch_first else (T, B)
        found: dict[str, tuple[tuple[int, ...], np.dtype]] = {
            "y": ((*outer, H), dtype),
            "dx": ((*outer, I), dtype),
            "tape": ((T, B, tape_width(form)), WORD),
            "origin": ((B, 2), np.dtype("int32")),
        }
        found |= dict.fromkeys(("h_n", "c_n", "dh0", "dc0"), ((B, H), dtype))
        for name, shape in zip(WEIGHTS, recurrence(form).weight_shapes, strict=False):
            found["d" + name] = (shape, dtype)
        front = () if self.groups is None else (self.groups,)
        return [(front + found[name][0], found[name][1]) for name in self.results]


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
    given = _time_first(call, zip(call.operands, operands, strict=True))
    wanted = _time_first(call, zip(call.results, results, strict=True))
    tape = _numbers(wanted.get("tape"), call.form)
    recurrence(call.form).forward(
        *(_weights(given), given["x"], given["h0"], given.get("c0")),
        mask=given.get("mask"),
        hold=call.hold,
        keep=tape is not None,
        site=call.site,
        out=(wanted["y"], wanted["h_n"], wanted.get("c_n"), tape),
    )
    if "origin" in wanted:
        wanted["origin"][...] = _origin(given)


def _backward(call, operands, results):
    given = _time_first(call, zip(call.operands, operands, strict=True))
    wanted = _time_first(call, zip(call.results, results, strict=True))
    layer, weights = recurrence(call.form), _weights(given)
    options = {"mask": given.get("mask"), "hold": call.hold, "site": call.site}
    starts = given["x"], given["h0"], given.get("c0")
    tape = _numbers(given.get("tape", _NO_TAPE), call.form)
    if "tape" in given and not np.array_equal(given["origin"], _origin(given)):
        tape = layer.forward(weights, *starts, **options)[3]
    dweights = [wanted.get("d" + name) for name in WEIGHTS if name in given]
    layer.backward(
        *(weights, *starts, given["y"], tape),
        *(given.get(name) for name in ("dy", "dh_n", "dc_n")),
        **options,
        wants_dx="dx" in wanted,
        wants_dweights=any(dw is not None for dw in dweights),
        out=(*(wanted.get(name) for name in ("dx", "dh0", "dc0")), dweights),
    )


def _time_first(call, named):
    """Arrays by name, the sequences among them (T, B, ..)."""
    arrays = dict(named)
    if call.batch_first:
        for name in {"x", "y", "dx", "dy", "mask"} & arrays.keys():
            arrays[name] = arrays[name].swapaxes(0, 1)
    return arrays


def _weights(given):
    return [given[name] for name in WEIGHTS if name in given]


def _numbers(tape, form):
    """A tape of words as the one-dimensional array of numbers that kernels know."""
    return None if tape is None else tape.reshape(-1).view(form.dtype)


def _origin(given):
    """What a forward with these arrays says of its tape's rows; see `Call`."""
    B = given["x"].shape[1]
    if "mask" not in given:
        return np.array([(1, 0)] * B, np.int32).reshape(B, 2)
    return np.stack([np.full(B, B), np.arange(B)], axis=1).astype(np.int32)
