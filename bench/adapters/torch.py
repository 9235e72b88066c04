# SPDX-License-Identifier: BSD-3-Clause
"""The adapter of PyTorch: eager ``torch.nn`` modules.

Inference runs in inference mode, and training sets gradients to None between steps.
"""

import numpy as np
import torch
from torch.nn import functional

from bench import data, models
from bench.adapters import N_STEPS, form_of
from bench.adapters.model_side import ModelSide
from bench.case import ModelCase

CLASSES = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN", "rnn_relu": "RNN"}


def start(n_threads, dtype):
    torch.set_num_threads(n_threads)
    torch.set_num_interop_threads(1)
    torch.set_flush_denormal(True)  # fastrnn's kernels flush subnormals, too
    return {
        "versions": {"torch": torch.__version__},
        "settings": {
            "threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "onednn": torch.backends.mkldnn.is_available(),
        },
    }


def variants(case, dtype):
    if isinstance(case, ModelCase):
        return {"eager, fused Adam": lambda: Trainer(case.model, dtype)}
    form_of(CLASSES, case)
    if case.direction == "step":
        return {"eager": lambda: Step(case, dtype)}
    return {"eager": lambda: Layer(case, dtype)}


def weight_bytes(side):
    """The bytes of a layer's parameters."""
    return sum(p.numel() * p.element_size() for p in side.layer.parameters())


def array_of(tensor):
    """A tensor as an array; of bfloat16, which NumPy does not have, as float32."""
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()


def _load(module, weights):
    module.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
    return module


def _layer(case, weights, dtype):
    extra = {"nonlinearity": "relu"} if case.cell == "rnn_relu" else {}
    layer_class = getattr(torch.nn, CLASSES[case.cell])
    layer = layer_class(
        case.shape.I, case.shape.H, dtype=getattr(torch, dtype), **extra
    )
    return _load(layer, weights).train(case.direction == "train")


class Layer:
    """The side of a layer that runs whole sequences, forward or as a training step."""

    def __init__(self, case, dtype):
        weights, x, dy = data.layer(case, dtype)
        self.layer = self.call = _layer(case, weights, dtype)
        self.is_training = case.direction == "train"
        self.x = torch.from_numpy(x).requires_grad_(self.is_training)
        self.dy = torch.from_numpy(dy)
        self.run = self.train if self.is_training else self.forward

    def forward(self):
        with torch.inference_mode():
            return self.call(self.x)[0]

    def train(self):
        self.layer.zero_grad(set_to_none=True)
        self.x.grad = None
        y, _ = self.call(self.x)
        y.backward(self.dy)
        return y

    def results(self):
        y = array_of(self.run())
        if not self.is_training:
            return {"y": y}
        named = self.layer.named_parameters()
        grads = {f"d{name}": array_of(value.grad) for name, value in named}
        return {"y": y, "dx": array_of(self.x.grad), **grads}


class Step:
    """The side of single time steps, each from the state after the step before."""

    def __init__(self, case, dtype):
        weights, x, _ = data.layer(case, dtype)
        self.layer = self.call = _layer(case, weights, dtype)
        self.x, self.state = torch.from_numpy(x), None

    def run(self):
        with torch.inference_mode():
            y, self.state = self.call(self.x, self.state)
        return y

    def results(self):
        self.state = None
        return {"y": np.concatenate([array_of(self.run()) for _ in range(N_STEPS)])}


class Net(torch.nn.Module):
    """A model: an embedding if inputs are tokens, a stacked LSTM and a linear layer."""

    def __init__(self, spec):
        super().__init__()
        if spec.V:
            self.embedding = torch.nn.Embedding(spec.V, spec.E)
        self.recurrent = torch.nn.LSTM(spec.E, spec.H, spec.layers)
        self.head = torch.nn.Linear(spec.H, spec.classes)
        self.has_tokens = bool(spec.V)

    def forward(self, inputs, state=None):
        if not self.has_tokens:
            y, state = self.recurrent(inputs, state)
            return self.head(y[-1]), state
        y, state = self.recurrent(self.embedding(inputs), state)
        return self.head(y).flatten(0, 1), state


class Trainer(ModelSide):
    """The side of a model: trains a `Net` with the fused Adam."""

    def __init__(self, spec, dtype):
        weights, batches = data.model(spec, dtype)
        if spec.V:
            batches = [(tokens, targets.reshape(-1)) for tokens, targets in batches]
        super().__init__(spec, [tuple(map(torch.from_numpy, b)) for b in batches])
        self.spec = spec
        self.net = _load(Net(spec).to(getattr(torch, dtype)), weights)
        self.loss = functional.cross_entropy if spec.V else functional.mse_loss
        self.optimizer = torch.optim.Adam(
            self.net.parameters(),
            lr=models.LR,
            betas=models.BETAS,
            eps=models.EPS,
            fused=True,
        )

    def _backward(self, inputs, targets, state):
        self.optimizer.zero_grad(set_to_none=True)
        out, state = self.net(inputs, state)
        loss = self.loss(out, targets)
        loss.backward()
        return loss, state

    def gradients(self, inputs, targets):
        self._backward(inputs, targets, None)
        named = self.net.named_parameters()
        return {name: value.grad.numpy() for name, value in named}

    def step(self, inputs, targets):
        loss, state = self._backward(inputs, targets, self.state)
        if self.spec.V:
            self.state = tuple(part.detach() for part in state)
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), models.CLIP_NORM)
        self.optimizer.step()
        return loss.item()
