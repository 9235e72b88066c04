# SPDX-License-Identifier: BSD-3-Clause
"""The layers of a Keras model and their calls, from its configuration."""

from typing import NamedTuple

from fastrnn.keras import _masks

# Operations of Keras 3 that are what the layers of these names are.
_OPERATIONS = ("Add", "Maximum", "Minimum", "Multiply", "Subtract")
MODELS = ("Sequential", "Functional", "Model")  # "Model" is Keras 2's functional one


class Layer(NamedTuple):
    """A layer as its file describes it."""

    name: str
    kind: str  # the name of its class in Keras
    config: dict
    arrays: list
    net: "Net | None" = None  # of a model, or of the model in a TimeDistributed

    def __str__(self):
        return f"layer {self.name!r} ({self.kind})"


class Tensor(NamedTuple):
    """What a call of a layer gives: its output, or one of several."""

    layer: str
    call: int = 0  # which of the layer's calls
    place: int = 0  # which of what the call gives

    def __str__(self):
        rest = self[1:]
        return self.layer if rest == (0, 0) else ":".join(map(str, self))


class Call(NamedTuple):
    """A call of a layer."""

    layer: str
    number: int
    sources: list  # of Tensor: what it is given


class Net(NamedTuple):
    """A model: its layers in the order in which its file has them, and their calls."""

    layers: dict  # of str to Layer, without input layers
    calls: list  # of Call, in an order in which they can run
    inputs: list  # of Tensor
    outputs: list  # of Tensor

    @property
    def chain(self):
        """The layers one after the other from one input to one output, or None."""
        if len(self.inputs) != 1 or len(self.calls) != len(self.layers):
            return None
        at = self.inputs[0]
        for call in self.calls:
            if call.sources != [at]:
                return None
            at = Tensor(call.layer)
        return list(self.layers_in_order()) if self.outputs == [at] else None

    def layers_in_order(self):
        """The layers of the calls."""
        return (self.layers[call.layer] for call in self.calls)


def without_tuples(value):
    """A part of a configuration, with lists where Keras 2 has written tuples."""
    if isinstance(value, list):
        return [without_tuples(one) for one in value]
    if not isinstance(value, dict):
        return value
    if value.get("class_name") == "__tuple__" and "items" in value:
        return without_tuples(value["items"])
    return {key: without_tuples(one) for key, one in value.items()}


def read_net(who, model):
    """The layers and calls of a model.

    Parameters
    ----------
    who : str
        The caller and the file, for errors.
    model : dict
        The configuration as Keras 1, 2 or 3 writes it.

    Raises
    ------
    ValueError
        If it is not that of a Sequential or functional model.
    """
    if not isinstance(model, dict) or "class_name" not in model:
        raise ValueError(f"{who}: the configuration must be that of a Keras model")
    config = model["config"]
    if model["class_name"] == "Sequential":
        entries = config["layers"] if isinstance(config, dict) else config
        return _sequential(who, entries)
    if model["class_name"] in MODELS:
        return _functional(who, config)
    raise ValueError(
        f"{who}: must be a Sequential or functional model, "
        f"got {model['class_name']}: a class of your own has no description in "
        "its file"
    )


def _layer(who, entry):
    config, kind = entry["config"], entry["class_name"]
    if kind in MODELS:
        # Keras 1 has the layers of a Sequential where others have a dict.
        name = config.get("name") if isinstance(config, dict) else None
        name = name or entry.get("name", kind)
        whole = config if isinstance(config, dict) else {}
        return Layer(name, kind, whole, [], read_net(who, entry))
    name = entry.get("name", config.get("name", kind))
    if ".ops" in (entry.get("module") or "") and kind not in _OPERATIONS:
        kind = f"ops.{kind}"  # another thing than a layer of that name
    inner = config.get("layer")
    net = None
    if isinstance(inner, dict) and inner.get("class_name") in MODELS:
        net = read_net(who, inner)
    return Layer(name, kind, config, [], net)


def _by_name(who, layers):
    """Layers by their names, of which each must be one's own."""
    found = {}
    for layer in layers:
        if layer.name in found:
            raise ValueError(f"{who}: layers must have names of their own, got two "
                             f"{layer.name!r}")  # fmt: skip
        found[layer.name] = layer
    return found


def _sequential(who, entries):
    layers = [_layer(who, entry) for entry in entries]
    layers = _by_name(who, (one for one in layers if one.kind != "InputLayer"))
    at = start = Tensor("input")
    calls = []
    for name in layers:
        calls.append(Call(name, 0, [at]))
        at = Tensor(name)
    return Net(layers, calls, [start], [at])


