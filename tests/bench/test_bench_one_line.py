# SPDX-License-Identifier: BSD-3-Clause
"""The benchmark of programs without and with the line that runs them on fastrnn."""

import os

import pytest

# Stands for a program of another library, and agrees with fastrnn, being it.
TWIN = """
from bench.adapters import fastrnn
CASES = fastrnn.CASES
def start(n_threads, dtype):
    fastrnn.start(n_threads, dtype)
    return {"versions": {"twin": "1"}, "settings": {}}
variants = fastrnn.variants
"""
# Its losses are as far from fastrnn's as those of a program with one bias may be.
DRIFTING = (
    TWIN
    + """
class Side:
    def __init__(self, make):
        self.side = make()
        self.run = self.side.run
    def results(self):
        found = self.side.results()
        return {**found, "later losses": 1.01 * found["later losses"]}
def variants(case, dtype):
    (make,) = fastrnn.variants(case, dtype).values()
    return {"drifting": lambda: Side(make)}
"""
)


@pytest.fixture
def run(bench, monkeypatch, tmp_path):
    """Run the benchmark with sources of adapters for some libraries."""
    path = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))

    def run(*arguments, **sources):
        adapters, modules = bench("adapters"), {}
        for name, source in sources.items():
            library = name.replace("_and_", "+")
            modules[library] = f"fake_{name}"
            (tmp_path / f"fake_{name}.py").write_text(source)
        real = adapters.module_of
        with monkeypatch.context() as patch:
            patch.setattr(
                adapters, "module_of", lambda name: modules.get(name) or real(name)
            )
            return bench("run").main(["--threads", "1", *arguments])

    return run


def test_a_gain_is_of_the_program_without_and_with_the_line(bench, run, tmp_path):
    file = tmp_path / "result.json"
    status = run(
        *("--cases", "keras/train/check-gru", "--rounds", "3", "--json", str(file)),
        # In any order: what is compared with what goes by the names.
        *("--peers", "keras_torch+fastrnn,keras_torch"),
        keras_torch=TWIN,
        keras_torch_and_fastrnn=TWIN,
    )
    assert status == 0
    report, result = bench("report"), bench("result").load(file)
    (record,) = result["cases"]
    libraries = record["libraries"]
    gain = libraries["keras_torch+fastrnn"]["gain"]
    assert 0 < gain["q1"] <= gain["median"] <= gain["q3"]
    assert "gain" not in libraries["keras_torch"]
    assert record["best"]["name"] == "keras_torch"  # the other one runs on fastrnn
    (peers,) = report.pass_tables(result, ["program"])
    assert "| Keras on PyTorch | best peer |" in peers
    head, _, row = report.gains_table(result).splitlines()
    assert head.endswith("| program | without | with | gain | fastrnn alone |")
    assert row.startswith("| GRU(17) T6 B8 I5 | Keras on PyTorch | ")
    assert f"| **{gain['median']:.2f}x** (" in row
    assert row in report.tables(result)


def test_a_result_without_such_programs_has_no_table_of_gains(bench):
    result = bench("result").load(bench("pages").RESULTS / "epyc-2core-0.1.0.json")
    assert bench("report").gains_table(result) == ""
    assert "gain" not in bench("report").tables(result)


def test_a_program_is_compared_with_the_same_program_without_the_line(run, capsys):
    arguments = "--cases", "keras/train/check-rnn", "--rounds", "1", "--peers"
    assert run(*arguments, "keras_torch", keras_torch=DRIFTING) == 0
    both = {"keras_torch": TWIN, "keras_torch_and_fastrnn": DRIFTING}
    assert run(*arguments, "keras_torch,keras_torch+fastrnn", **both) == 1
    message = "check-rnn: later losses differs from that of keras_torch by 1.00e-02"
    assert message in capsys.readouterr().err


def test_what_runs_on_fastrnn_verifies_nothing(run, capsys):
    arguments = "--cases", "keras/train/check-rnn", "--peers", "keras_torch+fastrnn"
    assert run(*arguments, keras_torch_and_fastrnn=TWIN) == 1
    assert "no peer is there, so nothing can be verified" in capsys.readouterr().err


def test_a_library_is_asked_only_for_cases_of_its_types(run, capsys):
    arguments = "--cases", "keras/train/check-rnn", "--peers", "torch"
    assert run(*arguments, torch=TWIN.replace("CASES = fastrnn.CASES", "")) == 0
    assert "has no cases of the type ProgramCase" in capsys.readouterr().out


def test_each_process_has_the_backend_of_its_program(bench):
    adapters = bench("adapters")
    accelerated = {"KERAS_BACKEND": "jax", "FASTRNN_BENCH_ACCELERATE": "1"}
    assert adapters.environment_of("keras_jax+fastrnn") == accelerated
    assert adapters.environment_of("keras_jax") == {"KERAS_BACKEND": "jax"}
    assert adapters.environment_of("torch") == {}
    assert adapters.PLAIN_OF["keras_jax+fastrnn"] == "keras_jax"


def test_the_programs_have_names_and_operations(bench):
    programs, cases = bench("programs"), bench("cases")
    case = cases.find("keras/train/lstm-H50x3")
    layers = 2 * 100 * 4 * 50 * ((1 + 50) + 2 * (50 + 50))
    assert case.flops == 3 * 64 * (layers + 2 * 50)
    assert case.describe()["label"] == "LSTM(50) x3"
    with pytest.raises(ValueError, match="bench: program must be one of lstm-H128"):
        programs.by_name("transformer")


def test_programs_of_keras_agree(keras, run, capsys):
    backend = keras.backend.backend()
    peers = f"keras_{backend},keras_{backend}+fastrnn"
    arguments = "--peers", peers, "--rounds", "1", "--table"
    assert run("--cases", "keras/train/check-lstm", *arguments) == 0
    assert capsys.readouterr().out.count("x** (") == 1


def test_functions_for_jax_agree(run, capsys):
    pytest.importorskip("jax", reason="compares with JAX")
    shape = "T5-B3-I7-H17"
    ids = [f"{cell}/train/{shape}" for cell in ("lstm", "gru", "rnn", "rnn_relu")]
    ids += [f"gru/forward/{shape}", "lstm/step/T1-B3-I7-H17", "rnn/step/T1-B3-I7-H17"]
    arguments = "--peers", "jax,jax+fastrnn", "--rounds", "1", "--table"
    assert run("--cases", ",".join(ids), *arguments) == 0
    assert capsys.readouterr().out.count("x** (") == len(ids)
