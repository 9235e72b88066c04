# SPDX-License-Identifier: BSD-3-Clause
"""The benchmark's workers, and whole runs of it with the peers that are there."""

import json
import os
import time
from pathlib import Path

import pytest

TINY = "T5-B3-I7-H17"

# Adapters for the tests. The first is a peer that agrees with fastrnn, being it.
TWIN = """
from bench.adapters import fastrnn
def start(n_threads, dtype):
    fastrnn.start(n_threads, dtype)
    return {"versions": {"twin": "1"}, "settings": {}}
variants = fastrnn.variants
"""
WRONG = (
    TWIN
    + """
class Side:
    def __init__(self, make):
        self.side = make()
        self.run = self.side.run
    def results(self):
        return {key: 1.01 * value for key, value in self.side.results().items()}
def variants(case, dtype):
    (make,) = fastrnn.variants(case, dtype).values()
    return {"wrong": lambda: Side(make)}
"""
)
DYING = (
    TWIN
    + """
import os
def variants(case, dtype):
    print("out of memory", flush=True)
    os._exit(3)
"""
)
FAILING = (
    TWIN
    + """
def variants(case, dtype):
    raise RuntimeError("no such operator")
"""
)
UNSUPPORTED = (
    TWIN
    + """
from bench.adapters import UnsupportedError
def variants(case, dtype):
    raise UnsupportedError("inference only")
"""
)
ABSENT = "import a_library_that_nobody_has"


@pytest.fixture
def fake(bench, monkeypatch, tmp_path):
    """Let the source of a test's adapter stand for PyTorch's; gives its module."""
    path = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    adapters = bench("adapters")
    real = adapters.module_of

    def stand_in(source):
        (tmp_path / "fake_adapter.py").write_text(source)
        monkeypatch.setattr(
            adapters,
            "module_of",
            lambda name: "fake_adapter" if name == "torch" else real(name),
        )
        return "fake_adapter"

    return stand_in


# -- workers --------------------------------------------------------------------------


@pytest.fixture
def worker(bench, fake):
    """Start a worker with the source of an adapter; ended after the test."""
    started = []

    def start(source, **options):
        started.append(
            bench("peers").Worker("torch", 1, "float32", module=fake(source), **options)
        )
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_a_worker_prepares_and_times_and_is_stopped_between(worker):
    twin = worker(TWIN)
    assert twin.absent is None
    assert twin.about["versions"] == {"twin": "1"}
    if hasattr(os, "sched_setaffinity"):
        assert twin.about["cpus"] == 1
    answer = twin.ask("prepare", f"rnn/forward/{TINY}")
    assert answer["variant"] == "layer"
    assert answer["results"]["y"].shape == (5, 3, 17)
    answer = twin.ask("time", 0.001)
    assert answer["seconds"] > 0
    assert "peak" not in answer  # only fastrnn's adapter measures it
    stat = Path(f"/proc/{twin.pid}/stat")
    if not stat.is_file():
        return  # only Linux says whether a process is stopped
    deadline = time.monotonic() + 5
    while (state := stat.read_text().rpartition(")")[2].split()[0]) != "T":
        assert time.monotonic() < deadline, state
        time.sleep(0.01)


def test_only_fastrnn_s_worker_measures_the_peak(bench):
    worker = bench("peers").Worker("fastrnn", 1, "float32")
    worker.ask("prepare", f"rnn/step/T1-{TINY.partition('-')[2]}")
    assert worker.ask("time", 0.001)["peak"] > 0
    worker.close()


def test_a_library_that_is_not_there_is_absent_with_a_reason(worker):
    reason = "ModuleNotFoundError: No module named 'a_library_that_nobody_has'"
    assert worker(ABSENT).absent == reason


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (DYING, "the worker died with exit status 3; it wrote: out of memory$"),
        (FAILING, "failed:\nTraceback(.|\n)*RuntimeError: no such operator"),
    ],
)
def test_a_broken_worker_says_what_it_was_doing(bench, worker, source, message):
    prefix = f"^bench: torch: prepare rnn/forward/{TINY}:? "
    broken = worker(source)
    with pytest.raises(bench("peers").WorkerError, match=prefix + message):
        broken.ask("prepare", f"rnn/forward/{TINY}")
    with pytest.raises(bench("peers").WorkerError, match="the worker died"):
        broken.ask("time", 0.001)


def test_an_interpreter_that_is_not_there_is_an_error(bench, worker):
    with pytest.raises(bench("peers").WorkerError, match="cannot run /no/python: "):
        worker(TWIN, python="/no/python")


