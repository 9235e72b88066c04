# SPDX-License-Identifier: BSD-3-Clause
"""What other systems lack or do in another way, as far as one system can tell.

Windows has no fork, no `flock`, none of some flags of `open`, consoles with few
characters, and files that cannot be replaced while somebody reads them.
"""

import errno
import io
import os
import subprocess
import sys

import pytest
import without

from fastrnn.native import config, core, threads
from fastrnn.text import cli
from fastrnn.util import files, lock_files, writing

# What `os` has on Linux and not on Windows, and what fastrnn might be tempted by.
POSIX_ONLY = (
    "O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_SYNC fchmod fchown fork forkpty "
    "getgid getuid geteuid getpgid killpg mkfifo nice openpty posix_fadvise "
    "posix_spawn register_at_fork sched_getaffinity sched_setaffinity sched_yield "
    "statvfs sysconf uname"
)
MODULES = ("fcntl", "grp", "pwd", "resource", "termios", "tty")

PROGRAM = """
import contextlib, io, os, subprocess
import numpy as np, safetensors.numpy, tqdm  # before os loses what these look for

for name in {names!r}.split():
    delattr(os, name)

import fastrnn
from fastrnn.text import cli
from fastrnn.util import writing

assert writing.fcntl is None
os.chdir({folder!r})
rng = np.random.default_rng(0)
x, y = rng.normal(size=(8, 5, 3)).astype("f"), rng.normal(size=(8, 1)).astype("f")
model = fastrnn.Sequential(fastrnn.LSTM(4, return_sequences=False), fastrnn.Linear(1))
model.compile("adam", "mse")
with contextlib.redirect_stdout(io.StringIO()):
    model.fit(x, y, epochs=2, verbose=2, callbacks=[fastrnn.callbacks.CSVLogger("log")])
with open("log", encoding="utf-8") as file:
    assert len(file.readlines()) == 3
model.save("model.safetensors")
assert (fastrnn.load_model("model.safetensors").predict(x) == model.predict(x)).all()
with open("text", "w", encoding="utf-8") as file:
    file.write("the cat sat on the mat. " * 40)
train = "train --text text --hidden-size 4 --batch-size 2 --out run --epochs"
out = io.StringIO()
with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
    assert cli.main([*train.split(), "1"]) == 0
    assert cli.main([*train.split(), "1"]) == 2  # the file exists
    assert cli.main("train --resume --out run --epochs 2".split()) == 0
    assert cli.main("generate run --length 5".split()) == 0
    assert cli.main("info run".split()) == 0
    with writing.Claim("run", new=False):
        assert cli.main("train --resume --out run --epochs 3".split()) == 2
print(*sorted(os.listdir()))
"""


def test_the_package_works_without_what_only_posix_has(tmp_path):
    program = PROGRAM.format(names=POSIX_ONLY, folder=str(tmp_path))
    assert without.run(program, MODULES) == "log model.safetensors run text\n"


# -- files without flock --------------------------------------------------------------


@pytest.fixture(name="no_flock", autouse=True)
def _no_flock(monkeypatch, tmp_path):
    monkeypatch.setattr(writing, "fcntl", None)
    monkeypatch.chdir(tmp_path)


def _read(path):
    with open(path, "rb") as file:
        return file.read()


def test_a_claimed_file_is_refused_until_it_is_closed():
    writing.write_atomically("run", b"old")
    with writing.Claim("run", new=False) as claim:
        with pytest.raises(ValueError, match=r"^run: must not be in use, got .*\.lock"):
            writing.Claim("run", new=False)
        claim.write("run", b"new")
        assert _read("run") == b"new"
        with pytest.raises(ValueError, match=r"^run: must not be in use"):
            writing.Claim("run", new=False)
    assert os.listdir() == ["run"]
    writing.Claim("run", new=False).close()


def test_of_two_who_make_a_file_one_succeeds():
    with writing.Claim("run", new=True) as claim:
        with pytest.raises(ValueError, match="in use"):
            writing.Claim("run", new=True)
        writing.write_atomically("run", b"of somebody who claims nothing")
        with pytest.raises(FileExistsError):
            claim.write("run", b"ours")
    assert _read("run") == b"of somebody who claims nothing"
    assert os.listdir() == ["run"]


def test_what_must_exist_must_exist():
    with pytest.raises(FileNotFoundError):
        writing.Claim("absent", new=False)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        writing.write_atomically("nowhere/file", b"")
    assert os.listdir() == []


