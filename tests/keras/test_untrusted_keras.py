# SPDX-License-Identifier: BSD-3-Clause
"""Keras files with what HDF5 and zip can do and Keras does not: refused, in bounds."""

import io
import json
import re
import struct
import time
import warnings
import zipfile

import damaged_files
import numpy as np
import pytest
from damaged_files import bounded

h5py = pytest.importorskip("h5py", reason="h5py is not installed")

import fastrnn.keras  # noqa: E402

KERNEL = "model_weights/cell/cell/kernel:0"
SHAPE = (3, 16)


def refused(path, message):
    with bounded(path), pytest.raises(ValueError, match=message) as caught:
        fastrnn.keras.load(path)
    assert str(path) in str(caught.value)


@pytest.fixture
def h5(tmp_path):
    """A whole .h5 file's path."""
    path = tmp_path / "model.h5"
    damaged_files.write_h5(path)
    assert len(fastrnn.keras.load(path)) == 3
    return path


def external_storage(file, tmp_path):
    """The kernel is the bytes of another file of this machine."""
    (tmp_path / "secret").write_bytes(b"the secret of this machine  " * 7)
    outside = [(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)]
    file.create_dataset(KERNEL, SHAPE, "f", external=outside)


def virtual(file, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.ones(SHAPE, "f")
    layout = h5py.VirtualLayout(SHAPE, "f")
    layout[...] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", SHAPE)
    file.create_virtual_dataset(KERNEL, layout)


def external_link(file, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.ones(SHAPE, "f")
    file[KERNEL] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")


def soft_link(file, tmp_path):
    file["elsewhere"] = np.ones(SHAPE, "f")
    file[KERNEL] = h5py.SoftLink("/elsewhere")


def another_name(file, tmp_path):
    file[KERNEL] = file["model_weights/cell/cell/recurrent_kernel:0"]


def larger_than_the_file(file, tmp_path):
    file.create_dataset(KERNEL, (10**9, 16), "f", chunks=(10**6, 16))


def never_written(file, tmp_path):
    file.create_dataset(KERNEL, (10**9, 16), "f")


def compressed(file, tmp_path):
    file.create_dataset(KERNEL, data=np.zeros((2**14, 16)), compression="gzip")


def without_elements(file, tmp_path):
    file.create_dataset(KERNEL, (10**12, 0), "f")


def references(file, tmp_path):
    file.create_dataset(KERNEL, (1,), h5py.ref_dtype)


def texts(file, tmp_path):
    file.create_dataset(KERNEL, data=["a"] * 48)


def compound(file, tmp_path):
    file.create_dataset(KERNEL, SHAPE, np.dtype([("a", "f")]))


def integers(file, tmp_path):
    file.create_dataset(KERNEL, SHAPE, "i4")


def a_type(file, tmp_path):
    file[KERNEL] = np.dtype("f")


def a_group(file, tmp_path):
    file.create_group(KERNEL)


def nothing(file, tmp_path):
    file.create_dataset(KERNEL, data=h5py.Empty("f"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (external_storage, "must be in the file, got an array of other files'"),
        (virtual, "must be in the file, got an array of other files'"),
        (external_link, "must be in its group itself, got an external link"),
        (soft_link, "must be in its group itself, got a soft link"),
        (another_name, "recurrent_kernel:0' must be an object of its own, got the one"),
        (larger_than_the_file, "must be stored whole, got 0 of 64,000,000,000 bytes"),
        (never_written, "must be stored whole, got 0 of 64,000,000,000 bytes"),
        (compressed, "must be stored without filters, as Keras does, got deflate"),
        (without_elements, "must have elements, got shape"),
        (references, "must be an array of floating-point numbers"),
        (texts, "must be an array of floating-point numbers"),
        (compound, "must be an array of floating-point numbers"),
        (integers, "must be an array of floating-point numbers"),
        (a_type, "must be a group or an array"),
        (a_group, "weights must be arrays, got a group"),
        (nothing, "must be a .keras or .h5 file, got one that is damaged"),
    ],
)
def test_what_keras_does_not_write(h5, tmp_path, change, message):
    with h5py.File(h5, "a") as file:
        del file[KERNEL]
        change(file, tmp_path)
    refused(h5, message)


def test_an_array_whose_declared_size_is_beyond_the_file(h5):
    """A contiguous array's size is a number in its header: make it large, and its shape
    too, of an array that is there."""
    with h5py.File(h5, "a") as file:
        del file[KERNEL]
        file.create_dataset(KERNEL, data=np.ones((1234, 16), "f"))
    data = h5.read_bytes()
    for old, new in ((1234, 2**30), (1234 * 64, 2**36)):
        assert data.count(struct.pack("<Q", old)) >= 1
        data = data.replace(struct.pack("<Q", old), struct.pack("<Q", new))
    h5.write_bytes(data)
    refused(h5, "must be stored whole, got 68,719,476,736 bytes in a file of|damaged")


def test_one_array_for_many_weights_counts_each_time(h5):
    """The file's size bounds all arrays together, even those of one name."""
    with h5py.File(h5, "a") as file:
        group = file["model_weights/cell"]
        del file[KERNEL]
        file.create_dataset(KERNEL, data=np.ones((5000, 16), "f"))
        group.attrs["weight_names"] = [b"cell/kernel:0"] * 9
    refused(h5, "must be stored whole, got 320,000 bytes in a file of")


def test_many_names_that_share_one_text(h5):
    with h5py.File(h5, "a") as file:
        file["model_weights/cell"].attrs["weight_names"] = [b"cell/kernel:0"] * 17
        file["room"] = np.zeros(2**19)  # 17 times 4 MiB would be too much
    refused(h5, "weight_names must be at most 16 texts, got 17")


def test_names_that_are_not_texts(h5):
    with h5py.File(h5, "a") as file:
        file["model_weights/cell"].attrs["weight_names"] = [1, 2, 3]
    refused(h5, "weight_names must be text")
    with h5py.File(h5, "a") as file:
        file["model_weights/cell"].attrs["weight_names"] = [b".", b"a/b", b""]
    refused(h5, "must be a name in a group")


def test_a_heap_that_does_not_end(h5):
    """The HDF5 library goes round in it for ever."""
    data = bytearray(h5.read_bytes())
    at = data.index(b"GCOL\x01\0\0\0") + 16
    data[at : at + 2], data[at + 8 : at + 16] = bytes(2), bytes(8)
    h5.write_bytes(data)
    refused(h5, "must be a whole .keras or .h5 file, got a bad heap")
    h5.write_bytes(bytes(data) + b"GCOL\x01\0\0\0\xff\xff\xff\xff\xff\0\0\0" * 10**5)
    refused(h5, "got a bad heap")


# -- .keras ----------------------------------------------------------------------------


def test_groups_that_share_their_parts(tmp_path):
    """2 ** 28 ways lead to the last of 28 groups."""

    def change(file):
        group = file["layers/bidirectional/forward_layer"]
        for _ in range(28):
            below = group.create_group("forward_layer")
            group["backward_layer"] = below
            group = below
        group["vars/0"] = np.ones(1, "f")

    path = tmp_path / "model.keras"
    damaged_files.write_keras(path, change=change)
    refused(path, "must be an object of its own, got the one that is")


def test_groups_that_lead_in_a_circle(tmp_path):
    def change(file):
        group = file["layers/bidirectional/forward_layer"]
        group["layer"] = file["layers/bidirectional"]

    path = tmp_path / "model.keras"
    damaged_files.write_keras(path, change=change)
    refused(path, "must be an object of its own, got the one that is")


def rezipped(path, how, **options):
    """Write the members of a .keras file once more."""
    with zipfile.ZipFile(path) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", **options) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about names that come twice
        how(archive, members)


def as_they_are(archive, members):
    for name, data in members:
        archive.writestr(name, data)


def twice(archive, members):
    as_they_are(archive, [*members, members[0]])


def bomb(archive, members):
    for name, data in members:
        large = name == "model.weights.h5"
        archive.writestr(name, data + bytes(2**26) if large else data)


def long_configuration(archive, members):
    as_they_are(archive, members[1:])
    archive.writestr("config.json", b"[" * 2**26)


@pytest.mark.parametrize(
    ("how", "method", "message"),
    [
        (twice, zipfile.ZIP_STORED, "config.json must be in the archive once, got 2"),
        (as_they_are, zipfile.ZIP_BZIP2, "config.json must be stored or deflated"),
        (as_they_are, zipfile.ZIP_LZMA, "config.json must be stored or deflated"),
        (
            bomb,
            zipfile.ZIP_DEFLATED,
            "model.weights.h5 must have at most .* bytes in a",
        ),
        (long_configuration, zipfile.ZIP_DEFLATED, "config.json must have at most"),
    ],
)
def test_archives_that_keras_does_not_write(tmp_path, how, method, message):
    path = tmp_path / "model.keras"
    damaged_files.write_keras(path)
    rezipped(path, how, compression=method)
    refused(path, message)


def test_a_deflated_archive_is_read(tmp_path):
    path = tmp_path / "model.keras"
    damaged_files.write_keras(path, compression=zipfile.ZIP_DEFLATED)
    assert len(fastrnn.keras.load(path)) == 4


@pytest.mark.parametrize("change", [-1, 1])
def test_members_that_are_not_as_long_as_declared(tmp_path, change):
    path = tmp_path / "model.keras"
    damaged_files.write_keras(path, compression=zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("config.json")
        size = struct.pack("<I", info.file_size)
    data = path.read_bytes()
    assert data.count(size) == 2
    path.write_bytes(data.replace(size, struct.pack("<I", info.file_size + change)))
    refused(path, "must have the|must be a whole .keras file")


def test_an_encrypted_member(tmp_path):
    path = tmp_path / "model.keras"
    damaged_files.write_keras(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    path.write_bytes(data)
    refused(path, "config.json must not be encrypted")


# -- configurations --------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        None,
        {"class_name": "Sequential", "config": None},
        {"class_name": ["Sequential"], "config": {"layers": []}},
        {"class_name": "Sequential", "config": {"layers": [None]}},
        {"class_name": "Sequential", "config": {"layers": [{"class_name": 1}]}},
        {"class_name": "Functional", "config": {"layers": [], "output_layers": []}},
    ],
)
def test_configurations_of_another_form(tmp_path, config):
    path = tmp_path / "model.keras"
    damaged_files.write_keras(path, config or [])
    refused(path, "must be")


@pytest.mark.parametrize("units", [10**9, 2**63, 10**400, -1, "4", None, [4]])
def test_units_are_those_of_the_weights(tmp_path, units):
    path = tmp_path / "model.keras"
    config = damaged_files.keras_config()
    config["config"]["layers"][1]["config"]["layer"]["config"]["units"] = units
    damaged_files.write_keras(path, config)
    refused(path, "weights must be those of .* units|must be the same")


def test_a_configuration_nested_too_deeply(tmp_path):
    path = tmp_path / "model.keras"
    damaged_files.write_keras(path)

    def deep(archive, members):
        as_they_are(archive, members[1:])
        archive.writestr("config.json", "[" * 100_000)

    rezipped(path, deep)
    refused(path, "the configuration must be JSON, got: it is nested too deeply")


def test_layers_that_follow_one_another_in_a_circle(tmp_path):
    """Two layers of one name: nothing ends the chain."""

    def entry(name, *before):
        calls = [[[one, 0, 0, {}] for one in before]] if before else []
        config = {"name": name, "units": 1}
        return {
            "class_name": "Dense", "name": name, "config": config,
            "inbound_nodes": calls,
        }  # fmt: skip

    entries = [entry("a"), entry("b", "a"), entry("b", "b"), entry("c", "b")]
    config = {"layers": entries, "output_layers": [["c", 0, 0]]}
    path = tmp_path / "model.keras"
    damaged_files.write_keras(path, {"class_name": "Functional", "config": config})
    refused(path, "layers must have names of their own")
    entries = [entry("a"), entry("b", "c"), entry("c", "b")]
    entries[0]["class_name"] = "InputLayer"
    config |= {"layers": entries, "input_layers": [["a", 0, 0]]}
    damaged_files.write_keras(path, {"class_name": "Functional", "config": config})
    refused(path, "layers must not be connected in a circle")


def test_many_layers_take_no_longer_than_they_are_many(tmp_path):
    """Once the time grew with the square of their number: this took minutes."""
    n = 30_000
    entries = [
        {
            "class_name": "Dropout" if k else "InputLayer",
            "name": str(k),
            "config": {"name": str(k), "rate": 0},
            "inbound_nodes": [[[str(k - 1), 0, 0, {}]]] if k else [],
        }
        for k in range(n)
    ]
    config = {
        "layers": entries,
        "input_layers": [["0", 0, 0]],
        "output_layers": [[str(n - 1), 0, 0]],
    }
    path = tmp_path / "model.keras"
    damaged_files.write_keras(path, {"class_name": "Functional", "config": config})
    begun = time.process_time()
    assert len(fastrnn.keras.load(path, inference=True)) == 0
    assert time.process_time() - begun < 15  # it takes one


def test_errors_show_nothing_of_a_file_that_acts(tmp_path):
    path = tmp_path / "model.keras"
    config = damaged_files.keras_config()
    config["config"]["layers"][0]["class_name"] = "\x1b[2J" * 10**5
    damaged_files.write_keras(path, config)
    with pytest.raises(ValueError, match=r"\\x1b\[2J") as caught:
        fastrnn.keras.load(path)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_files_that_are_neither(tmp_path):
    path = tmp_path / "model.keras"
    for data in (b"", b"PK", b"\x89HDF\r\n\x1a\n", b"PK\x05\x06" + bytes(18)):
        path.write_bytes(data)
        refused(path, f"{re.escape(str(path))}: must be a whole .keras")
    file = io.BytesIO()
    with h5py.File(file, "w") as h5:
        h5.attrs["model_config"] = json.dumps(damaged_files.keras_config())
        h5["model_weights"] = 3.0
    path.write_bytes(file.getvalue())
    refused(path, re.escape(str(path)))
