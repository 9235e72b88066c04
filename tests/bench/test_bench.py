# SPDX-License-Identifier: BSD-3-Clause
"""The benchmark's own parts: cases, timing, verification, reports and plots."""

import json
import time

import numpy as np
import pytest

from fastrnn.native import core

TINY = "T5-B3-I7-H17"


# -- cases ----------------------------------------------------------------------------


def test_ids_are_unique_and_lead_back_to_their_cases(bench):
    cases, deepbench = bench("cases"), bench("deepbench")
    suites = [
        cases.standard(),
        cases.quick(),
        cases.check(),
        cases.summary(),
        cases.one_line(),
        deepbench.every(),
    ]
    for suite in suites:
        ids = [case.id for case in suite]
        assert len(set(ids)) == len(ids)
        assert [cases.find(case_id) for case_id in ids] == suite
    assert len(suites[0]) == len(cases.CELLS) * (2 * 9 + 2) + 4


def test_flops_follow_the_formula(bench):
    cases, models = bench("cases"), bench("models")
    case = cases.find("lstm/train/T100-B64-I512-H256")
    assert case.flops == 3 * 2 * 100 * 64 * 4 * 256 * (512 + 256)
    assert cases.find("gru/step/T1-B2-I3-H5").flops == 2 * 2 * 3 * 5 * (3 + 5)
    words = models.Model("", "", V=7, E=3, H=5, layers=2, T=11, B=13)
    lstm = 2 * 11 * 13 * 4 * 5 * ((3 + 5) + (5 + 5))
    assert words.flops == 3 * (lstm + 2 * 11 * 13 * 5 * 7)
    assert (words.items, words.steps, words.unit) == (143, 1, "tokens")
    windows = models.Model("", "", V=0, E=1, H=5, layers=1, T=11, B=4, windows=10)
    assert windows.flops == 3 * 10 * (2 * 11 * 4 * 5 * (1 + 5) + 2 * 5)
    assert (windows.items, windows.steps, windows.unit) == (10, 3, "windows")


@pytest.mark.parametrize("text", ["", "T1-B1-I1", "T1-B0-I1-H1", "T1-B1-I1-H1-"])
def test_a_wrong_shape_is_refused(bench, text):
    with pytest.raises(ValueError, match=f"bench: a shape must look like .*{text!r}"):
        bench("cases").Shape.parse(text)


@pytest.mark.parametrize(
    ("case_id", "message"),
    [
        ("lstm", "bench: a case's id must look like .*, got 'lstm'"),
        ("elman/train/T1-B1-I1-H1", "bench: a case's id must look like"),
        ("lstm/backward/T1-B1-I1-H1", "bench: a case's id must look like"),
        ("lstm/step/T2-B1-I1-H1", "bench: pass step needs a shape with T1"),
        ("model/train/gpt", "bench: model must be one of char-H128, .*, got 'gpt'"),
    ],
)
def test_a_wrong_id_is_refused(bench, case_id, message):
    with pytest.raises(ValueError, match=message):
        bench("cases").find(case_id)


def test_deepbench_has_the_published_problems(bench):
    deepbench, cases = bench("deepbench"), bench("cases")
    assert (len(deepbench.TRAINING), len(deepbench.INFERENCE)) == (52, 72)
    assert len(deepbench.every()) == 123  # one inference problem is listed twice
    suite = deepbench.suite()
    assert set(suite) < set(deepbench.every())
    assert max(case.flops for case in suite) <= deepbench.MOST_FLOPS
    case = cases.find("lstm/train/T25-B16-I512-H512")
    assert case in suite
    assert deepbench.published_name(case) == "lstm 512 16 25"


def test_data_is_that_of_the_seed(bench):
    data, models = bench("data"), bench("models")
    case = bench("cases").find(f"gru/train/{TINY}")
    once, again = (data.layer(case, "float32") for _ in range(2))
    assert once[0].keys() == again[0].keys()
    assert all((once[0][name] == again[0][name]).all() for name in once[0])
    assert (once[1] == again[1]).all()
    assert once[0]["weight_ih_l0"].shape == (51, 7)
    _, batches = data.model(models.by_name("stock-H50x3"), "float32")
    assert len(batches) == 14
    assert batches[0][0].shape == (100, 64, 1)
    assert batches[-1][0].shape == (100, 843 - 13 * 64, 1)
    _, batches = data.model(models.by_name("check-tokens"), "float32")
    tokens, targets = batches[0]
    assert (tokens[1:] == targets[:-1]).all()


