# SPDX-License-Identifier: BSD-3-Clause
"""The CSV file of a run that goes on: each epoch is in it once."""

import errno
import os

import numpy as np
import pytest

import fastrnn


def test_a_log_of_a_killed_run_has_each_epoch_once(tmp_path):
    """Lines of epochs after the last checkpoint go, with one that is not whole."""
    x = np.linspace(-1, 1, 8, dtype="f")[:, None]

    def run(name, epochs, **options):
        model = fastrnn.Sequential(fastrnn.Linear(1, 1, seed=0))
        model.compile("mse", "sgd", lr=0.1)
        logger = fastrnn.callbacks.CSVLogger(tmp_path / f"{name}.csv")
        keeper = fastrnn.callbacks.ModelCheckpoint(tmp_path / name, "loss")
        model.fit(x, x, 4, epochs, 0, callbacks=[logger, keeper], **options)
        return (tmp_path / f"{name}.csv").read_bytes()

    whole = run("whole", 13, seed=1)
    lines = whole.splitlines(keepends=True)
    first = run("broken", 11, seed=1)
    assert first == b"".join(lines[:12])
    for later in (lines[12], lines[12] + lines[13], lines[12] + b"1", b"12,0.0", b"\0"):
        (tmp_path / "broken.csv").write_bytes(first + later)
        keep = (tmp_path / "broken").read_bytes()
        assert run("broken", 13, resume=tmp_path / "broken") == whole
        (tmp_path / "broken").write_bytes(keep)
    (tmp_path / "broken.csv").write_bytes(lines[0][:3])
    assert run("broken", 13, resume=tmp_path / "broken") == (
        lines[0] + lines[12] + lines[13]
    )


def test_a_log_is_gone_on_with_on_a_line_of_its_own(tmp_path):
    log, x = tmp_path / "log.csv", np.zeros((2, 1), "f")
    log.write_bytes(b"epoch,loss,more\n7,0.5,yes")
    model = fastrnn.Sequential(fastrnn.Linear(1, 1, bias=False, seed=0))
    model.compile("mse", "sgd", lr=0.1)
    logger = fastrnn.callbacks.CSVLogger(log, append=True)
    model.fit(x, x, verbose=0, callbacks=[logger])
    assert log.read_bytes() == b"epoch,loss,more\n7,0.5,yes\r\n1,0.0,\r\n"


def test_a_line_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    log, x = tmp_path / "log.csv", np.zeros((2, 1), "f")
    model = fastrnn.Sequential(fastrnn.Linear(1, 1, bias=False, seed=0))
    model.compile("mse", "sgd", lr=0.1)
    model.fit(x, x, verbose=0, callbacks=[fastrnn.callbacks.CSVLogger(log)])
    before, write, room = log.read_bytes(), os.write, [5]

    def write_until_full(descriptor, data):
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, bytes(data[: room.pop()]))

    monkeypatch.setattr(os, "write", write_until_full)
    logger = fastrnn.callbacks.CSVLogger(log, append=True)
    with pytest.raises(OSError, match=r"No space left on device: '.*log\.csv'"):
        model.fit(x, x, verbose=0, callbacks=[logger])
    assert room == []
    assert log.read_bytes() == before
