# SPDX-License-Identifier: BSD-3-Clause
"""Connections around the layers of a stack: residual and highway.

A layer after the first has an input x and an output h, of one width. A residual
connection makes h + x of them. A highway has a gate with parameters of its own, and
makes x + t * (h - x) with t = sigmoid(x W^T + b).

NumPy does what is done to each element by itself, and the kernels' linear layer the
products, in a fixed order: results keep their bits for any number of threads and in any
batch.
"""

import numpy as np

from fastrnn.native.memory import aligned

CONNECTIONS = (None, "residual", "highway")


def _gate(runtime, k):
    """A copy of the weight and the bias of the highway around layer k."""
    names = f"weight_gate_l{k}", f"bias_gate_l{k}"
    return [runtime.named[name].copy() for name in names]


def _open(kernels, n_threads, x, weight, bias, a, t, work):
    """Compute ``t = sigmoid(x W^T + b)``; `a` takes the sum before the sigmoid."""
    kernels.linear_forward(n_threads, *x.shape, x.shape[1], x, weight, bias, a, work)
    kernels.activation("sigmoid", a.reshape(-1), t.reshape(-1))


def around_steps(runtime, kernels, n_threads, k, B):
    """The connection around layer k for inference one step at a time.

    Returns
    -------
    callable
        It takes arrays (B, S) h and x, and makes h the output in place. The bits are
        those of a whole sequence's `Highway.forward`, or of h + x.
    """
    if runtime.connection == "residual":
        return lambda h, x: np.add(h, x, out=h)
    weight, bias = _gate(runtime, k)
    width = runtime.y_size
    a, t = (np.empty((B, width), runtime.dtype) for _ in range(2))
    size = kernels.linear_work_size(False, B, width, width, n_threads)
    work = aligned(size, runtime.dtype)

    def connect(h, x):
        _open(kernels, n_threads, x, weight, bias, a, t, work)
        np.subtract(h, x, out=h)
        np.multiply(t, h, out=h)
        np.add(x, h, out=h)

    return connect


class Highway:
    """The highway around layer k in one forward, and in its backward.

    The weight and the opened gate are those of this forward, also when an optimiser
    writes to the parameters before backward runs.
    """

    def __init__(self, runtime, k):
        self._k, (self._weight, self._bias) = k, _gate(runtime, k)
        self._t = None

    def _sizes_and_work(self, plan, backward, x):
        n, width = x.shape
        sizes = n, width, width
        size = plan.kernels.linear_work_size(backward, *sizes, plan.n_threads)
        return (plan.n_threads, *sizes), aligned(size, x.dtype)

    def forward(self, plan, h, x):
        """The output, from the layer's output h and its input x, (n, width) each."""
        _, work = self._sizes_and_work(plan, False, x)
        a, self._t = np.empty_like(x), np.empty_like(x)
        _open(
            plan.kernels, plan.n_threads, x, self._weight, self._bias, a, self._t, work
        )
        return x + self._t * (h - x)

    def backward(self, plan, runtime, h, x, d, with_grads):
        """Gradients of h and of x from `d`, that of the output.

        With `with_grads` those of the gate's parameters are added to the layer's.
        """
        t = self._t
        sizes, work = self._sizes_and_work(plan, True, x)
        one = t.dtype.type(1)
        da = d * (h - x) * t * (one - t)
        dx = np.empty_like(x)
        grads = None, None
        if with_grads:
            names = f"weight_gate_l{self._k}", f"bias_gate_l{self._k}"
            grads = [runtime.named_grads[name] for name in names]
        plan.kernels.linear_backward(*sizes, x, self._weight, da, dx, *grads, work)
        dx += d * (one - t)
        return d * t, dx
