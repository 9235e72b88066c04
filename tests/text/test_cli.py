# SPDX-License-Identifier: BSD-3-Clause
"""The command line: what it prints, its errors word for word, its exit codes."""

import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.numpy

import fastrnn
from fastrnn.text import cli, default_text, model, training
from fastrnn.train import progress

TINY = [
    *("--hidden-size", "8", "--batch-size", "4", "--seq-length", "10"),
    *("--epochs", "2", "--threads", "1"),
]


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """Each test in a folder of its own, with a short text; threads as they were."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "SAMPLE_LENGTH", 20)
    (tmp_path / "book.txt").write_text(default_text()[:2000], encoding="utf-8")
    before = fastrnn.get_num_threads()
    yield
    fastrnn.set_num_threads(before)


@pytest.fixture
def trained(capsys):
    """The checkpoint of a finished run."""
    assert cli.main(["train", "--text", "book.txt", *TINY]) == 0
    capsys.readouterr()
    return cli.DEFAULT_OUT


def run(*arguments, **rest):
    """The program in a process of its own, as a user starts it."""
    return subprocess.run(
        [sys.executable, "-m", "fastrnn", *arguments],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
        **rest,
    )


def error_of(capsys, *arguments):
    """The one line that an error prints, after its prefix."""
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:  # how argparse ends
        code = stop.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("fastrnn: error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err.removeprefix("fastrnn: error: ").removesuffix("\n")


# -- train -----------------------------------------------------------------------------


def test_train_prints_evaluations_with_samples(capsys):
    assert cli.main(["train", "--text", "book.txt", *TINY]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    head, model, *middle, end = out.splitlines()
    assert re.fullmatch(
        r"text: 2,000 characters, 200 held out, \d\d different", head
    ), head
    assert re.fullmatch(
        r"model: lstm, 1 x 8 units, [\d,]+ parameters; 1 threads", model
    ), model
    assert re.fullmatch(
        r"\d\.\d{3} bits/char held out after 00:\d\d \([\d,]+ chars/s\); "
        r"try: fastrnn generate charmodel\.safetensors",
        end,
    ), end
    heads = [line for line in middle if not line.startswith("    | ")]
    epochs = ["0.5", "1.0", "1.5", "2.0"]
    for line, epoch in zip(heads, epochs, strict=True):
        assert re.fullmatch(
            rf"epoch {epoch}/2: \d\.\d{{3}} bits/char held out, "
            r"\d\.\d{3} in training",
            line,
        ), line
    assert len(middle) > len(heads)


@pytest.mark.parametrize("cell", model.CELLS)
def test_every_option_of_train(capsys, cell):
    arguments = ["train", "--text", "book.txt", *TINY, "--cell", cell, "--lr", "0.01"]
    arguments += ["--num-layers", "2", "--clip-norm", "0.5", "--seed", "3"]
    arguments += ["--compute", "bfloat16", "--out", "other"]
    assert cli.main(arguments) == 0
    assert fastrnn.get_num_threads() == 1
    assert cli.main(["info", "other"]) == 0
    out = capsys.readouterr().out
    assert (
        f"cell={cell} embedding_dim=64 hidden_size=8 num_layers=2 dtype=float32 "
        "compute=bfloat16\n"
    ) in out
    assert (
        "settings        batch_size=4 seq_length=10 epochs=2 lr=0.01 clip_norm=0.5 "
        "seed=3\n"
    ) in out


def test_without_a_terminal_progress_is_a_line_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0)
    assert cli.main(["train", "--text", "book.txt", *TINY]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 90  # windows: every one is later than zero seconds
    for line in lines:
        assert re.fullmatch(
            r"epoch \d\.\d/2  \d\.\d{3} bits/char  [\d,]+ chars/s  00:\d\d left", line
        ), line


def test_on_a_terminal_progress_is_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert cli.main(["train", "--text", "book.txt", *TINY]) == 0
    out, err = capsys.readouterr()
    assert "bits/char held out after" in out
    assert re.search(r"\repoch 2\.0/2  \d\.\d{3} bits/char 100%\|.*chars/s", err)
    assert err.count("\n") < 10


def test_resume_after_the_end_and_with_more_epochs(capsys, trained):
    assert cli.main(["train", "--resume"]) == 0
    assert capsys.readouterr().out == (
        "charmodel.safetensors has been trained for all of its 2 epochs; a larger "
        "--epochs goes on\n"
    )
    same = ["--text", "book.txt", "--hidden-size", "8", "--cell", "lstm"]
    assert cli.main(["train", "--resume", "--epochs", "3", *same]) == 0
    assert "epoch 3.0/3: " in capsys.readouterr().out


# A job started in the background ignores SIGINT, and its children inherit that.
LISTENING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from fastrnn.text.cli import main
sys.exit(main())
"""


