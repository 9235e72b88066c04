# SPDX-License-Identifier: BSD-3-Clause
"""The suites bf16 and int8: accuracy beside speed, in tiny shapes."""

import importlib

import numpy as np
import pytest

BF16 = "T5-B8-I16-H16"
INT8 = "T1-B1-I16-H16,T5-B2-I16-H16"


@pytest.fixture
def run(bench, tmp_path):
    """Run a suite; its result and its exit status."""

    def run(*arguments):
        file = tmp_path / "result.json"
        settings = "--threads", "1", "--rounds", "1", "--json", str(file)
        status = bench("run").main([*arguments, *settings])
        return bench("result").load(file), status

    return run


def errors(record, name):
    return record["libraries"][name]["errors"]


def test_bf16_has_the_accuracy_of_each_way_beside_its_speed(bench, run, capsys):
    peers = "--peers", "fastrnn-compute-bfloat16"
    result, status = run("--suite", "bf16", "--shapes", BF16, *peers)
    assert status == 0
    cases = [(record["cell"], record["pass"]) for record in result["cases"]]
    assert cases == [
        (c, p) for p in ("train", "forward") for c in ("lstm", "gru", "rnn")
    ]
    for record in result["cases"]:
        exact = errors(record, "fastrnn")
        rounded = errors(record, "fastrnn-compute-bfloat16")
        keys = ["y", "dweight_hh_l0"][: 2 if record["pass"] == "train" else 1]
        assert list(exact) == list(rounded) == keys
        assert max(exact.values()) < 1e-6
        assert 1e-4 < rounded["y"] < 4e-3
        assert rounded.get("dweight_hh_l0", 1e-3) < 1e-2
        gain = record["libraries"]["fastrnn-compute-bfloat16"]["gain"]["median"]
        ratio = record["libraries"]["fastrnn-compute-bfloat16"]["ratio"]["median"]
        assert gain == pytest.approx(1 / ratio)
        assert record["best"] is None
    out = capsys.readouterr().out
    assert 'fastrnn `compute="bfloat16"`' in out
    assert ", ".join(result["machine"]["instructions"]) in out


def test_int8_has_steps_and_sequences_with_bytes_of_weights(bench, run):
    peers = "--peers", "fastrnn-weights-bfloat16,fastrnn-weights-int8"
    result, status = run("--suite", "int8", "--shapes", INT8, *peers)
    assert status == 0
    found = [record["id"] for record in result["cases"]]
    one, five = INT8.split(",")
    assert found == [
        *(f"{cell}/step/{one}" for cell in ("lstm", "gru")),
        *(f"{cell}/forward/{five}" for cell in ("lstm", "gru")),
    ]
    for record in result["cases"]:
        libraries = record["libraries"]
        assert errors(record, "fastrnn")["y"] < 1e-6
        for name in ("fastrnn-weights-int8", "fastrnn-weights-bfloat16"):
            assert 1e-5 < errors(record, name)["y"] < 1e-2
        assert libraries["fastrnn"]["weight_bytes"] == sum(
            4 * G * 16 * (16 + 16 + 2) for G in [4 if record["cell"] == "lstm" else 3]
        )
        assert libraries["fastrnn-weights-int8"]["weight_bytes"] > 0
    step, *_ = bench("narrow").tables(result)
    head, _, *rows = step.splitlines()
    assert head == "| LSTM, single step | time | speed | gain | error of y | weights |"
    assert [row.split(" | ")[0] for row in rows] == [
        "| T1 B1 H16, fastrnn float32",
        '| T1 B1 H16, fastrnn `quantize("bfloat16")`',
        '| T1 B1 H16, fastrnn `quantize("int8")`',
    ]


def test_what_is_missing_is_named(bench, run, monkeypatch, capsys):
    adapters, real = bench("adapters"), bench("adapters").module_of
    monkeypatch.setattr(
        adapters,
        "module_of",
        lambda name: "no_such_module" if name == "torch-int8" else real(name),
    )
    peers = "--peers", "fastrnn-compute-bfloat16,fastrnn-weights-int8,torch-int8"
    cells = "--cells", "gru,mgu", "--passes", "train"
    result, status = run("--suite", "bf16", "--shapes", BF16, *cells, *peers)
    assert status == 0
    assert "no_such_module" in result["absent"]["torch-int8"]
    assert "PyTorch int8 is absent: ModuleNotFoundError" in capsys.readouterr().out
    (record,) = result["cases"]
    reason = record["unsupported"]["fastrnn-weights-int8"]
    assert reason == "such weights are for inference"
    row = f'| T5 B8 H16, fastrnn `quantize("int8")`: {reason} |  |'
    assert row in bench("report").tables(result)
    (missing,) = result["not_reported"]  # the equations have no such cell
    assert missing["id"] == f"mgu/train/{BF16}"
    assert missing["reasons"]["exact"] == "it has no layer of the cell mgu"