# -- timing ---------------------------------------------------------------------------


def test_quartiles(bench):
    quartiles = bench("timing").quartiles
    assert quartiles([5, 1, 3, 2, 4]) == {"q1": 2, "median": 3, "q3": 4}
    assert quartiles([7]) == {"q1": 7, "median": 7, "q3": 7}


def test_each_library_has_its_turn_in_each_round(bench):
    assert "".join(bench("timing").turns("abc", 3)) == "abccbaabc"


def test_a_block_times_calls(bench):
    timing, calls = bench("timing"), []
    seconds, cores = timing.block_time(lambda: calls.append(time.sleep(0.002)), 0.02)
    assert seconds >= 0.002
    assert cores >= 0
    assert len(calls) >= 3
    calls.clear()
    timing.block_time(lambda: calls.append(time.sleep(timing.LONG)), 0.0)
    assert len(calls) == 1


def test_fma_peak_counts_the_operations_of_the_whole_team(isa, dtype):
    kernels = core.kernels(dtype)
    one = kernels.fma_peak(1, 10)
    assert one > 0
    assert one % (2 * kernels.lanes * 10) == 0  # a whole number of chains of vectors
    assert kernels.fma_peak(1, 30) == 3 * one
    assert kernels.fma_peak(2, 10) in {one, 2 * one}  # the team may be smaller
    assert kernels.fma_peak(1, 0) == 0


# -- verification ---------------------------------------------------------------------


def test_wrong_results_are_refused(bench):
    compare = bench("verify").compare
    case = bench("cases").find(f"lstm/train/{TINY}")
    good = {"y": np.ones(3, "f")}
    assert compare(good, "torch", good, case, "float32") == 0
    wrong = [
        (
            {"y": np.array([1, 1, 1.001], "f")},
            "y differs from that of torch by 1.00e-03",
        ),
        ({"y": np.array([1, 1, np.nan], "f")}, "y differs from that of torch by nan"),
        ({"y": np.ones(4, "f")}, r"y has shape \(4,\), that of torch \(3,\)"),
        ({"z": np.ones(3, "f")}, r"fastrnn gave \['z'\], torch \['y'\]"),
    ]
    for bad, message in wrong:
        with pytest.raises(ArithmeticError, match=f"^{case.id}: {message}"):
            compare(good, "torch", bad, case, "float32")


def test_gradients_of_relu_are_compared_by_norm(bench):
    compare, find = bench("verify").compare, bench("cases").find
    expected = np.ones(10_000)
    got = expected.copy()
    got[0] = 0.9  # one unit on the other side of the kink
    relu, tanh = find(f"rnn_relu/train/{TINY}"), find(f"rnn/train/{TINY}")
    error = compare({"dx": expected}, "jax", {"dx": got}, relu, "float32")
    assert error == pytest.approx(1e-3)
    for case, key in ((relu, "y"), (tanh, "dx")):
        with pytest.raises(ArithmeticError, match="differs from that of jax"):
            compare({key: expected}, "jax", {key: got}, case, "float32")


def test_only_later_losses_of_keras_may_drift(bench):
    compare = bench("verify").compare
    case = bench("cases").find("model/train/char-H128")
    for key, name, passes in (
        ("later losses", "keras", True),
        ("later losses", "jax", False),
        ("loss", "keras", False),
    ):
        arrays = ({key: np.ones(1)}, name, {key: np.full(1, 1.01)})
        if passes:
            compare(*arrays, case, "float32")
        else:
            with pytest.raises(ArithmeticError, match=f"{key} differs"):
                compare(*arrays, case, "float32")


# -- report ---------------------------------------------------------------------------


def record(bench, case_id, ours, theirs):
    """One case of a result file: our ms, and the ms of each peer."""
    case, quartiles = bench("cases").find(case_id), bench("timing").quartiles
    libraries = {
        name: {"ms": quartiles([ms]), "gflops": case.flops / ms / 1e6}
        for name, ms in {"fastrnn": ours, **theirs}.items()
    }
    for name, ms in theirs.items():
        libraries[name]["ratio"] = quartiles([ms / ours])
    best = min(theirs, key=theirs.get)
    gflops = libraries["fastrnn"]["gflops"]
    return {
        **case.describe(),
        "libraries": libraries,
        "best": {"name": best, "ratio": libraries[best]["ratio"]},
        "peak_gflops": quartiles([2 * gflops]),
        "share": 0.5,
    }


