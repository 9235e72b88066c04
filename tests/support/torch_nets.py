# SPDX-License-Identifier: BSD-3-Clause
"""A small network of PyTorch's with a recurrent layer inside, and its gradients."""

import torch

import fastrnn.torch


class Net(torch.nn.Module):
    """A layer between two others."""

    def __init__(self, name="LSTM", library=fastrnn.torch, **options):
        super().__init__()
        self.first = torch.nn.Linear(3, 3)
        self.layer = getattr(library, name)(3, 5, **options)
        D = 2 if self.layer.bidirectional else 1
        self.last = torch.nn.Linear(5 * D, 2)

    def forward(self, x: torch.Tensor):
        return self.last(self.layer(torch.tanh(self.first(x)))[0])


def gradients(net, call, x):
    net.zero_grad()
    y = call(x)
    y.square().sum().backward()
    return [y.detach(), *[p.grad.clone() for p in net.parameters()]]


def assert_close(got, want):
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