def _functional(who, config):
    entries = {
        entry.get("name", entry["config"].get("name")): entry
        for entry in config["layers"]
    }
    if len(entries) < len(config["layers"]):
        raise ValueError(f"{who}: layers must have names of their own")
    calls = {}
    for name, entry in entries.items():
        for number, node in enumerate(entry["inbound_nodes"]):
            calls[name, number] = _call(who, name, number, node)
            if entry["class_name"] != "NotEqual":
                _check_arguments(who, name, node)
    inputs = list(tensors(config["input_layers"]))
    outputs = list(tensors(config["output_layers"]))
    calls, outputs = _numbered(entries, calls, outputs)
    _masks.leave_out(who, entries, calls)
    layers = {
        name: _layer(who, entry)
        for name, entry in entries.items()
        if entry["class_name"] != "InputLayer"
    }
    ordered = _in_order(who, [call for call, _ in calls.values()], inputs)
    return Net(layers, ordered, inputs, outputs)


def _numbered(entries, calls, outputs):
    """Calls and outputs, with the numbers that calls of models have in `calls`.

    A model was called once when it was made. Keras 2 counts that call, which is not
    among those of the model that it is a layer of, and Keras 3 does so in the outputs
    and for functional models alone.
    """
    sources = [one for call, _ in calls.values() for one in call.sources]
    least = {}
    for one in (*sources, *outputs):
        least[one.layer] = min(one.call, least.get(one.layer, one.call))
    of_keras_2 = {
        name for name, entry in entries.items()
        if entry["class_name"] in MODELS
        and all(isinstance(node, list) for node in entry["inbound_nodes"])
        and least.get(name, 0) > 0
    }  # fmt: skip

    def counted(tensor, more=()):
        before = tensor.layer in of_keras_2 or (tensor.layer in more and tensor.call)
        return tensor._replace(call=tensor.call - 1) if before else tensor

    functional = {
        name for name, entry in entries.items()
        if entry["class_name"] in ("Functional", "Model") and name not in of_keras_2
    }  # fmt: skip
    found = {
        key: (call._replace(sources=[counted(one) for one in call.sources]), masks)
        for key, (call, masks) in calls.items()
    }
    return found, [counted(one, functional) for one in outputs]


def _call(who, name, number, node):
    """A `Call` and the tensors of its masks, from a node as Keras 2 or 3 writes it."""
    if isinstance(node, dict):
        kwargs = dict(node["kwargs"])
        masks = list(tensors(kwargs.pop("mask", None)))
        sources = [*tensors(node["args"]), *tensors(kwargs.pop("initial_state", None))]
    else:
        kwargs, masks = {}, []
        sources = [Tensor(*one[:3]) for one in _nodes_of_keras_2(node)]
        for one in _nodes_of_keras_2(node):
            if len(one) > 3 and isinstance(one[3], dict):
                rest = dict(one[3])
                sources += tensors(rest.pop("initial_state", None))
                kwargs |= rest
    other = next((key for key, value in kwargs.items() if any(tensors(value))), None)
    if other is not None:
        raise ValueError(
            f"{who}: layer {name!r} must be called with arrays by position, "
            f"initial_state or mask, got {other}"
        )
    return Call(name, number, sources), masks


def _check_arguments(who, name, node):
    """Refuse numbers among the arrays that a layer or an operation is given."""
    waiting = list(node["args"]) if isinstance(node, dict) else []
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif value is not None and not isinstance(value, (bool, dict)):
            raise ValueError(
                f"{who}: layer {name!r} must be given outputs of layers alone, "
                f"got {value!r}"
            )


def _nodes_of_keras_2(node):
    """Lists [layer, call, place, arguments], of which a node has several or is one."""
    if node and isinstance(node[0], str):
        return [node]
    return node


def tensors(value):
    """The tensors in a part of a configuration, as Keras 2 or 3 writes them."""
    if isinstance(value, dict):
        history = value.get("keras_history")
        if history is not None:
            yield Tensor(*history)
            return
        for inner in value.values():
            yield from tensors(inner)
    elif isinstance(value, list):
        if len(value) >= 3 and isinstance(value[0], str) and _is_place(value[1:3]):
            yield Tensor(*value[:3])
            value = value[3:]
        for inner in value:
            yield from tensors(inner)


def _is_place(pair):
    return all(type(one) is int for one in pair)


def _in_order(who, calls, inputs):
    """Calls in an order in which each is given what is there already."""
    waiting = {}  # by the call (layer, number) that others wait for
    missing, ready = {}, []
    known, inputs = {call[:2] for call in calls}, set(inputs)
    for call in calls:
        before = {one[:2] for one in call.sources if one not in inputs}
        unknown = next((one for one in before if one not in known), None)
        if unknown is not None or not call.sources:
            raise ValueError(
                f"{who}: layer {call.layer!r} must be given outputs of layers, got "
                f"{'none' if unknown is None else repr(unknown[0])}"
            )
        missing[call[:2]] = len(before)
        for one in before:
            waiting.setdefault(one, []).append(call)
        if not before:
            ready.append(call)
    done = []
    ready.reverse()
    while ready:
        call = ready.pop()
        done.append(call)
        for one in reversed(waiting.get(call[:2], [])):
            missing[one[:2]] -= 1
            if not missing[one[:2]]:
                ready.append(one)
    if len(done) < len(calls):
        raise ValueError(f"{who}: layers must not be connected in a circle")
    return done
