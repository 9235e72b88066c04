# SPDX-License-Identifier: BSD-3-Clause
"""Files that are written: permissions, what a killed writer leaves, who may write."""

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import fastrnn
from fastrnn.text import cli, default_text, training
from fastrnn.util import writing
from fastrnn.util.writing import Claim, write_atomically

TINY = ["--hidden-size", "8", "--batch-size", "4", "--seq-length", "10"]
TINY += ["--epochs", "2", "--threads", "1", "--text", "book.txt"]


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "SAMPLE_LENGTH", 20)
    before = fastrnn.get_num_threads()
    yield
    fastrnn.set_num_threads(before)


@pytest.fixture
def book(tmp_path):
    (tmp_path / "book.txt").write_text(default_text()[:2000], encoding="utf-8")


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def temporaries():
    return [name for name in os.listdir() if name.startswith(".fastrnn-")]


# -- permissions -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o666])
def test_a_file_keeps_its_permissions(mode):
    model = fastrnn.Sequential(fastrnn.Linear(1, 1, seed=0))
    model.save("m")
    os.chmod("m", mode)
    model.save("m")
    assert mode_of("m") == mode
    fastrnn.Vocabulary(["a"]).save("words")
    os.chmod("words", mode)
    fastrnn.Vocabulary(["a"]).save("words")
    assert mode_of("words") == mode


def test_a_new_file_has_what_the_umask_leaves():
    before = os.umask(0o027)
    try:
        write_atomically("new", b"x")
    finally:
        os.umask(before)
    assert mode_of("new") == 0o640


def test_nobody_else_reads_what_is_to_be_secret_while_it_is_written(monkeypatch):
    write_atomically("secret", b"old")
    os.chmod("secret", 0o600)
    seen = []

    def fsync(descriptor):
        seen.append([mode_of(name) for name in temporaries()])

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically("secret", b"new")
    assert seen == [[0o600]]


def test_resuming_keeps_permissions(book):
    assert cli.main(["train", *TINY, "--out", "run"]) == 0
    os.chmod("run", 0o600)
    assert cli.main(["train", "--resume", "--epochs", "3", "--out", "run"]) == 0
    assert mode_of("run") == 0o600
    assert temporaries() == []


def test_a_group_that_cannot_be_kept_has_no_rights(monkeypatch):
    write_atomically("m", b"old")
    os.chmod("m", 0o660)

    class Other:
        def __init__(self, status):
            self.st_mode, self.st_gid = status.st_mode, status.st_gid + 1

    real = writing._status
    monkeypatch.setattr(writing, "_status", lambda target: Other(real(target)))

    def refused(descriptor, uid, gid):
        raise PermissionError(errno.EPERM, "not a member")

    monkeypatch.setattr(os, "fchown", refused)
    write_atomically("m", b"new")
    assert mode_of("m") == 0o600


# -- what is there already -------------------------------------------------------------


def test_links_are_followed_and_what_is_no_file_stays():
    write_atomically("real", b"old")
    os.symlink("real", "link")
    os.symlink("nothing", "dangling")
    write_atomically("link", b"new")
    write_atomically("dangling", b"made")
    assert Path("real").read_bytes() == b"new"
    assert Path("nothing").read_bytes() == b"made"
    os.mkfifo("pipe")
    with pytest.raises(OSError, match="must be a regular file to be replaced: 'pipe'"):
        write_atomically("pipe", b"x")
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)
    os.mkdir("folder")
    with pytest.raises(IsADirectoryError, match="'folder'"):
        write_atomically("folder", b"x")
    assert temporaries() == []


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(monkeypatch, call):
    write_atomically("m", b"old")

    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, call, fail)
        with pytest.raises(OSError, match="No space left on device: 'm'"):
            write_atomically("m", b"new")
    with open("m", "rb") as file:
        assert file.read() == b"old"
    assert temporaries() == []


def test_a_system_that_writes_a_part_at_a_time(monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data[:3])))
    write_atomically("m", b"0123456789")
    with open("m", "rb") as file:
        assert file.read() == b"0123456789"


# -- writers that were killed ----------------------------------------------------------

HANGING = """
import os, sys, time
from fastrnn.util.writing import write_atomically
def fsync(descriptor):
    print("writing", flush=True)
    time.sleep(60)
os.fsync = fsync
write_atomically("m", bytes(10**6))
"""


