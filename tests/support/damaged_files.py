# SPDX-License-Identifier: BSD-3-Clause
"""Whole files of every format that is read, what damages them, and a process that reads
what comes of it under limits of memory and time.

``python damaged_files.py FORMAT FILE N [FIRST]`` reads N damaged copies of a file, each
given by its number, and ends with 1 at the first that does not load and raises anything
but a ValueError with the file's path, or takes more memory or time than it may. Without
arguments that say otherwise, a number gives the same copy in every run.
"""

import faulthandler
import json
import random
import re
import resource
import sys
import tempfile
import tracemalloc
import warnings
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import fastrnn
from fastrnn import text
from fastrnn.text import checkpoint
from fastrnn.text.settings import Settings
from fastrnn.text.training import Trainer
from fastrnn.util.printable import printable

SECONDS = 20  # for one file, on a busy machine

# What a value of JSON may be replaced by.
ODD = [
    None, True, False, 0, 1, -1, 3, 2**31, 2**63, 2**64, 10**15, 10**400, 0.5, -0.0,
    1e308, float("nan"), float("inf"), "", "x", "0", "\x1b[2J", "\ud800", "a" * 3000,
    [], {}, [[]], [None], [1, 2, 3], {"": 0}, {"class": "GRU", "arguments": None},
]  # fmt: skip


def most_memory(size):
    """Bytes that reading a file of a size may take."""
    return 10 * size + (64 << 20)


