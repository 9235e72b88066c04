# SPDX-License-Identifier: BSD-3-Clause
"""Files that Keras 3 wrote, as other versions and systems write them."""

import io
import json
import zipfile


def _rezipped(path, change):
    """Write a .keras file anew with what `change` makes of its weights' groups."""
    import h5py

    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    arrays = {}

    def note(name, thing):
        if isinstance(thing, h5py.Dataset):
            arrays[name] = thing[...]

    with h5py.File(io.BytesIO(members["model.weights.h5"])) as file:
        file.visititems(note)
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        change(file, arrays)
    members["model.weights.h5"] = weights.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def on_windows(path):
    r"""As on Windows: groups of names like ``layers\lstm\cell``."""

    def change(file, arrays):
        for name, array in arrays.items():
            group, _, rest = name.partition("/vars/")
            file.require_group(group.replace("/", "\\"))[f"vars/{rest}"] = array

    return _rezipped(path, change)


def of_keras_2_12(path):
    """As Keras 2.12: another group, and layers with weights counted twice."""

    def change(file, arrays):
        for name, array in arrays.items():
            _, layer, *rest = name.split("/")
            stem, _, number = layer.rpartition("_")
            layer = f"{stem}_{2 * int(number)}" if number.isdigit() else layer
            file["/".join(["_layer_checkpoint_dependencies", layer, *rest])] = array
        file.create_group("_layer_checkpoint_dependencies/dropout/vars")

    return _rezipped(path, change)


def _node(node, models):
    """A call as Keras 2 writes it, which counts a model's own call, too."""
    found = []

    def tensors(value):
        if isinstance(value, dict) and "keras_history" in value.get("config", {}):
            name, number, place = value["config"]["keras_history"]
            found.append([name, number + (name in models), place, {}])
        elif isinstance(value, list):
            for one in value:
                tensors(one)

    tensors(node["args"])
    tensors(node["kwargs"].get("initial_state", []))
    return found


def _in_keras_2(model):
    """A model's configuration as Keras 2 writes it."""
    config = dict(model["config"])
    kinds = {entry.get("name"): entry["class_name"] for entry in config["layers"]}
    models = [name for name, kind in kinds.items() if kind in _MODELS]
    entries = []
    if isinstance(config.get("output_layers", [0])[0], str):
        config["output_layers"] = [config["output_layers"]]  # the only one
    for output in config.get("output_layers", []):
        # Keras 3 counts a functional model's own call here, too.
        output[1] += kinds[output[0]] == "Sequential"
    for entry in config["layers"]:
        if entry["class_name"] in ("NotEqual", "Any"):
            continue  # Keras 2 has no operations that compute masks
        shape = (entry.get("build_config") or {}).get("input_shape", [])
        entry = {k: v for k, v in entry.items() if k in _KEYS}
        if entry["class_name"] in _MODELS:
            entry = entry | _in_keras_2(entry)
        own = dict(entry["config"])
        if "batch_shape" in own:
            own["batch_input_shape"] = own.pop("batch_shape")
        if "dtype" in own:
            own["dtype"] = "float32"
        if entry["class_name"] == "BatchNormalization":
            own["axis"] = [own["axis"] % len(shape) if shape else own["axis"]]
        entry["config"] = own
        if "inbound_nodes" in entry:
            entry["inbound_nodes"] = [
                _node(node, models) for node in entry["inbound_nodes"]
            ]
        entries.append(entry)
    kind = {"Functional": "Model"}.get(model["class_name"], model["class_name"])
    return {"class_name": kind, "config": {**config, "layers": entries}}


_MODELS = ("Sequential", "Functional")
_KEYS = ("class_name", "config", "name", "inbound_nodes")


def _with_tuples(value):
    """Lists of numbers as TensorFlow 2.4 and later write tuples."""
    if isinstance(value, dict):
        return {key: _with_tuples(one) for key, one in value.items()}
    if (
        isinstance(value, list)
        and value
        and all(one is None or isinstance(one, int) for one in value)
    ):
        return {"class_name": "__tuple__", "items": value}
    return [_with_tuples(one) for one in value] if isinstance(value, list) else value


def of_tensorflow(path):
    """A .h5 file of Keras 2, as TensorFlow writes it: tuples, names in parts."""
    import h5py

    of_keras_2(path)
    with h5py.File(path, "a") as file:
        model = json.loads(file.attrs["model_config"])
        text = json.dumps(_with_tuples(model))
        text = text.replace('"BatchNormalization"', '"BatchNormalizationV1"')
        file.attrs["model_config"] = text
        for group in file["model_weights"].values():
            names = group.attrs.pop("weight_names")
            for k, name in enumerate(names):
                group.attrs[f"weight_names{k}"] = [name]
    return path


def of_keras_2(path):
    """A .h5 file as Keras 2 writes it."""
    import h5py

    with h5py.File(path, "a") as file:
        model = json.loads(file.attrs["model_config"])
        file.attrs["model_config"] = json.dumps(_in_keras_2(model))
        file.attrs["keras_version"] = b"2.4.0"
        for group in file["model_weights"].values():
            names = [str(name) for name in group.attrs["weight_names"]]
            for name in names:
                group.move(name, f"{name}:0")
            group.attrs["weight_names"] = [f"{name}:0".encode() for name in names]
    return path
