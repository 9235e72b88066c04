# SPDX-License-Identifier: BSD-3-Clause
"""The adapter of fastrnn, which uses fastrnn's public layers."""

import numpy as np

import fastrnn
from bench import data, machine, models, programs
from bench.adapters import N_STEPS
from bench.adapters.model_side import ModelSide, ProgramSide
from bench.case import LayerCase, ModelCase, ProgramCase
from bench.cases import KNOWN, new_layer

CASES = (LayerCase, ModelCase, ProgramCase)


def start(n_threads, dtype):
    fastrnn.set_num_threads(n_threads)
    machine.fma_peak(dtype, n_threads)  # starts the threads
    return {
        "versions": {"fastrnn": fastrnn.__version__, "numpy": np.__version__},
        "settings": machine.build(),
    }


def peak(n_threads, dtype):
    """The GFLOP/s of FMAs alone at this moment."""
    return machine.fma_peak(dtype, n_threads)


def variants(case, dtype):
    if isinstance(case, ModelCase):
        return {"fastrnn": lambda: Trainer(case.model, dtype)}
    if isinstance(case, ProgramCase):
        return {"fastrnn": lambda: Program(case.program, dtype)}
    if case.direction == "step":
        return {"stream": lambda: Step(case, dtype)}
    return {"layer": lambda: Layer(case, dtype)}


def weight_bytes(side):
    """The bytes of a layer's parameters, or of what `quantize` made of them."""
    return sum(value.nbytes for value in side.layer.state_dict().values())


def _layer(case, parameters, dtype, compute=None, weights=None):
    """A layer of its class, or what its ``quantize`` makes of it.

    `weights` is the argument of ``quantize``, and `compute` that of the layer.
    """
    layer = new_layer(case.cell, case.shape.I, case.shape.H, dtype)
    layer.load_state_dict(parameters)
    layer.train(case.direction == "train")
    if compute:
        layer.compute = compute
    return layer.quantize(weights) if weights else layer


class Layer:
    """The side of a layer that runs whole sequences, forward or as a training step."""

    def __init__(self, case, dtype, **narrow):
        parameters, self.x, self.dy = data.layer(case, dtype)
        self.layer = _layer(case, parameters, dtype, **narrow)
        self.is_training = case.direction == "train"
        self.run = self.train if self.is_training else self.forward

    def forward(self):
        return self.layer(self.x)[0]

    def train(self):
        self.layer.zero_grad()
        y, _ = self.layer(self.x)
        dx, _ = self.layer.backward(self.dy)
        return y, dx

    def results(self):
        if not self.is_training:
            return {"y": self.forward()}
        y, dx = self.train()
        grads = {f"d{name}": grad.copy() for name, grad in self.layer.grads.items()}
        return {"y": y, "dx": dx, **grads}


class Step:
    """The side of single time steps, by a stream.

    A stream keeps the state itself, and its step allocates nothing.
    """

    def __init__(self, case, dtype, **narrow):
        parameters, x, _ = data.layer(case, dtype)
        self.layer = _layer(case, parameters, dtype, **narrow)
        self.stream = self.layer.stream(case.shape.B)
        self.x = x[0]

    def run(self):
        return self.stream.step(self.x)

    def results(self):
        self.stream.reset()
        return {"y": np.array([self.run().copy() for _ in range(N_STEPS)])}


class Net(fastrnn.Module):
    """A model: an embedding if inputs are tokens, a stacked LSTM and a linear layer."""

    def __init__(self, spec, dtype):
        if spec.V:
            self.embedding = fastrnn.Embedding(spec.V, spec.E, dtype=dtype)
        self.recurrent = fastrnn.LSTM(spec.E, spec.H, spec.layers, dtype=dtype)
        self.head = fastrnn.Linear(spec.H, spec.classes, dtype=dtype)
        self.has_tokens = bool(spec.V)

    def forward(self, inputs, state=None):
        if not self.has_tokens:
            y, state = self.recurrent(inputs, state)
            return self.head(y[-1]), state
        y, state = self.recurrent(self.embedding(inputs), state)
        return self.head(y), state

    def backward(self, d_out):
        d_head = self.head.backward(d_out)
        if self.has_tokens:
            self.embedding.backward(self.recurrent.backward(d_head)[0])
            return
        # A window model uses only the last layer's h_n: its gradient enters there.
        d_h_n = np.zeros((self.recurrent.num_layers, *d_head.shape), d_head.dtype)
        d_h_n[-1] = d_head
        self.recurrent.backward(None, (d_h_n, None))


class Trainer(ModelSide):
    """The side of a model: trains a `Net`."""

    def __init__(self, spec, dtype):
        weights, batches = data.model(spec, dtype)
        super().__init__(spec, batches)
        self.spec, self.net = spec, Net(spec, dtype)
        self.net.load_state_dict(weights)
        self.loss = fastrnn.cross_entropy if spec.V else fastrnn.mse_loss
        self.optimizer = fastrnn.Adam(
            self.net, models.LR, betas=models.BETAS, eps=models.EPS
        )

    def _backward(self, inputs, targets, state):
        self.optimizer.zero_grad()
        out, state = self.net(inputs, state)
        loss, d_out = self.loss(out, targets)
        self.net.backward(d_out)
        return loss, state

    def gradients(self, inputs, targets):
        self._backward(inputs, targets, None)
        return self.net.grads

    def step(self, inputs, targets):
        loss, state = self._backward(inputs, targets, self.state)
        if self.spec.V:
            self.state = state
            fastrnn.clip_grad_norm_(self.net, models.CLIP_NORM)
        self.optimizer.step()
        return loss


class Program(ProgramSide):
    """The side of a program: the same one with fastrnn's own model."""

    def __init__(self, spec, dtype):
        weights, batches = data.model(spec, dtype)
        super().__init__(spec, batches)
        layer_class = getattr(fastrnn, KNOWN[spec.cell].layer)
        layers = [
            layer_class(
                spec.H if k else spec.E,
                spec.H,
                return_sequences=k < spec.layers - 1,
                dtype=dtype,
            )
            for k in range(spec.layers)
        ]
        head = fastrnn.Linear(spec.H, spec.classes, dtype=dtype)
        self.model = fastrnn.Sequential(*layers, head)
        # By the model's name of each array, the name that all libraries have for it.
        self.names = {f"{spec.layers}.{name}": f"head.{name}" for name in head.grads}
        for k, layer in enumerate(layers):
            for name in layer.grads:
                common = name.removesuffix("_l0")
                self.names[f"{k}.{name}"] = f"recurrent.{common}_l{k}"
        self.model.load_state_dict(
            {name: weights[common] for name, common in self.names.items()}
        )
        adam = fastrnn.Adam(lr=programs.LR, betas=models.BETAS, eps=models.EPS)
        self.model.compile("mse", adam)

    def predict(self, inputs):
        return self.model.predict_on_batch(inputs)

    def gradients(self, inputs, targets):
        self.model.zero_grad()
        _, d_out = fastrnn.mse_loss(self.model(inputs), targets)
        self.model.backward(d_out)
        return {common: self.model.grads[name] for name, common in self.names.items()}

    def step(self, inputs, targets):
        return self.model.train_on_batch(inputs, targets)
