# SPDX-License-Identifier: BSD-3-Clause
"""The configuration and the weights of every layer in a Keras file.

A ``.keras`` file is a zip archive with ``config.json`` and ``model.weights.h5``. A
``.h5`` file has the configuration in an attribute and the weights in the group
``model_weights``. No code in a file is executed.
"""

import io
import re
import zipfile
import zlib
from collections import Counter
from typing import NamedTuple

import numpy as np

from fastrnn.keras._hdf5 import Group, Hdf5File
from fastrnn.util.files import allowance, parse_json

# The groups of model.weights.h5 that have the weights of a layer's parts, in the order
# in which Keras lists these weights.
_PARTS = ("forward_layer", "backward_layer", "layer", "cell")


class Layer(NamedTuple):
    """A layer as its file describes it."""

    name: str
    kind: str  # the name of its class in Keras
    config: dict
    arrays: list

    def __str__(self):
        return f"layer {self.name!r} ({self.kind})"


def read(who, h5py, data):
    """Read the version and the layers of a file.

    Parameters
    ----------
    who : str
        The caller and the file, for errors.
    h5py : module
    data : bytes
        A whole ``.keras`` or ``.h5`` file; the first bytes tell which.

    Returns
    -------
    version : int
        The version of the Keras that wrote the file, 2 or 3. It matters because Keras 3
        changed the meaning of some names. Versions before 2 count as 2.
    layers : list of Layer
        In the order in which they run, without input layers.

    Raises
    ------
    ValueError
        If the file is neither a ``.keras`` nor a ``.h5`` file, is damaged, or has a
        model that is not a chain of layers.
    """
    if data[:2] == b"PK":
        return _read_zip(who, h5py, data)
    with Hdf5File(h5py, data) as root:
        text = root.attribute("model_config")
        if text is None:
            raise ValueError(
                f"{who}: must hold a whole model, got weights without configuration"
            )
        layers = _chain(who, _json(who, text))
        weights = root.get("model_weights")
        return _version(root.attribute("keras_version") or "2"), [
            layer._replace(arrays=_legacy_arrays(who, weights, layer))
            for layer in layers
        ]


def _version(text):
    return 2 if text.split(".")[0] in ("0", "1", "2") else 3


def _read_zip(who, h5py, data):
    names = "config.json", "model.weights.h5", "metadata.json"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            config, weights, metadata = _members(archive, names, allowance(len(data)))
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise ValueError(f"{who}: must be a whole .keras file, got: {error}") from error
    layers, seen = [], {}
    with Hdf5File(h5py, weights) as root:
        groups = root.get("layers")
        for layer in _chain(who, _json(who, config)):
            # A group has the name of the layer's class and a number that counts the
            # layers of that class; the layer's own name is not used.
            stem = _snake_case(layer.kind)
            count = seen[stem] = seen.get(stem, -1) + 1
            group = groups and groups.get(f"{stem}_{count}" if count else stem)
            layers.append(layer._replace(arrays=_group_arrays(group) if group else []))
    return _version(_json(who, metadata)["keras_version"]), layers


def _members(archive, names, room):
    """The contents of some members of a zip archive, which have `room` bytes at most.

    Raises
    ------
    ValueError
        If a member is there twice, is encrypted, is neither stored plainly, as Keras
        does it, nor by "deflate", or is too large.
    KeyError
        If a member is missing.
    """
    listed = Counter(info.filename for info in archive.infolist())
    found = []
    for name in names:
        info = archive.getinfo(name)
        if listed[name] > 1:
            raise ValueError(f"{name} must be in the archive once, got {listed[name]}")
        if info.flag_bits & 1:
            raise ValueError(f"{name} must not be encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name} must be stored or deflated")
        if info.file_size > room:
            raise ValueError(
                f"{name} must have at most {room:,} bytes in a file of this size, "
                f"got {info.file_size:,}"
            )
        room -= info.file_size
        # A stream may have more bytes than the archive declares: reading them is
        # limited.
        with archive.open(info) as member:
            content = member.read(info.file_size)
            if len(content) < info.file_size or member.read(1):
                raise ValueError(
                    f"{name} must have the {info.file_size:,} bytes that are declared"
                )
        found.append(content)
    return found


def _json(who, text):
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"{who}: the configuration must be JSON, got: {error}") from (
            error
        )


def _snake_case(name):
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", name).lower()


def _group_arrays(group):
    """The weights of a layer in a ``.keras`` file, then those of its parts."""
    arrays = []
    variables = group.get("vars")
    while isinstance(variables, Group):
        array = variables.get(str(len(arrays)))
        if array is None:
            break
        arrays.append(_weights(array))
    for part in _PARTS:
        inside = group.get(part)
        if inside is not None:
            arrays += _group_arrays(inside)
    return arrays


def _weights(found):
    """An object of the file, which must be an array."""
    if not isinstance(found, np.ndarray):
        raise ValueError("weights must be arrays, got a group")
    return found


def _legacy_arrays(who, weights, layer):
    """The weights of a layer in a ``.h5`` file."""
    group = weights and weights.get(layer.name)
    if group is None:
        return []
    names = group.attribute("weight_names") or ()
    arrays = []
    for name in names:
        if "seed_gen" in name:
            continue
        array = group.get(name)
        if array is None:
            raise ValueError(f"{who}: {layer}: weights are missing: {name!r}")
        arrays.append(_weights(array))
    return arrays


# -- configuration ---------------------------------------------------------------------