def test_ctrl_c_ends_cleanly_and_the_run_resumes(tmp_path):
    command = [sys.executable, "-c", LISTENING, "train", "--text", "book.txt"]
    child = subprocess.Popen(
        [*command, *TINY, "--epochs", "100000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / cli.DEFAULT_OUT).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)  # the file is there before the first window
    child.send_signal(signal.SIGINT)
    try:
        _, err = child.communicate(timeout=30)
    finally:
        child.kill()
    assert child.returncode == 130
    assert re.fullmatch(
        r"stopped after [\d.]+ epochs; charmodel\.safetensors is at most a few seconds "
        r"behind; go on with: fastrnn train --resume --out charmodel\.safetensors\n",
        err.splitlines(keepends=True)[-1],
    )
    assert "Traceback" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "book.txt",
        "charmodel.safetensors",
    ]
    assert cli.main(["info", cli.DEFAULT_OUT]) == 0


# -- generate and info -----------------------------------------------------------------


def test_generate_is_the_seed_s(capsys, trained):
    written = []
    for seed in ("1", "1", "2"):
        arguments = ["generate", trained, "--prompt", "The ", "--seed", seed]
        assert cli.main([*arguments, "--length", "60"]) == 0
        written.append(capsys.readouterr().out)
    assert written[0] == written[1] != written[2]
    assert written[0].startswith("The ")
    assert len(written[0]) == len("The ") + 60 + len("\n")


def test_generate_at_temperature_0_needs_no_seed(capsys, trained):
    written = []
    for _ in range(2):
        arguments = ["generate", trained, "--temperature", "0", "--length", "30"]
        assert cli.main(arguments) == 0
        written.append(capsys.readouterr().out)
    assert written[0] == written[1]


def test_info_shows_the_build(capsys):
    fastrnn.show_config()
    config = capsys.readouterr().out
    assert cli.main(["info"]) == 0
    assert capsys.readouterr().out == config


def test_info_shows_a_checkpoint(capsys, trained):
    assert cli.main(["info", trained]) == 0
    out = capsys.readouterr().out
    assert re.search(
        r"\ncheckpoint      charmodel\.safetensors\n"
        r"text            \S+/book\.txt, 2,000 characters\n"
        r"vocabulary      \d\d characters\n"
        r"model           cell=lstm embedding_dim=64 hidden_size=8 num_layers=1 "
        r"dtype=float32 compute=float32\n"
        r"parameters      [\d,]+\n"
        r"settings        batch_size=4 seq_length=10 epochs=2 lr=0\.004 clip_norm=1\.0 "
        r"seed=0\n"
        r"windows trained 90\n"
        r"evaluation      \d\.\d{3} bits/char held out, \d\.\d{3} in training, after "
        r"window 90\n$",
        out,
    ), out


def test_a_process_of_its_own(trained):
    done = run("generate", trained, "--length", "10", "--seed", "0")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout) == 11
    done = run("train", "--hidden-size", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "fastrnn: error: argument --hidden-size: must be a positive integer, got '0'\n"
    )
    done = run("--version")
    assert done.stdout == f"fastrnn {fastrnn.__version__}\n"