def hanging():
    """A process in the middle of a write."""
    child = subprocess.Popen(
        [sys.executable, "-c", HANGING], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "writing\n"
    return child


def ended(child):
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()


def test_what_a_killed_writer_leaves_is_removed_by_the_next():
    left = []
    for _ in range(2):
        child = hanging()
        assert [name for name in left if name in temporaries()] == []
        left = temporaries()
        assert len(left) == 1
        ended(child)
    assert temporaries() == left
    write_atomically("another", b"x")
    assert os.listdir() == ["another"]


def test_what_is_being_written_stays():
    child = hanging()
    left = temporaries()
    write_atomically("another", b"x")
    assert temporaries() == left
    ended(child)
    write_atomically("another", b"x")
    assert temporaries() == []


def test_only_what_is_ours_is_removed():
    names = [".fastrnn-0.tmp", ".fastrnn-0123456789abcdeg.tmp", "fastrnn-x.tmp"]
    for name in names:
        write_atomically(name, b"x")
    os.symlink(names[0], ".fastrnn-0123456789abcdef.tmp")
    os.mkdir(".fastrnn-0123456789abcde0.tmp")
    before = sorted(os.listdir())
    write_atomically(names[0], b"y")
    assert sorted(os.listdir()) == before


def test_writers_of_many_threads_do_not_remove_each_other_s():
    wrong = []

    def write(k):
        try:
            for _ in range(30):
                write_atomically(f"m{k % 2}", bytes(1000))
        except Exception as error:  # told to the main thread
            wrong.append(error)

    threads = [threading.Thread(target=write, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sorted(os.listdir()) == ["m0", "m1"]


def test_file_systems_without_locks_and_second_names(monkeypatch):
    def no_lock(descriptor, how):
        raise OSError(errno.ENOLCK, "no locks here")

    def no_link(*arguments):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(writing.fcntl, "flock", no_lock)
    monkeypatch.setattr(os, "link", no_link)
    write_atomically("m", b"x")
    with Claim("new", new=True) as claim:
        claim.write("new", b"1")
        claim.write("new", b"2")
    with open("new", "rb") as file:
        assert file.read() == b"2"
    claim = Claim("other", new=True)
    write_atomically("other", b"x")
    with pytest.raises(FileExistsError):
        claim.write("other", b"1")
    assert sorted(os.listdir()) == ["m", "new", "other"]


# -- one writer a file -----------------------------------------------------------------


def test_of_two_claims_of_a_new_file_one_succeeds():
    first, second = Claim("m", new=True), Claim("m", new=True)
    first.write("m", b"first")
    with pytest.raises(FileExistsError, match="'m'"):
        second.write("m", b"second")
    for data in (b"again", b"and again"):
        first.write("m", data)
        with pytest.raises(
            ValueError, match="m: must not be in use, got one that anot"
        ):
            Claim("m", new=False)
    first.close()
    with open("m", "rb") as file:
        assert file.read() == b"and again"
    Claim("m", new=False).close()
    assert os.listdir() == ["m"]
    with pytest.raises(FileExistsError):
        Claim("m", new=True)
    with pytest.raises(FileNotFoundError):
        Claim("none", new=False)
    with pytest.raises(ValueError, match=r"Claim\.write: path must be m, got n"):
        first.write("n", b"")


def test_two_runs_with_one_new_out(book):
    """Started together: one trains, the other is refused before it has trained."""
    command = [sys.executable, "-m", "fastrnn", "train", *TINY, "--out", "run"]
    children = [
        subprocess.Popen(
            [*command, "--seed", str(seed), "--epochs", "20"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(3)
    ]
    found = [child.communicate(timeout=100) for child in children]
    codes = [child.returncode for child in children]
    assert sorted(codes) == [0, 2, 2]
    for code, (out, err) in zip(codes, found, strict=True):
        if code:
            assert "epoch" not in out
            assert err == (
                "fastrnn: error: run: already exists; go on with it by --resume, or "
                "name another file with --out\n"
            )
    seed = codes.index(0)
    assert fastrnn.text.checkpoint.read("run")[1]["settings"]["seed"] == seed
    assert temporaries() == []


def test_a_run_that_goes_on_is_alone_until_it_ends_or_is_killed(book, capsys):
    command = [sys.executable, "-m", "fastrnn", "train", *TINY, "--out", "run"]
    child = subprocess.Popen(
        [*command, "--epochs", "100000"], stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not os.path.exists("run") and time.monotonic() < deadline:
        time.sleep(0.01)
    resume = ["train", "--resume", "--epochs", "100001", "--out", "run"]
    assert cli.main(resume) == 2
    assert capsys.readouterr().err == (
        "fastrnn: error: run: must not be in use, got one that another run is writing "
        "now\n"
    )
    assert cli.main(["info", "run"]) == 0  # whoever only reads is not kept out
    child.send_signal(signal.SIGKILL)
    child.wait()
    Claim("run", new=False).close()
