# SPDX-License-Identifier: BSD-3-Clause
"""A stack computed by PyTorch's own operators, where the kernels cannot serve backward.

The kernels compute a gradient and nothing more. A derivative of that gradient, a batch
of gradients (``is_grads_batched``, vmap) and gradients of a tensor subclass need
operators that PyTorch can differentiate, batch and dispatch. The functions here run
forward again out of such operators, and let autograd go back through them. They compute
the same function as `fastrnn.torch._stack`, with the same dropout noise.
"""

import torch

from fastrnn.torch import _compat, _steps

_SEQUENCE = {
    "RNN_TANH": torch.rnn_tanh,
    "RNN_RELU": torch.rnn_relu,
    "LSTM": torch.lstm,
    "GRU": torch.gru,
}


def forward(call, x, h0, c0, weights, noises):
    """Run a stack by PyTorch's operators, one layer at a time.

    The operators get dense sequences as packed ones of equal length, because a dense
    LSTM could go to oneDNN, whose operator has no second derivative.

    Parameters
    ----------
    call : StackCall
    x, h0, c0, weights
        As of `_stack.forward`, but no state may be None where the cell has it.
    noises : sequence of (Tensor or None)
        What dropout multiplied each layer's input by when the kernels ran forward.

    Returns
    -------
    y, h_n, c_n
        As of `_stack.forward`.
    """
    spec, batch_sizes = call.spec, call.batch_sizes
    D, per_layer = spec.directions, spec.directions * spec.weights_per_cell
    operator = _SEQUENCE[spec.mode]
    h_n, c_n = [], []
    y = x
    if call.single:
        h0, c0 = h0.unsqueeze(0), None if c0 is None else c0.unsqueeze(0)
        batch_sizes = torch.tensor([call.B])
    elif batch_sizes is None:
        y = (x.transpose(0, 1) if call.batch_first else x).flatten(0, 1)
        batch_sizes = torch.full((call.T,), call.B)
    for layer, noise in enumerate(noises):
        if noise is not None:
            y = y * noise.reshape(y.shape)
        cells = slice(layer * D, (layer + 1) * D)
        hx = (h0[cells], c0[cells]) if spec.has_c else h0[cells]
        own = list(weights[layer * per_layer : (layer + 1) * per_layer])
        if spec.activations is None:
            y, h, *c = operator(
                y, batch_sizes, hx, own, spec.bias, 1, 0.0, False, spec.bidirectional
            )
        else:
            y, h, *c = _steps.layer(spec, y, batch_sizes, h0, c0, own)
        h_n.append(h)
        c_n += c
    if call.single:
        return y, None, c_n[0].squeeze(0) if c_n else None
    if call.batch_sizes is None:
        y = y.unflatten(0, (call.T, call.B))
    return y, torch.cat(h_n), torch.cat(c_n) if c_n else None


def backward(call, x, h0, c0, weights, noises, gradients, wanted):
    """Back-propagate by PyTorch's operators; arguments are those of `_stack.backward`.

    The gradients that it returns can be differentiated themselves where grad mode is
    on. Those in `gradients` may be of a tensor subclass, or batched.
    """
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        return _backward(
            call, x, h0, c0, weights, noises, gradients, wanted, differentiable
        )


def _backward(call, x, h0, c0, weights, noises, gradients, wanted, differentiable):
    h0_given, c0_given = h0, c0
    # The saved tensors were made before any transform (vmap, grad ...) that is active
    # now, so forward over them has to run outside of it, too. Only the gradients belong
    # to the transform.
    with _compat.no_transforms():
        if h0 is None:
            h0 = x.new_zeros(call.state_shape(call.spec.S))
        if c0 is None and call.spec.has_c:
            c0 = x.new_zeros(call.state_shape(call.spec.H))
        outputs = forward(call, x, h0, c0, weights, noises)
    pairs = [
        (out, g) for out, g in zip(outputs, gradients, strict=True) if g is not None
    ]
    inputs = [x, h0_given, c0_given, *weights]
    sources = [t for t, want in zip(inputs, wanted, strict=True) if want]
    found = iter(
        torch.autograd.grad(
            [out for out, _ in pairs],
            sources,
            [g for _, g in pairs],
            create_graph=differentiable,
            allow_unused=True,
        )
    )
    return [next(found) if want else None for want in wanted]
