# SPDX-License-Identifier: BSD-3-Clause
"""`py.typed` means it: what mypy and pyright say of programs that use the package.

They find nothing in right programs, `typing/right` and the README's, and in wrong ones,
`typing/wrong`, each line marked ``# wrong`` and no other.  Checkers see the package as
it is installed.  pyright is basedpyright in pyright's strict mode: the same checker,
with all that it runs on.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import compiled
import pytest

PROJECT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).parent / "typing"
RIGHT = sorted(PROGRAMS.glob("right/*.py"))
WRONG = sorted(PROGRAMS.glob("wrong/*.py"))
CHECKERS = ("mypy", "basedpyright")

# What is made of each class, so that its attributes can be looked up.
OBJECTS = {
    "lstm": "fastrnn.LSTM(2, 3)",
    "gru": "fastrnn.GRU(2, 3)",
    "rnn": "fastrnn.RNN(2, 3)",
    "mgu": "fastrnn.MGU(2, 3)",
    "ligru": "fastrnn.LiGRU(2, 3)",
    "leaky": "fastrnn.LeakyRNN(2, 3)",
    "slstm": "fastrnn.SLSTM(2, 3)",
    "indrnn": "fastrnn.IndRNN(2, 3)",
    "mingru": "fastrnn.MinGRU(2, 3)",
    "minlstm": "fastrnn.MinLSTM(2, 3)",
    "sru": "fastrnn.SRU(2, 3)",
    "linear": "fastrnn.Linear(2, 3)",
    "dropout": "fastrnn.Dropout(0.5)",
    "embedding": "fastrnn.Embedding(4, 3)",
    "attention": "fastrnn.Attention(4)",
    "both_ways": "fastrnn.Bidirectional(fastrnn.LSTM(2, 3))",
    "crf": "fastrnn.CRF(3)",
    "norm": "fastrnn.LayerNorm(3)",
    "every_step": "fastrnn.TimeDistributed(fastrnn.Linear(2, 3))",
    "concatenate": "fastrnn.Concatenate()",
    "add": "fastrnn.Add()",
    "maximum": "fastrnn.Maximum()",
    "convolution": "fastrnn.Conv1D(3, 2, in_channels=4)",
    "batch_norm": "fastrnn.BatchNormalization(num_features=3)",
    "flatten": "fastrnn.Flatten()",
    "reshape": "fastrnn.Reshape((3, 2))",
    "permute": "fastrnn.Permute((2, 1))",
    "repeat": "fastrnn.RepeatVector(3)",
    "mean": "fastrnn.GlobalAveragePooling1D()",
    "largest": "fastrnn.GlobalMaxPooling1D()",
    "max_pooling": "fastrnn.MaxPooling1D()",
    "average_pooling": "fastrnn.AveragePooling1D(3)",
    "spatial_dropout": "fastrnn.SpatialDropout1D(0.5)",
    "functional": "fastrnn.Functional('x', [(fastrnn.Linear(2, 3), 'x', 'y')], 'y')",
    "samples_shape": "fastrnn.Input((3, 2))",
    "masking": "fastrnn.Masking()",
    "activation": "fastrnn.Activation('tanh')",
    "model": "fastrnn.Sequential(fastrnn.Linear(2, 3))",
    "generator": "fastrnn.Generator(9, fastrnn.GRU(4, 8), start=0, end=1)",
    "stream": "fastrnn.GRU(2, 3).stream()",
    "window": "next(iter(fastrnn.tbptt([[[1.0]], [[2.0]]], 1)))",
    "sgd": "fastrnn.SGD(linear)",
    "rmsprop": "fastrnn.RMSprop(linear)",
    "adagrad": "fastrnn.Adagrad(linear)",
    "adam": "fastrnn.Adam(linear)",
    "tokenizer": "fastrnn.CharTokenizer().fit(['ab'])",
    "vocabulary": "fastrnn.Vocabulary(['a'])",
    "sampler": "fastrnn.BucketSampler([1, 2], 2)",
    "packed": "fastrnn.pack([[1.0]])",
    "stopping": "fastrnn.callbacks.EarlyStopping()",
    "checkpoint": "fastrnn.callbacks.ModelCheckpoint('x')",
    "monitor": "fastrnn.callbacks.GradientMonitor()",
    "cosine": "fastrnn.schedules.CosineLR()",
    "warm_up": "fastrnn.schedules.WarmUp(2)",
    "plateau": "fastrnn.schedules.ReduceLROnPlateau()",
    "huber": "fastrnn.objectives.Huber()",
    "crossentropy": "fastrnn.objectives.BinaryCrossentropy()",
    "rates": "fastrnn.callbacks.LearningRateScheduler(lambda epoch: 0.1)",
    "accuracy": "fastrnn.metrics.Accuracy()",
    "precision": "fastrnn.metrics.Precision()",
    "auc": "fastrnn.metrics.AUC()",
    "log_cosh": "fastrnn.objectives.LogCosh()",
    "made_later": "fastrnn.Adam(learning_rate=0.1)",
    "top_k": "fastrnn.metrics.TopK()",
}


def what_objects_have():
    """A program that looks up all public attributes that objects have at run time."""
    lines, made = ["import fastrnn"], {}
    exec("import fastrnn", made)
    for name, expression in OBJECTS.items():
        made[name] = eval(expression, made)
        found = dir(made[name])
        lines.append(f"{name} = {expression}")
        public = (one for one in sorted(found) if one.isidentifier() and one[0] != "_")
        lines += [f"print({name}.{one})" for one in public]
    return "\n".join(lines)


def readme():
    """The README's blocks of Python, as one program."""
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    return "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))