def test_a_reader_that_has_enough_is_no_error(trained):
    command = (
        f"{sys.executable} -m fastrnn generate {trained} --length 5000 | head -c 9"
    )
    done = subprocess.run(
        command, shell=True, capture_output=True, timeout=60, check=False
    )
    assert done.stderr == b""
    assert len(done.stdout) == 9


@pytest.mark.parametrize("command", [[], ["train"], ["generate"], ["info"]])
def test_help(capsys, command):
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main([*command, "--help"])
    assert capsys.readouterr().out.startswith("usage: fastrnn")


def test_the_bare_command_prints_the_help(capsys):
    assert cli.main([]) == 0
    bare = capsys.readouterr()
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main(["--help"])
    assert bare == capsys.readouterr()


# -- errors ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit"], "argument COMMAND: invalid choice: 'fit' "),
        (["generate"], "the following arguments are required: CHECKPOINT"),
        (["train", "--wat"], "unrecognized arguments: --wat"),
        (["train", "--hidden", "3"], "unrecognized arguments: --hidden 3"),
        (["train", "--cell", "elman"], "argument --cell: invalid choice: 'elman' "),
        *(
            (
                ["train", f"--{name}", value],
                f"argument --{name}: must be a positive integer, got '{value}'",
            )
            for name, value in [
                ("hidden-size", "0"),
                ("hidden-size", "-3"),
                ("hidden-size", "1.5"),
                ("num-layers", "0"),
                ("seq-length", "0"),
                ("batch-size", "zwei"),
                ("epochs", "0"),
                ("threads", "0"),
            ]
        ),
        *(
            (
                ["train", f"--{name}", value],
                f"argument --{name}: must be a positive number, got '{value}'",
            )
            for name, value in [
                ("lr", "0"),
                ("lr", "nan"),
                ("clip-norm", "-1"),
                ("clip-norm", "inf"),
            ]
        ),
        (
            ["train", "--seed", "-1"],
            "argument --seed: must be an integer of at least 0, got '-1'",
        ),
        (["train", "--text", "none.txt"], "none.txt: No such file or directory"),
        (["train", "--text", "."], ".: Is a directory"),
        (
            ["train", "--text", "book.txt", "--out", "book.txt"],
            "book.txt: already exists; go on with it by --resume, or name another file "
            "with --out",
        ),
        (
            ["train", "--text", "book.txt", "--seq-length", "100"],
            "Trainer: text must have at least 3556 characters for batch_size = 32 and "
            "seq_length = 100 (a tenth is held out), got 2000",
        ),
        (
            ["train", "--resume"],
            "charmodel.safetensors: No such file or directory",
        ),
        (
            ["generate", "book.txt", "--length", "-1"],
            "argument --length: must be an integer of at least 0, got '-1'",
        ),
        *(
            (
                ["generate", "book.txt", "--temperature", value],
                "argument --temperature: must be a number of at least 0 (0 takes the "
                f"likeliest character every time), got '{value}'",
            )
            for value in ("-1", "nan", "inf", "hot")
        ),
        (["generate", "none"], "none: No such file or directory"),
        (
            ["generate", "book.txt"],
            "book.txt: must be a checkpoint of fastrnn train, got a file that is "
            "damaged or of another kind (",
        ),
        (
            ["info", "book.txt"],
            "book.txt: must be a checkpoint of fastrnn train, got a file that is "
            "damaged or of another kind (",
        ),
    ],
)
def test_wrong_arguments(capsys, tmp_path, arguments, message):
    found = error_of(capsys, *arguments)
    if message[-1] in " (":  # the rest is another program's
        assert found.startswith(message)
    else:
        assert found == message
    assert [path.name for path in tmp_path.iterdir()] == ["book.txt"]