@contextmanager
def bounded(path):
    """Let the body take no more memory than reading the file at `path` may."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= most_memory(Path(path).stat().st_size)


ESCAPE = "\x1b]0;owned\x07\x9b2J\u202e"


def refused(path, message, read=fastrnn.load_model):
    """Reading must fail with the path and the message, and take little memory."""
    with bounded(path), pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert printable(str(caught.value)) == str(caught.value)
    return str(caught.value)


# -- container files -------------------------------------------------------------------


def unpacked(path):
    """Arrays, key and JSON object of a container file."""
    data = Path(path).read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    ((key, value),) = header["__metadata__"].items()
    return dict(safetensors.numpy.load(data)), key, json.loads(value)


def packed(path, arrays, key, meta):
    """Write a container file whose checksum is right, whatever is in it."""
    meta = {k: v for k, v in meta.items() if k != "checksum"}
    value = zlib.crc32(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(arrays):
        head = f"{name} {arrays[name].dtype} {arrays[name].shape}".encode()
        value = zlib.crc32(arrays[name].tobytes(), zlib.crc32(head, value))
    data = safetensors.numpy.save(arrays, {key: json.dumps(meta | {"checksum": value})})
    Path(path).write_bytes(data)


# -- whole files -----------------------------------------------------------------------

WORDS = text.default_text()[:1500]
SETTINGS = Settings(batch_size=4, seq_length=10, epochs=2)


def small_model():
    model = fastrnn.Sequential(
        fastrnn.Embedding(9, 4, seed=0),
        fastrnn.Bidirectional(fastrnn.GRU(4, 3, seed=1), "ave"),
        fastrnn.RNN(3, 3, num_layers=2, seed=4),
        fastrnn.BatchNormalization(num_features=3),
        fastrnn.Conv1D(3, 2, padding="same", in_channels=3, seed=5),
        fastrnn.Functional("x", [(fastrnn.Add(), ("x", "x"), "y")], "y"),
        fastrnn.Sequential(fastrnn.LSTM(3, 2, return_sequences=False, seed=2)),
        fastrnn.Linear(2, 3, seed=3),
    )
    model.compile("sparse_categorical_crossentropy", "sgd", ["accuracy"], momentum=0.5)
    return model


def fitted(path, **options):
    model = small_model()
    x = np.arange(54).reshape(9, 6) % 9
    model.fit(
        x, x[:, 0] % 3, verbose=0, **options,
        callbacks=[fastrnn.callbacks.ModelCheckpoint(path, "loss"),
                   fastrnn.callbacks.GradientMonitor()],
    )  # fmt: skip
    return model


def write_model(path):
    fitted(path, seed=1)


def write_parameters(path):
    fastrnn.Module.save(small_model(), path)


def write_checkpoint(path):
    trainer = Trainer.start(WORDS, SETTINGS, hidden_size=5, embedding_dim=3)
    trainer.train_window()
    trainer.evaluate()
    trainer.save(path)


def write_vocabulary(path):
    fastrnn.Vocabulary.of([["to", "be", "or", "not"]]).save(path)


def write_tokenizer(path):
    fastrnn.WordTokenizer(lower=True).fit(["To be, or not to be?"]).save(path)


def write_text(path):
    Path(path).write_text("Größe ☃ to be", encoding="utf-8")


def write_h5(path):
    """As Keras 2 writes an LSTM and a Dense."""
    import h5py

    rng = np.random.default_rng(0)
    shapes = {
        "cell": {"kernel:0": (3, 16), "recurrent_kernel:0": (4, 16), "bias:0": (16,)},
        "head": {"kernel:0": (4, 2), "bias:0": (2,)},
    }
    layers = [
        {"class_name": "LSTM", "config": {"name": "cell", "units": 4}},
        {"class_name": "Dense", "config": {"name": "head", "activation": "softmax"}},
    ]
    config = {"class_name": "Sequential", "config": {"name": "m", "layers": layers}}
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.15.0"
        for layer, weights in shapes.items():
            group = file.create_group(f"model_weights/{layer}")
            group.attrs["weight_names"] = [f"{layer}/{n}".encode() for n in weights]
            for name, shape in weights.items():
                group[f"{layer}/{name}"] = rng.standard_normal(shape).astype("f")


def keras_config():
    cell = {"class_name": "GRU", "config": {"units": 4, "reset_after": True}}
    both = {"name": "both", "layer": cell, "merge_mode": "concat"}
    layers = [
        {"class_name": "Embedding", "config": {"name": "table", "mask_zero": True}},
        {"class_name": "Bidirectional", "config": both},
        {"class_name": "Dense", "config": {"name": "head", "activation": "relu"}},
    ]
    return {"class_name": "Sequential", "config": {"layers": layers}}


def _call(*sources, **options):
    """A call of a layer as Keras 3 writes it."""
    given = [
        {"class_name": "__keras_tensor__", "config": {"keras_history": list(source)}}
        for source in sources
    ]
    return [{"args": [given if given[1:] else given[0]], "kwargs": options}]


def functional_config():
    """Two inputs, a mask, final states that begin another layer, layers that merge."""
    words, other, vectors = ("w", 0, 0), ("s", 0, 0), ("e", 0, 0)
    mask = _call(("n", 0, 0))[0]["args"][0]
    states = [_call(("l", 0, k))[0]["args"][0] for k in (1, 2)]
    not_equal = _call(words)
    not_equal[0]["args"].append(0)
    pair = {"units": 4, "return_state": True}
    layers = [
        ("InputLayer", "w", {}, []),
        ("InputLayer", "s", {}, []),
        ("Embedding", "e", {"mask_zero": True}, _call(words)),
        ("NotEqual", "n", {}, not_equal),
        ("LSTM", "l", pair, _call(vectors, mask=mask)),
        ("Conv1D", "c", {"padding": "same", "activation": "relu"}, _call(other)),
        ("LSTM", "k", {"units": 4}, _call(("c", 0, 0), initial_state=states)),
        ("BatchNormalization", "b", {"axis": [1]}, _call(("k", 0, 0))),
        ("Add", "a", {}, _call(("b", 0, 0), ("l", 0, 0))),
        ("Dense", "d", {"activation": "relu"}, _call(("a", 0, 0))),
    ]
    entries = [
        {"class_name": kind, "name": name, "config": config, "inbound_nodes": calls}
        for kind, name, config, calls in layers
    ]
    config = {
        "layers": entries,
        "input_layers": [list(words), list(other)],
        "output_layers": [["d", 0, 0], ["l", 0, 2]],
    }
    return {"class_name": "Functional", "config": config}


_GRU = [(3, 12), (4, 12), (2, 12)]
_LSTM = [(3, 16), (4, 16), (16,)]
_GROUPS = {
    "Sequential": {
        "embedding/vars": [(7, 3)],
        "bidirectional/forward_layer/cell/vars": _GRU,
        "bidirectional/backward_layer/cell/vars": _GRU,
        "dense/vars": [(8, 2), (2,)],
    },
    "Functional": {
        "embedding/vars": [(7, 3)],
        "lstm/cell/vars": _LSTM,
        "conv1d/vars": [(2, 5, 3), (3,)],
        "lstm_1/cell/vars": _LSTM,
        "batch_normalization/vars": [(4,)] * 4,
        "dense/vars": [(4, 2), (2,)],
    },
}


def write_functional(path, config=None):
    """As Keras 3 writes the model of `functional_config`."""
    config = functional_config() if config is None else config
    write_keras(path, config, groups=_GROUPS["Functional"])


def write_keras(path, config=None, change=None, groups=None, **options):
    """As Keras 3 writes an Embedding, a GRU in both directions and a Dense."""
    import io
    import zipfile

    import h5py

    rng = np.random.default_rng(0)
    groups = _GROUPS["Sequential"] if groups is None else groups
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        for name, shapes in groups.items():
            group = file.create_group(f"layers/{name}")
            for k, shape in enumerate(shapes):
                group[str(k)] = rng.standard_normal(shape).astype("f")
        if change is not None:
            change(file)
    config = json.dumps(keras_config() if config is None else config)
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in (
            ("config.json", config),
            ("metadata.json", '{"keras_version": "3.9.0"}'),
            ("model.weights.h5", weights.getvalue()),
        ):
            # Without the time at which it is written: a number's damaged copy is the
            # same one in every run.
            member = zipfile.ZipInfo(name)
            archive.writestr(member, data, options.get("compression"))


def write_onnx(path):
    model = fastrnn.Sequential(
        fastrnn.GRU(3, 4, bidirectional=True, seed=0), fastrnn.Linear(8, 2, seed=1)
    )
    fastrnn.onnx.save(model, path, states=True)


def write_quantized(path):
    import quantized_onnx  # which needs onnx

    model, _ = quantized_onnx.tagger()
    path.write_bytes(model.SerializeToString())


def read_checkpoint(path):
    model = checkpoint.load_model(path)
    contents = checkpoint.read(path)
    Trainer.resume(path, contents, WORDS)
    return model


# By format: what writes a file, and what reads it.
FORMATS = {
    "model": (write_model, fastrnn.load_model),
    "run": (write_model, lambda path: fitted(path, epochs=2, resume=path)),
    "parameters": (write_parameters, lambda path: small_model().load(path)),
    "checkpoint": (write_checkpoint, read_checkpoint),
    "vocabulary": (write_vocabulary, fastrnn.Vocabulary.load),
    "tokenizer": (write_tokenizer, fastrnn.text.tokenizers.Tokenizer.load),
    "text": (write_text, text.read_text),
    "h5": (write_h5, lambda path: fastrnn.keras.load(path)),
    "keras": (write_keras, lambda path: fastrnn.keras.load(path)),
    "functional": (write_functional, lambda path: fastrnn.keras.load(path)),
    "onnx": (write_onnx, lambda path: fastrnn.onnx.load(path)),
    "quantized": (write_quantized, lambda path: fastrnn.onnx.load(path)),
}


# -- damage ----------------------------------------------------------------------------


def damaged_bytes(rng, data):
    """A copy with bytes changed, left out, repeated or added."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at, n = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 8, 60))
        what = rng.randrange(7)
        if what == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            data[at : at + n] = rng.randbytes(n)
        elif what == 2:
            data[at : at + n] = rng.choice((b"\0", b"\xff", b"\x7f")) * n
        elif what == 3:
            del data[at : at + n]
        elif what == 4:
            other = rng.randrange(len(data) + 1)
            data[at:at] = data[other : other + 5 * n]
        elif what == 5:
            del data[at:]
        else:  # a number of eight bytes, as sizes and offsets are
            number = rng.choice((0, 1, 2**31, 2**40, 2**63 - 1, 2**64 - 1))
            data[at : at + 8] = number.to_bytes(8, "little")
    return bytes(data)


