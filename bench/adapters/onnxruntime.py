# SPDX-License-Identifier: BSD-3-Clause
"""The adapter of ONNX Runtime: one LSTM, GRU or RNN node, in inference only."""

from functools import partial

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bench import data
from bench.adapters import N_STEPS, UnsupportedError, form_of
from bench.case import ModelCase

OPSET, IR_VERSION = 17, 8
# The operator, and ONNX's order of gates: each gate's place in fastrnn's order.
NODES = {
    "lstm": ("LSTM", (0, 3, 1, 2)),
    "gru": ("GRU", (1, 0, 2)),
    "rnn": ("RNN", (0,)),
    "rnn_relu": ("RNN", (0,)),
}
_settings = {}


def start(n_threads, dtype):
    _settings["threads"] = n_threads
    return {
        "versions": {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__},
        "settings": {"intra_op": n_threads, "inter_op": 1},
    }


def variants(case, dtype):
    if isinstance(case, ModelCase) or case.direction == "train":
        raise UnsupportedError("the onnxruntime package does inference only")
    if dtype != "float32":
        raise UnsupportedError("its recurrent operators run in float32 only")
    form_of(NODES, case)
    return sides_of(case, dtype)


def sides_of(case, dtype, change=None):
    """The ways to run a node, or what the function `change` makes of its model."""
    if case.direction == "step":
        return {"run": partial(Step, case, dtype, change)}
    return {
        "run": partial(Run, case, dtype, change),
        "I/O binding": partial(Bound, case, dtype, change),
    }


def _reorder(rows, gates):
    return np.concatenate([np.split(rows, len(gates))[k] for k in gates])


def weight_bytes(side):
    """The bytes of the weights, scales and biases that the model has."""
    return side.weight_bytes


def _model(case, weights):
    """A model of one node, and the names of its outputs and of its input states."""
    operator, gates = NODES[case.cell]
    w = {name: _reorder(value, gates) for name, value in weights.items()}
    constants = {
        "W": w["weight_ih_l0"][None],
        "R": w["weight_hh_l0"][None],
        "B": np.concatenate([w["bias_ih_l0"], w["bias_hh_l0"]])[None],
    }
    T, B, I, H = case.shape
    inputs, outputs = ["X", "W", "R", "B"], ["Y"]
    has_state = case.direction == "step"
    if has_state:
        names = ["h", "c"] if case.cell == "lstm" else ["h"]
        inputs += ["", *(f"initial_{name}" for name in names)]
        outputs += [f"Y_{name}" for name in names]
    attributes = {"hidden_size": H}
    if case.cell == "gru":
        attributes["linear_before_reset"] = 1
    if case.cell == "rnn_relu":
        attributes["activations"] = ["Relu"]
    float32 = partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT)
    state = [float32(name, shape=[1, B, H]) for name in inputs[5:]]
    ends = [float32(name, shape=[1, B, H]) for name in outputs[1:]]
    graph = helper.make_graph(
        [helper.make_node(operator, inputs, outputs, **attributes)],
        "layer",
        [float32("X", shape=[T, B, I]), *state],
        [float32("Y", shape=[T, 1, B, H]), *ends],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    return model, outputs, inputs[5:]


def _session(model):
    """A session of a model on this process's threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _settings["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


class _OneNode:
    """What the sides of one node have in common.

    The function `change`, where there is one, makes another model of the model.
    """

    def __init__(self, case, dtype, change=None):
        weights, self.x, _ = data.layer(case, dtype)
        model, self.outputs, self.states = _model(case, weights)
        model = change(model) if change else model
        constants = map(numpy_helper.to_array, model.graph.initializer)
        self.weight_bytes = sum(constant.nbytes for constant in constants)
        self.session = _session(model)


class Run(_OneNode):
    """The side of a layer that runs whole sequences, with NumPy arrays in and out."""

    def __init__(self, case, dtype, change=None):
        super().__init__(case, dtype, change)
        self.feed = {"X": self.x}

    def run(self):
        return self.session.run(None, self.feed)[0]

    def results(self):
        return {"y": self.run()[:, 0]}


class Bound(_OneNode):
    """The side of a layer that runs whole sequences between arrays bound beforehand."""

    def __init__(self, case, dtype, change=None):
        super().__init__(case, dtype, change)
        T, B, _, H = case.shape
        self.x = onnxruntime.OrtValue.ortvalue_from_numpy(self.x)
        self.y = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            [T, 1, B, H], np.float32
        )
        self.binding = self.session.io_binding()
        self.binding.bind_ortvalue_input("X", self.x)
        self.binding.bind_ortvalue_output("Y", self.y)

    def run(self):
        self.session.run_with_iobinding(self.binding)

    def results(self):
        self.run()
        return {"y": self.y.numpy()[:, 0]}


class Step(_OneNode):
    """The side of single time steps, each from the state after the step before."""

    def __init__(self, case, dtype, change=None):
        super().__init__(case, dtype, change)
        self.zero = np.zeros((1, case.shape.B, case.shape.H), np.float32)
        self.feed = {"X": self.x, **dict.fromkeys(self.states, self.zero)}

    def run(self):
        y, *ends = self.session.run(self.outputs, self.feed)
        self.feed.update(zip(self.states, ends, strict=True))
        return y

    def results(self):
        self.feed.update(dict.fromkeys(self.states, self.zero))
        return {"y": np.concatenate([self.run()[:, 0] for _ in range(N_STEPS)])}
