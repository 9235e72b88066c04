# SPDX-License-Identifier: BSD-3-Clause
"""The CSV file of a run: a line an epoch, and what becomes of it when a run goes on."""

import csv
import io
import os

from fastrnn.util import files
from fastrnn.util.writing import append_whole, write_atomically

EPOCH = "epoch"  # the first column


def line_of(values):
    """A line of a CSV file, as bytes, with its end."""
    text = io.StringIO(newline="")
    csv.writer(text).writerow(values)
    return text.getvalue().encode("utf-8")


def add_line(path, values):
    """Add a line to a file: all of it, or none where the disk is full."""
    append_whole(path, line_of(values))


def begin(path):
    """Make an empty file, so that a path that cannot be written is known at once.

    Parameters
    ----------
    path : path-like
    """
    with open(path, "wb"):
        pass


def go_on(path, epochs=None):
    """The names of a file's columns, for more lines below those that it has.

    A last line that has no end gets one.

    Parameters
    ----------
    path : path-like
    epochs : int, optional
        How many epochs a resumed run has done. A run that was killed may have written
        lines after its last checkpoint; those epochs are run again, so their lines at
        the end of the file are taken out, as is a last line that was not written whole.

    Returns
    -------
    list of str or None
        None where the file has no line.

    Raises
    ------
    OSError
        If the file cannot be read or written.
    ValueError
        If it is not a CSV file.
    """
    data = files.read_bytes(path)
    try:
        text = io.StringIO(data.decode("utf-8"), newline="")
        names = next(csv.reader(text), None)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(
            f"CSVLogger: {os.fspath(path)}: must be a CSV file to go on with, "
            f"got: {error}"
        ) from error
    lines = data.splitlines(keepends=True)
    if not lines:
        return None
    whole = lines[-1].endswith((b"\n", b"\r"))
    if epochs is None:
        if not whole:
            append_whole(path, b"\r\n")
        return names
    kept = len(lines) if whole else len(lines) - 1
    while kept > 1 and names[:1] == [EPOCH] and _is_later(lines[kept - 1], epochs):
        kept -= 1
    if kept < len(lines):
        write_atomically(path, b"".join(lines[:kept]))
    return names if kept else None


def _is_later(line, epochs):
    """Whether a line is that of an epoch after the first so many."""
    number = line.partition(b",")[0].strip()
    return number.isdigit() and int(number) > epochs