def test_a_checkpoint_that_cannot_be_written_is_known_before_training(capsys):
    arguments = ["train", "--text", "book.txt", *TINY, "--out", "none/run"]
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert err == "fastrnn: error: none/run: No such file or directory\n"
    assert "epoch" not in out


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "must be text with characters, got an empty file"),
        (
            b"\x7fELF\0\1",
            "must be UTF-8 text, got a NUL byte at offset 4: a binary file",
        ),
        (b"\x89PNG", "must be UTF-8 text, got byte 0x89 at offset 0"),
    ],
)
def test_files_that_are_not_text(capsys, tmp_path, data, message):
    (tmp_path / "file").write_bytes(data)
    assert error_of(capsys, "train", "--text", "file") == f"file: {message}"


def test_a_prompt_of_other_characters(capsys, trained):
    assert error_of(capsys, "generate", trained, "--prompt", "Ünder") == (
        "argument --prompt: text must be of the characters that the model was trained "
        "on, got 'Ü'"
    )
    done = run("generate", trained, "--prompt", b"a\xff")
    assert done.returncode == 2
    assert done.stderr.endswith("was trained on, got '\\udcff'\n")


def test_damaged_and_foreign_checkpoints(capsys, tmp_path, trained):
    data = (tmp_path / trained).read_bytes()
    for command in (["generate"], ["info"], ["train", "--resume", "--out"]):
        (tmp_path / "file").write_bytes(data[:-1])
        assert error_of(capsys, *command, "file").startswith(
            "file: must be a checkpoint of fastrnn train, got a file that is damaged "
            "or of another kind ("
        )
        (tmp_path / "file").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert error_of(capsys, *command, "file") == (
            "file: damaged: its checksum is not that of its contents"
        )
        (tmp_path / "file").write_bytes(safetensors.numpy.save({"w": np.zeros(3)}))
        assert error_of(capsys, *command, "file") == (
            "file: must be a checkpoint of fastrnn train, got a safetensors file of "
            "something else"
        )


@pytest.mark.parametrize(
    ("option", "has", "asked"),
    [
        ("--cell", "lstm", "gru"),
        ("--hidden-size", "8", "16"),
        ("--num-layers", "1", "2"),
        ("--batch-size", "4", "5"),
        ("--seq-length", "10", "11"),
        ("--lr", "0.004", "0.1"),
        ("--clip-norm", "1.0", "2.0"),
        ("--seed", "0", "1"),
    ],
)
def test_what_resuming_cannot_change(capsys, trained, option, has, asked):
    assert error_of(capsys, "train", "--resume", option, asked) == (
        f"argument {option}: must stay {has} to resume charmodel.safetensors, "
        f"got {asked}"
    )


def test_resuming_on_another_text(capsys, tmp_path, trained):
    (tmp_path / "other.txt").write_text("other " * 500, encoding="utf-8")
    assert error_of(capsys, "train", "--resume", "--text", "other.txt") == (
        "charmodel.safetensors: must be resumed on the text it was trained on (2000 "
        "characters), got another (3000 characters)"
    )


def test_resuming_with_fewer_epochs(capsys, trained):
    assert error_of(capsys, "train", "--resume", "--epochs", "1") == (
        "charmodel.safetensors: epochs must be at least the 2.0 that it has been "
        "trained for, got 1"
    )


def test_too_large_a_model(capsys):
    found = error_of(
        capsys, "train", "--text", "book.txt", *TINY[2:-2], "--hidden-size", 10**7
    )
    assert found.startswith("LSTM: a layer must have at most 1,000,000,000,000 param")


def test_resume_finds_the_text_from_another_folder(tmp_path, monkeypatch):
    (tmp_path / "book.txt").write_text(default_text()[:2000], encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--text", "book.txt", *TINY, "--out", "m.st"]) == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cli.main(["train", "--resume", "--epochs", "3", "--out", "../m.st"]) == 0