def test_a_file_that_is_being_read_is_waited_for(monkeypatch):
    writing.write_atomically("file", b"old")
    refusals, replace = [5, 5, 5], os.replace

    def busy(source, target):
        if refusals:
            raise PermissionError(refusals.pop(), "Access is denied", target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", busy)
    writing.write_atomically("file", b"new")
    assert _read("file") == b"new"


def test_a_file_that_stays_open_elsewhere_is_left_as_it_was(monkeypatch):
    writing.write_atomically("file", b"old")

    def busy(source, target):
        raise PermissionError(errno.EACCES, "Access is denied", target)

    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr(lock_files, "_PATIENCE", 0.05)
    with pytest.raises(PermissionError, match="file"):
        writing.write_atomically("file", b"new")
    assert _read("file") == b"old"
    assert os.listdir() == ["file"]


def test_a_temporary_file_that_another_writer_removed_is_written_again(monkeypatch):
    times, replace = [], os.replace

    def taken_away_once(source, target):
        times.append(source)
        if len(times) == 1:
            os.remove(source)
        replace(source, target)

    monkeypatch.setattr(os, "replace", taken_away_once)
    writing.write_atomically("file", b"new")
    assert _read("file") == b"new"
    assert len(set(times)) == 2


def test_what_killed_writers_left_is_removed():
    left = f".fastrnn-{8 * '0f'}.tmp"
    with open(left, "wb"), open("other.tmp", "wb"):
        pass
    writing.write_atomically("file", b"new")
    assert sorted(os.listdir()) == ["file", "other.tmp"]


# -- opening --------------------------------------------------------------------------


def test_links_are_refused_without_the_flag_for_it(monkeypatch):
    monkeypatch.delattr(os, "O_NOFOLLOW", raising=False)
    writing.write_atomically("file", b"data")
    os.symlink("file", "link")
    os.close(files.open_regular("file", follow=False))
    with pytest.raises(OSError, match="link") as refused:
        files.open_regular("link", follow=False)
    assert refused.value.errno == errno.ELOOP


def test_a_folder_that_cannot_be_opened_is_called_a_folder(monkeypatch):
    def refused(path, flags):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    os.mkdir("folder")
    writing.write_atomically("file", b"")
    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(IsADirectoryError, match="folder"):
        files.read_bytes("folder")
    with pytest.raises(PermissionError, match="file"):
        files.read_bytes("file")


# -- consoles -------------------------------------------------------------------------

SHOW = """
import numpy as np
import fastrnn
rng = np.random.default_rng(0)
x, y = rng.normal(size=(8, 5, 3)).astype("f"), rng.normal(size=(8, 1)).astype("f")
model = fastrnn.Sequential(fastrnn.LSTM(4, return_sequences=False), fastrnn.Linear(1))
model.compile("adam", "mse", metrics=["mae"])
for verbose in (1, 2):
    model.fit(x, y, epochs=1, verbose=verbose, validation_split=0.25)
model.summary()
print(model, model.layers[0])
fastrnn.show_config()
"""


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_consoles_with_few_characters_show_what_they_can(tmp_path, encoding):
    text = tmp_path / "text"
    text.write_text("Ωμέγα → “quoted” ✓ " * 40, encoding="utf-8")
    run = "train --text text --hidden-size 4 --batch-size 2 --out run --epochs 1"
    for words in (
        ["-c", SHOW],
        ["-m", "fastrnn", *run.split()],
        ["-m", "fastrnn", "generate", "run", "--prompt", "Ω", "--length", "9"],
        ["-m", "fastrnn", "info", "run"],
        ["-m", "fastrnn", "--help"],
    ):
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
            capture_output=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert b"Unicode" not in done.stderr


class Closed(io.TextIOBase):
    """A console whose other end is gone, as Windows tells it."""

    def write(self, text):
        raise OSError(errno.EINVAL, "Invalid argument")

    def fileno(self):
        return self.descriptor


def test_output_that_nobody_reads_ends_quietly(monkeypatch, capsys):
    console = Closed()
    console.descriptor = os.open("console", os.O_WRONLY | os.O_CREAT)
    monkeypatch.setattr(sys, "stdout", console)
    assert cli.main(["info"]) == 2  # of another system that is an error
    assert "Invalid argument" in capsys.readouterr().err
    monkeypatch.setattr(os, "name", "nt")
    assert cli.main(["info"]) == 0
    os.close(console.descriptor)


# -- processors -----------------------------------------------------------------------


def test_processors_are_counted_by_what_the_system_tells(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(threads.cgroup, "cpu_limit", lambda: None)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    threads._default.cache_clear()
    monkeypatch.setattr(core, "system_allowed_cpus", lambda: 3)  # an affinity mask
    assert threads._default() == 3
    threads._default.cache_clear()
    monkeypatch.setattr(core, "system_allowed_cpus", lambda: 0)
    assert threads._default() == 6
    threads._default.cache_clear()


def test_the_system_tells_of_its_caches_in_one_way_at_most():
    """On Linux files tell it, and the function that asks other systems says nothing."""
    told = core.system_level2_bytes()
    assert told >= 0
    assert told == 0 or sys.platform != "linux"


@pytest.mark.parametrize(
    ("whose", "said"),
    [("OpenMP", "yes"), ("fastrnn", "no, a pool of its own"), ("", "no")],
)
def test_show_config_says_whose_threads_there_are(monkeypatch, capsys, whose, said):
    monkeypatch.setattr(core, "THREADING", whose)
    config.show_config()
    assert f"OpenMP          {said}\n" in capsys.readouterr().out
    assert (threads.for_kernel(2) == 2) == bool(whose)
