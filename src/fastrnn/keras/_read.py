# SPDX-License-Identifier: BSD-3-Clause
"""The model and the weights in a Keras file.

A ``.keras`` file is a zip archive with ``config.json`` and ``model.weights.h5``. A
``.h5`` file has the configuration in an attribute and the weights in the group
``model_weights``. No code in a file is executed.
"""

import io
import re
import zipfile
import zlib
from collections import Counter

import numpy as np

from fastrnn.keras._graph import MODELS, read_net, without_tuples
from fastrnn.keras._hdf5 import Group, Hdf5File
from fastrnn.util.files import allowance, parse_json

# The groups of model.weights.h5 that have the weights of a layer's parts, in the order
# in which Keras lists these weights.
_PARTS = ("forward_layer", "backward_layer", "layer", "cell")


def read(who, h5py, data):
    """Read the version and the model of a file.

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
    net : Net
        Its layers have their weights.

    Raises
    ------
    ValueError
        If the file is neither a ``.keras`` nor a ``.h5`` file, is damaged, or has a
        model that is neither Sequential nor functional.
    """
    if data[:2] == b"PK":
        return _read_zip(who, h5py, data)
    with Hdf5File(h5py, data) as root:
        text = root.attribute("model_config")
        if text is None:
            raise ValueError(
                f"{who}: must hold a whole model, got weights without configuration"
            )
        net = read_net(who, _json(who, text))
        weights = root.get("model_weights")
        layers = {
            name: _with_legacy_arrays(layer, _legacy_arrays(who, weights, layer))
            for name, layer in net.layers.items()
        }
        version = _version(root.attribute("keras_version") or "2")
        return version, net._replace(layers=layers)


def _version(text):
    return 2 if text.split(".")[0] in ("0", "1", "2") else 3


def _read_zip(who, h5py, data):
    names = "config.json", "model.weights.h5", "metadata.json"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            config, weights, metadata = _members(archive, names, allowance(len(data)))
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise ValueError(f"{who}: must be a whole .keras file, got: {error}") from error
    net = read_net(who, _json(who, config))
    with Hdf5File(h5py, weights) as root:
        net = _with_group_arrays(net, _Backslashes.of(root))
    return _version(_json(who, metadata)["keras_version"]), net


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
        return without_tuples(parse_json(text))
    except ValueError as error:
        raise ValueError(f"{who}: the configuration must be JSON, got: {error}") from (
            error
        )


def _snake_case(name):
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", name).lower()


# -- weights in a .keras file ----------------------------------------------------------


class _Backslashes:
    """A group of a file that Keras wrote on Windows: groups in it have long names.

    Where others have a group "cell" in a group "lstm" in a group "layers", such a file
    has one group of the name "layers\\lstm\\cell".

    Parameters
    ----------
    root : Group
    path : str
        The long name.
    known : set of str
        Long names, and their beginnings.
    """

    def __init__(self, root, path, known):
        self.root, self.path, self.known = root, path, known

    @classmethod
    def of(cls, root):
        """The root of a file, in this way if Keras wrote it on Windows."""
        known = set()
        for name in root.names():
            parts = name.split("\\")
            known.update("\\".join(parts[: n + 1]) for n in range(len(parts)))
        return cls(root, "", known) if any("\\" in name for name in known) else root

    def names(self):
        """Names of the groups and arrays in the group."""
        start = f"{self.path}\\" if self.path else ""
        return sorted({
            name[len(start) :].split("\\")[0]
            for name in self.known
            if name.startswith(start) and name != start
        })  # fmt: skip

    def get(self, name):
        """A group or array in the group, None if there is none."""
        below = f"{self.path}\\{name}" if self.path else name
        if below in self.known:
            return _Backslashes(self.root, below, self.known)
        own = self.root.get(self.path) if self.path else None
        return own.get(name) if isinstance(own, Group) else None


def _with_group_arrays(net, group):
    """The model whose layers have the weights that are in a group.

    Keras 2.12 counts each layer with weights twice in its class, and has another name
    for the group of all layers.
    """
    groups = group and group.get("layers")
    older = group and group.get("_layer_checkpoint_dependencies")
    found = _in_turn(older) if older and not groups else None
    layers, seen = {}, {}
    for name, layer in net.layers.items():
        # A group has the name of the layer's class and a number that counts the layers
        # of that class; the layer's own name is not used.
        stem = _snake_case(layer.kind)
        if found is None:
            count = seen[stem] = seen.get(stem, -1) + 1
            own = groups and groups.get(f"{stem}_{count}" if count else stem)
        else:
            own = next(found.get(stem, iter(())), None)
        if layer.net is not None:
            inner = own if layer.kind in MODELS else own and own.get("layer")
            layer = layer._replace(net=_with_group_arrays(layer.net, inner))
        elif own:
            layer = layer._replace(arrays=_group_arrays(own))
        layers[name] = layer
    return net._replace(layers=layers)


def _in_turn(groups):
    """The groups of each class in the order of their numbers, those without weights
    left out."""
    numbered = []
    for name in groups.names():
        stem, _, number = name.rpartition("_")
        if not number.isdigit() or len(number) > 9:
            stem, number = name, 0
        numbered.append((stem, int(number), name))
    found = {}
    for stem, _, name in sorted(numbered):
        found.setdefault(stem, []).append(name)
    return {
        stem: (one for one in map(groups.get, names) if not _is_empty(one))
        for stem, names in found.items()
    }


def _is_empty(group):
    """Whether a group has neither weights nor parts."""
    if isinstance(group, np.ndarray):
        return False
    return all(
        isinstance(inner := group.get(name), Group | _Backslashes) and not inner.names()
        for name in group.names()
    )


def _group_arrays(group):
    """The weights of a layer in a ``.keras`` file, then those of its parts."""
    arrays = []
    variables = group.get("vars")
    while isinstance(variables, Group | _Backslashes):
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
    """The weights of a layer in a ``.h5`` file, by their names."""
    group = weights and weights.get(layer.name)
    if group is None:
        return []
    arrays, names = [], group.attribute("weight_names")
    if names is None:  # more than an attribute may have are in several
        names, k = [], 0
        while (more := group.attribute(f"weight_names{k}")) is not None:
            names, k = names + more, k + 1
    for name in names:
        if "seed_gen" in name:
            continue
        array = group.get(name)
        if array is None:
            raise ValueError(f"{who}: {layer}: weights are missing: {name!r}")
        arrays.append((name, _weights(array)))
    return arrays


def _with_legacy_arrays(layer, named):
    """A layer with its weights; those of a model's layers have the layers' names."""
    if layer.net is None:
        return layer._replace(arrays=[array for _, array in named])
    shares = {name: [] for name in layer.net.layers}
    for name, array in named:
        owner = next((part for part in name.split("/") if part in shares), None)
        if owner is not None:
            _, _, rest = f"/{name}".partition(f"/{owner}/")
            shares[owner].append((rest, array))
    layers = {
        name: _with_legacy_arrays(inner, shares[name])
        for name, inner in layer.net.layers.items()
    }
    return layer._replace(net=layer.net._replace(layers=layers))