def result(bench, ours=2.0):
    """A result file's content."""
    theirs = {"torch": 5.0, "jax": 4.0}
    ids = [f"lstm/train/T100-B32-I{H}-H{H}" for H in (64, 128)]
    ids.append("lstm/train/T100-B16-I64-H64")  # less work with as many units
    ids += ["gru/forward/T100-B1-I64-H64", "rnn/step/T1-B1-I64-H64"]
    ids += ["model/train/char-H512x2"]
    return {
        "format": bench("result").FORMAT,
        "machine": {"cpu": "a CPU", "isa": "x86_v3", "python": "3"},
        "libraries": {"fastrnn": {"versions": {"fastrnn": "1"}}},
        "absent": {"keras": "not installed"},
        "settings": {"threads": 2, "dtype": "float32", "rounds": 11},
        "date": "2026-01-02T03:04:05+00:00",
        "cases": [record(bench, case_id, ours, theirs) for case_id in ids],
    }


def test_the_tables_say_time_share_and_ratios(bench):
    text = bench("report").tables(result(bench))
    assert "| LSTM, training step | fastrnn | of peak | PyTorch | JAX | best" in text
    peers = "2.50x (2.50 to 2.50) | 2.00x (2.00 to 2.00) | **2.00x**"
    ours = "2.00 ms (2.00 to 2.00)"
    assert f"| T100 B32 I64 H64 | {ours} | 50% | {peers} |" in text
    assert "| RNN, single step |" in text
    assert f"| Character model V65 E64 H512 x2 T100 B64 | {ours} |" in text
    assert "a CPU, 2 threads, x86_v3, float32" in text
    assert "Keras was absent: not installed." in text


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        ((0.0408, 0.0413, 0.0421), "41.3 µs (40.8 to 42.1)"),
        ((7.086, 7.146, 7.189), "7.15 ms (7.09 to 7.19)"),
        ((34.96, 35.0, 35.1), "35.0 ms (35.0 to 35.1)"),
        ((381.2, 386.0, 395.4), "386 ms (381 to 395)"),
        ((1200.0, 1234.0, 1300.0), "1.23 s (1.20 to 1.30)"),
    ],
)
def test_a_time_has_its_quartiles_in_its_own_unit(bench, ms, text):
    found = result(bench)
    record = found["cases"][0]
    record["libraries"]["fastrnn"]["ms"] = dict(
        zip(("q1", "median", "q3"), ms, strict=True)
    )
    assert f"| {text} | 50% |" in bench("report").tables(found)


def test_compare_says_what_changed(bench):
    compare, old = bench("report").compare, result(bench)
    line = compare(old, result(bench, 1.0)).splitlines()[0]
    words = ["2", "ms", "->", "1", "ms", "(-50.0%),", "50%", "->", "50%", "of", "peak,"]
    assert line.split()[1:] == [*words, "2.00x", "->", "4.00x"]
    assert "within the spread" in compare(old, old)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ('{"format": 1}', "format must be 2, got 1: measure again"),
        ("[]", "format must be 2, got None"),
    ],
)
def test_another_format_is_refused(bench, tmp_path, capsys, text, message):
    file = tmp_path / "old.json"
    file.write_text(text)
    assert bench("report").main([str(file)]) == 1
    assert message in capsys.readouterr().err


def test_plots_are_written(bench, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="bench.plots draws with matplotlib")
    file, folder = tmp_path / "result.json", tmp_path / "plots"
    file.write_text(json.dumps(result(bench)))
    assert bench("report").main([str(file), "--plots", str(folder)]) == 0
    names = ["training.png", "share.png", "ratio.png"]
    assert capsys.readouterr().out.split() == [str(folder / name) for name in names]
    for name in names:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    points = bench("plots").points
    lines = points(result(bench), "lstm", "Training step", bench("plots").ratio)
    assert lines == {"torch": [(64, 2.5), (128, 2.5)], "jax": [(64, 2.0), (128, 2.0)]}


def test_plots_of_nothing_are_refused(bench, tmp_path):
    pytest.importorskip("matplotlib", reason="bench.plots draws with matplotlib")
    with pytest.raises(bench("result").FormatError, match=r"timed layers .* got none"):
        bench("plots").write({**result(bench), "cases": []}, tmp_path)