def _chain(who, model):
    """The layers in running order, each of which takes the output of the one before."""
    if not isinstance(model, dict) or "class_name" not in model:
        raise ValueError(f"{who}: the configuration must be that of a Keras model")
    config = model["config"]
    if model["class_name"] == "Sequential":
        entries = config["layers"] if isinstance(config, dict) else config
        layers = [_layer(who, entry) for entry in entries]
    elif model["class_name"] in ("Functional", "Model"):
        outputs = set(_sources(config["output_layers"]))
        layers = _functional_chain(who, config["layers"], outputs)
    else:
        raise ValueError(
            f"{who}: must be a Sequential or functional model, "
            f"got {model['class_name']}: a class of your own has no description in "
            "its file"
        )
    return [layer for layer in layers if layer.kind != "InputLayer"]


def _layer(who, entry):
    config = entry["config"]
    return Layer(
        config.get("name", entry["class_name"]), entry["class_name"], config, []
    )


def _functional_chain(who, entries, outputs):
    """The layers of a functional model, from its only input to its only output."""
    source, masks = {}, {}
    for entry in entries:
        name = entry.get("name", entry["config"].get("name"))
        calls = entry["inbound_nodes"]
        if len(calls) > 1:
            raise ValueError(f"{who}: layer {name!r} is used {len(calls)} times")
        calls, masks[name] = _without_mask(calls)
        source[name] = tuple(sorted(set(_sources(calls))))
    entries = _without_mask_makers(who, entries, source, masks)
    layers = {}
    for entry in entries:
        layer = _layer(who, entry)
        layers[entry.get("name", layer.name)] = layer
    following = {}
    for name, inputs in source.items():
        following.setdefault(inputs, []).append(name)
    order = [name for name, inputs in source.items() if not inputs]
    while len(after := following.get(tuple(order[-1:]), [])) == 1:
        order += after
    if sorted(order) != sorted(layers) or outputs != {order[-1]}:
        # The model has several inputs or outputs, a branch, or a layer with two inputs.
        raise ValueError(
            f"{who}: must be one layer after the other from one input to one output, "
            f"got {len(layers)} layers with other connections"
        )
    return [layers[name] for name in order]


def _without_mask(calls):
    """The calls of a layer without ``mask=``, and the layers that gave the masks."""
    masks = []
    for k, call in enumerate(calls):
        if isinstance(call, dict) and "kwargs" in call:
            rest = dict(call["kwargs"])
            masks += _sources(rest.pop("mask", None))
            calls = [*calls[:k], {**call, "kwargs": rest}, *calls[k + 1 :]]
    return calls, masks


def _without_mask_makers(who, entries, source, masks):
    """The entries of the layers without those of operations that only compute masks.

    A functional model of Keras 3 that has an Embedding with mask_zero, or a Masking,
    also has the operations that compute the mask (NotEqual, and for a Masking Any of
    that), and passes the mask to every layer that takes one. fastrnn's Embedding and
    Masking compute the mask themselves, and a model hands it on, so the operations can
    be left out if the masks are those that fastrnn would hand on.

    Raises
    ------
    ValueError
        If a layer is given another mask.
    """
    named = {e.get("name", e["config"].get("name")): e for e in entries}
    makers = {name for found in masks.values() for name in found}
    makers |= {
        other for name in makers if named[name]["class_name"] == "Any"
        for other in source[name]
    }  # fmt: skip
    for name, found in masks.items():
        for maker in found:
            origin = _origin(named, source, maker)
            if origin is None or _mask_before(named, source, masks, name) != origin:
                raise ValueError(
                    f"{who}: layer {name!r}: mask must be that of an Embedding with "
                    f"mask_zero or of a Masking before it, got that of {maker!r}"
                )
    for name in makers:
        del source[name]
    return [e for name, e in named.items() if name not in makers]


def _origin(named, source, maker):
    """The layer whose mask an operation computes; None if it is no layer's mask.

    It is the Embedding or Masking that has the same input as the operation and masks
    the same value.
    """
    entry = named[maker]
    if entry["class_name"] == "Any":
        config = entry["config"]
        if config.get("axis") not in (-1, [-1]) or config.get("keepdims"):
            return None
        (inner,) = source[maker]
        kinds, entry = ("Masking",), named[inner]
    else:
        kinds, inner = ("Embedding",), maker
    if entry["class_name"] != "NotEqual":
        return None
    value = entry["inbound_nodes"][0]["args"][1]
    for name, other in named.items():
        config = other["config"]
        own = config.get("mask_value", 0 if config.get("mask_zero") else None)
        if other["class_name"] in kinds and source[name] == source[inner]:
            return name if own == value else None
    return None


def _mask_before(named, source, masks, name):
    """The layer whose mask a chain hands on to `name`: the last one that masks."""
    while source[name]:
        (name, *_) = source[name]
        entry = named[name]
        if entry["class_name"] == "Masking" or entry["config"].get("mask_zero"):
            return name
    return None


def _sources(calls):
    """Names of the layers whose outputs a call takes, as Keras 2 or 3 writes them."""
    if isinstance(calls, dict):
        history = calls.get("keras_history")
        if history:
            yield history[0]
        for value in calls.values():
            yield from _sources(value)
    elif isinstance(calls, list):
        if len(calls) >= 3 and isinstance(calls[0], str) and isinstance(calls[1], int):
            yield calls[0]
            calls = calls[3:]
        for value in calls:
            yield from _sources(value)