def damaged_json(rng, value):
    """A copy with one value replaced, removed, repeated or nested."""
    value = json.loads(json.dumps(value))
    at, places = value, []

    def walk(inner):
        items = inner.items() if isinstance(inner, dict) else enumerate(inner)
        for key, item in items:
            places.append((inner, key))
            if isinstance(item, (dict, list)):
                walk(item)

    walk(value)
    for _ in range(rng.choice((1, 1, 2))):
        at, key = rng.choice(places)
        what = rng.randrange(6)
        if what == 0 and isinstance(at, dict):
            at.pop(key, None)
        elif what == 1 and isinstance(at, list) and key < len(at):
            at.append(at[key])
        elif what == 2:
            other, name = rng.choice(places)
            found = dict(enumerate(other)) if isinstance(other, list) else other
            at_list = isinstance(at, list) and key >= len(at)
            if name in found and not at_list:
                at[key] = json.loads(json.dumps(found[name]))
        elif isinstance(at, dict) or key < len(at):
            at[key] = rng.choice(ODD)
    return value


def damaged_onnx(rng, data):
    """A copy with a number, a name, an operator or a tensor changed."""
    import onnx

    from fastrnn.onnx._operators import OPERATORS

    model = onnx.ModelProto.FromString(data)
    graph = model.graph
    numbers = (0, 1, -1, 2, 7, 2**31, 2**40, 2**62, -(2**63), 2**63 - 1)
    for _ in range(rng.choice((1, 1, 2, 4))):
        node = rng.choice(graph.node)
        tensor = rng.choice(graph.initializer)
        what = rng.randrange(8)
        if what == 0:
            node.op_type = rng.choice(
                [*OPERATORS, *(one.op_type for one in graph.node)]
            )
            if rng.random() < 0.7:
                del node.attribute[:]
        elif what == 1 and node.attribute:
            rng.choice(node.attribute).i = rng.choice(numbers)
        elif what == 2 and tensor.dims:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(numbers)
        elif what == 3:
            tensor.data_type = rng.randrange(24)
        elif what == 4:
            names = [one.name for one in graph.initializer] + [*node.output, ""]
            if node.input:
                node.input[rng.randrange(len(node.input))] = rng.choice(names)
        elif what == 5:
            sizes = np.array([rng.choice(numbers) for _ in range(rng.randrange(4))])
            name = f"sizes{len(graph.initializer)}"
            graph.initializer.append(onnx.numpy_helper.from_array(sizes, name))
            op = rng.choice(("ConstantOfShape", "Expand", "Tile", "Reshape", "Slice"))
            inputs = [name] if op == "ConstantOfShape" else [tensor.name, name]
            made = onnx.helper.make_node(op, inputs, [f"made{len(graph.node)}"])
            graph.node.insert(0, made)
        elif what == 6:
            op = rng.choice(list(OPERATORS))
            inputs = [
                rng.choice(graph.initializer).name for _ in range(rng.randrange(4))
            ]
            made = onnx.helper.make_node(op, inputs, [f"made{len(graph.node)}"])
            graph.node.insert(0, made)
        else:
            node.output[0] = rng.choice(("y", "", "x", node.output[0] + "z"))
    return model.SerializeToString()