def test_narrow_numbers_are_of_float32_alone(bench, capsys):
    with pytest.raises(SystemExit):
        bench("run").main(["--suite", "bf16", "--dtype", "float64"])
    assert "--dtype must be float32 beside narrower" in capsys.readouterr().err


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_the_equations_are_those_of_layers_in_float64(bench, cell):
    """The layers' gradients are those of differences: tests/nn and tests/recurrent."""
    case = bench("cases").find(f"{cell}/train/T6-B3-I4-H5")
    weights, x, dy = bench("data").layer(case, "float32")
    layer = bench("cases").new_layer(cell, 4, 5, "float64").train()
    layer.load_state_dict({name: w.astype(float) for name, w in weights.items()})
    y, _ = layer(x.astype(float))
    layer.backward(dy.astype(float))
    (make,) = bench("adapters.exact").variants(case, "float32").values()
    exact = make().results()
    np.testing.assert_allclose(exact["y"], y, rtol=1e-12, atol=1e-14)
    dR = layer.grads["weight_hh_l0"]
    np.testing.assert_allclose(exact["dweight_hh_l0"], dR, rtol=1e-12, atol=1e-14)


def test_wrong_results_are_refused(bench):
    distances = bench("verify").distances
    case = bench("cases").find(f"lstm/forward/{BF16}")
    exact = {"y": np.ones(4)}
    off = {"y": np.full(4, 1.01)}
    assert distances(off, "torch-int8", exact, case, True) == {"y": pytest.approx(0.01)}
    for bad, is_narrow, message in (
        (off, False, "y of a peer is off by 1.00e-02 of its norm, allowed 1e-04"),
        ({"y": np.full(4, 1.6)}, True, "y of a peer is off by 6.00e-01 of its norm"),
        ({"y": np.full(4, np.nan)}, True, "y of a peer is off by nan"),
        ({"y": np.ones(1)}, True, r"y of a peer has shape \(1,\), not \(4,\)"),
    ):
        with pytest.raises(ArithmeticError, match=f"^{case.id}: {message}"):
            distances(bad, "a peer", exact, case, is_narrow)


@pytest.mark.parametrize(
    ("way", "largest"),
    [
        ("torch-autocast", 2e-2),
        ("torch-bfloat16", 2e-2),
        ("torch-int8", 5e-2),
        ("onnxruntime-int8", 3e-2),
    ],
)
def test_each_way_of_a_peer_is_near_the_equations(bench, monkeypatch, way, largest):
    library = way.partition("-")[0]
    peer = pytest.importorskip(library, reason="the way is that library's")
    if library == "torch":  # a way sets the engine for the whole process
        engine = peer.backends.quantized.engine
        monkeypatch.setattr(peer.backends.quantized, "engine", engine)
    else:
        bench("adapters.onnxruntime").start(1, "float32")
    adapters, verify = bench("adapters"), bench("verify")
    monkeypatch.setenv(*next(iter(adapters.environment_of(way).items())))
    adapter = importlib.import_module(adapters.module_of(way))
    passes = ["forward/T5-B2-I16-H16", "step/T1-B1-I16-H16"]
    passes += [f"train/{BF16}"] if way in adapters.OF_SUITE["bf16"] else []
    for what in passes:
        case = bench("cases").find(f"lstm/{what}")
        (make,) = bench("adapters.exact").variants(case, "float32").values()
        exact = make().results()
        try:
            sides = [make() for make in adapter.variants(case, "float32").values()]
        except adapters.UnsupportedError as error:
            pytest.skip(f"this processor: {error}")
        for side in sides:
            found = verify.distances(side.results(), way, exact, case, True)
            assert 1e-5 < found["y"] <= max(found.values()) < largest
            assert adapter.weight_bytes(side) > 0


def test_what_fastrnn_refuses_is_named(bench, monkeypatch):
    monkeypatch.setenv("FASTRNN_BENCH_WAY", "compute-bfloat17")
    case = bench("cases").find(f"lstm/train/{BF16}")
    (make,) = bench("adapters.fastrnn_narrow").variants(case, "float32").values()
    unsupported = bench("adapters").UnsupportedError
    with pytest.raises(unsupported, match=r"LSTM: compute must be .*'bfloat17'"):
        make()


def test_no_operator_of_int8_for_a_gru_is_said(bench):
    pytest.importorskip("onnxruntime", reason="compares with ONNX Runtime")
    pytest.importorskip("onnx", reason="makes the models")
    case = bench("cases").find(f"gru/forward/{BF16}")
    with pytest.raises(
        bench("adapters").UnsupportedError, match="int8 for the cell gru"
    ):
        bench("adapters.onnxruntime_int8").variants(case, "float32")


def test_a_way_that_a_processor_refuses_is_named(bench, monkeypatch):
    torch = pytest.importorskip("torch", reason="a way of PyTorch")

    class Refusing(torch.nn.LSTM):
        def forward(self, *arguments):
            raise RuntimeError("could not create a primitive descriptor\nmore")

    monkeypatch.setattr(torch.nn, "LSTM", Refusing)
    monkeypatch.setenv("FASTRNN_BENCH_WAY", "bfloat16")
    case = bench("cases").find(f"lstm/train/{BF16}")
    (make,) = bench("adapters.torch_narrow").variants(case, "float32").values()
    unsupported = bench("adapters").UnsupportedError
    with pytest.raises(unsupported, match=r"^could not create a primitive descriptor$"):
        make()