def test_the_fastest_variant_is_kept_with_its_first_results(bench):
    class Side:
        def __init__(self, seconds):
            self.seconds, self.calls = seconds, 0

        def run(self):
            self.calls += 1
            time.sleep(self.seconds)

        def results(self):
            return {"calls": self.calls}

    variants = {"slow": lambda: Side(0.02), "fast": lambda: Side(0.001)}
    name, side, results = bench("worker")._fastest(variants)
    assert (name, side.seconds, results["calls"]) == ("fast", 0.001, 0)


# -- a whole run ----------------------------------------------------------------------


def run_main(bench, *arguments):
    return bench("run").main(["--threads", "1", *arguments])


def test_a_run_writes_json_and_prints_the_table(bench, fake, tmp_path, capsys):
    fake(TWIN)
    file = tmp_path / "result.json"
    ids = [f"gru/forward/{TINY}", f"gru/train/{TINY}"]
    options = ["--peers", "torch", "--rounds", "3", "--json", str(file), "--table"]
    assert run_main(bench, "--cases", ",".join(ids), *options) == 0
    found = bench("report").load(file)
    assert found["settings"]["threads"] == 1
    assert found["settings"]["rounds"] == 3
    assert [case["id"] for case in found["cases"]] == ids
    for case in found["cases"]:
        assert case["libraries"]["torch"]["error"] == 0
        ratio = case["libraries"]["torch"]["ratio"]
        assert ratio["q1"] <= ratio["median"] <= ratio["q3"]
        assert case["best"] == {"name": "torch", "ratio": ratio}
        assert case["peak_gflops"]["q1"] > 0
        ours = case["libraries"]["fastrnn"]["gflops"]
        assert case["share"] == ours / case["peak_gflops"]["median"]
    out = capsys.readouterr()
    assert "| GRU, training step | fastrnn | of peak | PyTorch | best peer |" in out.out
    assert ids[0] in out.err
    # A run that goes on measures only what the file lacks.
    part = json.loads(file.read_text())
    del part["cases"][1]
    file.write_text(json.dumps(part))
    assert run_main(bench, "--cases", ",".join(ids), *options, "--go-on") == 0
    again = bench("report").load(file)["cases"]
    assert [case["id"] for case in again] == ids
    assert again[0] == found["cases"][0]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (WRONG, f"rnn/train/{TINY}: y differs from that of torch by"),
        (DYING, f"torch: prepare rnn/train/{TINY}: the worker died"),
        (ABSENT, "no peer is there, so nothing can be verified"),
    ],
)
def test_a_run_stops_with_a_message(bench, fake, capsys, source, message):
    fake(source)
    options = ["--cells", "rnn", "--passes", "train", "--shapes", TINY]
    assert run_main(bench, *options, "--peers", "torch") == 1
    assert message in capsys.readouterr().err


def test_what_no_peer_can_verify_is_not_reported(bench, fake, tmp_path, capsys):
    fake(UNSUPPORTED)
    run, cases = bench("run"), bench("cases")
    options = run.parser().parse_args(["--peers", "torch"])
    options.threads, options.rounds, options.block, options.names = 1, 1, 0.001, {}
    lines = []
    case = cases.find(f"rnn/train/{TINY}")
    result = run.run([case], options, lines.append)
    assert result["cases"] == []
    reasons = {"torch": "inference only"}
    assert result["not_reported"] == [{"id": case.id, "reasons": reasons}]
    assert "not verified by any peer" in lines[0]


def test_bad_options_are_refused(bench, capsys):
    for arguments, message in (
        (["--threads", "100000"], "--threads must be at most the CPUs"),
        (["--python", "keras"], "must look like keras=/path/to/python, got 'keras'"),
        (["--peers", "theano"], "theano: not among torch, keras, jax, onnxruntime"),
        (["--cases", "lstm"], "a case's id must look like"),
        (["--passes", "step", "--shapes", TINY], "pass step needs a shape with T1"),
    ):
        with pytest.raises(SystemExit):
            bench("run").main(arguments)
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_kind_of_case_agrees_with_pytorch(bench, capsys, dtype):
    """The other peers, `python -m bench --check`, take a minute to compile."""
    pytest.importorskip("torch", reason="compares with PyTorch")
    assert run_main(bench, "--check", "--dtype", dtype, "--peers", "torch") == 0
    agreeing = capsys.readouterr().out.count("results agree: ")
    assert agreeing == 4 * 2 + 4 + (2 if dtype == "float32" else 0)