def write_damaged(number, kind, whole, path):
    """Write the damaged copy of a number."""
    rng = random.Random(f"{kind} {number}")
    data = whole.read_bytes()
    within = number % 2
    if within and kind in ("model", "run", "checkpoint"):
        arrays, key, meta = unpacked(whole)
        packed(path, arrays, key, damaged_json(rng, meta))
    elif within and kind in ("vocabulary", "tokenizer"):
        path.write_text(json.dumps(damaged_json(rng, json.loads(data))))
    elif within and kind == "keras":
        write_keras(path, damaged_json(rng, keras_config()))
    elif within and kind == "functional":
        write_functional(path, damaged_json(rng, functional_config()))
    elif within and kind in ("onnx", "quantized"):
        path.write_bytes(damaged_onnx(rng, data))
    else:
        path.write_bytes(damaged_bytes(rng, data))


@contextmanager
def limited(size):
    """Let the process have no more memory, within the body, than a file may take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    statm = Path("/proc/self/statm")
    if statm.exists():
        now = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + most_memory(size), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def is_refused(read, path):
    """Whether a file is refused, as it has to be where it cannot be read.

    What is raised must be a ValueError that names the file and that a terminal can
    show; reading must take no more memory than it may.
    """
    with limited(Path(path).stat().st_size):
        try:
            read(path)
        except ValueError as error:
            if str(path) not in str(error) or re.search(
                "[\x00-\x09\x0b-\x1f]", str(error)
            ):
                raise
            return True
    return False


def main(kind, whole, n, first=0):
    """Read damaged copies; how many were refused."""
    read = FORMATS[kind][1]
    whole, refused = Path(whole), 0
    path = Path(tempfile.mkdtemp(dir=whole.parent)) / "damaged"
    warnings.simplefilter("ignore")  # numbers that overflow, dropout in one layer
    read_whole = path.with_name("whole")
    read_whole.write_bytes(whole.read_bytes())
    read(read_whole)  # what is imported late is imported before memory is limited
    for number in range(int(first), int(first) + int(n)):
        write_damaged(number, kind, whole, path)
        # Ends the process even where a library written in C does not return.
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            refused += is_refused(read, path)
        except BaseException:
            print(f"{kind} {number}")
            raise
        finally:
            faulthandler.cancel_dump_traceback_later()
    print(f"{refused} refused")


if __name__ == "__main__":
    main(*sys.argv[1:])