def mypy(files, folder):
    """Errors of ``mypy --strict``, line by line."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--no-error-summary"),
            *("--config-file=", f"--cache-dir={folder}", "--hide-error-context"),
            # Packages that the rooms of others are for need not be installed.
            *("--ignore-missing-imports", *map(str, files)),
        ],
        capture_output=True,
        encoding="utf-8",
        cwd=folder,
        check=False,
    )
    assert done.stderr == ""
    found = re.findall(r"^(.+?):(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    assert bool(found) == bool(done.returncode), done.stdout
    return [(Path(file).resolve(), int(line), text) for file, line, text in found]


def basedpyright(files, folder):
    """Errors of pyright in its strict mode, line by line; warnings are none."""
    config = {
        "include": [str(file) for file in files],
        "typeCheckingMode": "strict",
        "strictListInference": False,
        # Statements for the sake of what a checker says of them.
        "reportUnusedExpression": "none",
        "reportMissingImports": "none",
        "reportMissingTypeStubs": "none",
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "basedpyright", "--outputjson"),
            *("-p", str(folder), "--pythonpath", sys.executable),
        ],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    found = json.loads(done.stdout)
    assert found["summary"]["filesAnalyzed"] == len(files), done.stdout
    return [
        (Path(one["file"]), one["range"]["start"]["line"] + 1, one["message"])
        for one in found["generalDiagnostics"]
        if one["severity"] == "error"
    ]


@pytest.fixture(scope="module", params=CHECKERS)
def errors(request, tmp_path_factory):
    """What a checker says of all programs, by file: line and message of each error."""
    pytest.importorskip(request.param, reason="the extra typing is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    written = {"readme.py": readme(), "what_objects_have.py": what_objects_have()}
    for name, program in written.items():
        (folder / name).write_text(program, encoding="utf-8")
    files = [*RIGHT, *WRONG, *(folder / name for name in written)]
    found = {file.name: [] for file in files}
    for file, line, text in globals()[request.param](files, folder):
        found[file.name].append((line, text))
    return found


@pytest.mark.parametrize(
    "name", ["readme.py", "what_objects_have.py", *(file.name for file in RIGHT)]
)
def test_right_programs(errors, name):
    if name == "others.py":  # it is of their classes
        for package in ("torch", "sklearn"):
            pytest.importorskip(package, reason=f"{package} is not installed")
    assert errors[name] == []


@pytest.mark.parametrize("file", WRONG, ids=lambda file: file.name)
def test_wrong_programs(errors, file):
    lines = file.read_text(encoding="utf-8").splitlines()
    marked = [line for line in lines if line.endswith("  # wrong")]
    seen = {line for line, _ in errors[file.name]}
    assert [lines[line - 1] for line in sorted(seen)] == marked


def test_stubs_of_compiled_modules(tmp_path):
    """Stubs say what the compiled modules have, argument by argument."""
    pytest.importorskip("mypy", reason="the extra typing is not installed")
    allowed = tmp_path / "allowed"
    allowed.write_text(r".*\.(__test__|__pyx_capi__)")  # what Cython adds
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy.stubtest", "--concise"),
            *("--ignore-disjoint-bases", "--allowlist", str(allowed)),
            *("--ignore-unused-allowlist", *(m.__name__ for m in compiled.MODULES)),
        ],
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
