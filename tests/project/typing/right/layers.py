# SPDX-License-Identifier: BSD-3-Clause
"""Layers by themselves: what calls and gradients are of."""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import fastrnn

x = np.ones((5, 3, 28), dtype=np.float32)

lstm = fastrnn.LSTM(28, 64, num_layers=2, bidirectional=True, seed=0)
assert_type(lstm, fastrnn.LSTM)
y, (h_n, c_n) = lstm(x, lengths=[5, 2, 0])
assert_type(y, NDArray[Any])
assert_type(c_n, NDArray[Any])
dx, (dh_0, dc_0) = lstm.backward(np.ones_like(y))
y, (h_n, c_n) = lstm(x, (h_n, c_n), mask=x.any(axis=2).T)

gru = fastrnn.GRU(None, 64, seed=np.random.default_rng(3), activation=("elu", 0.5))
y, h_n = gru(x.tolist(), resets=np.eye(5, 3) > 0)
assert_type(h_n, NDArray[Any])
y, h_n = gru.forward(x, h_n)
stream = gru.stream(3)
print(stream.step(x[0]).shape, gru.eval().training, lstm.train(False).dropout)

rnn, mgu = fastrnn.RNN(28, 4, nonlinearity="relu"), fastrnn.MGU(28, 4)
both = fastrnn.Bidirectional(fastrnn.LSTM(28, 4), merge_mode="sum")
for layer in (rnn, mgu, both, fastrnn.Masking(), fastrnn.Dropout(0.1)):
    layer.trainable = False
    print(layer(x), layer.context)

linear = fastrnn.Linear(28, 3, activation="relu")
assert_type(linear(x), NDArray[Any])
assert_type(linear.backward(np.ones((5, 3, 3))), NDArray[Any])
linear.parameters["weight"][:] = 0.5
norm = float(np.linalg.norm(linear.grads["weight"])) + linear.flat_grads.sum()
linear.load_state_dict(linear.state_dict())
embedding = fastrnn.Embedding(100, 8, mask_zero=True)
assert_type(embedding([[1, 2], [3, 0]]), NDArray[Any])
context, weights = fastrnn.Attention(8)(np.ones((2, 8)), np.ones((4, 2, 8)))
print(fastrnn.LayerNorm(28)(x) + fastrnn.ReLU()(x), context @ context.T, weights)

crf = fastrnn.CRF(4, seed=0)
loss = crf(np.zeros((5, 2, 4)), np.zeros((5, 2), dtype=int))
tags, scores = crf.decode(np.zeros((5, 2, 4)))
loss += fastrnn.mse_loss(y, y)[0] + fastrnn.cross_entropy(y[0], [1, 2, 3])[0]
print(f"{loss:.3f}", tags, scores, crf.backward(2.0))

fastrnn.init.orthogonal_(gru.parameters["weight_hh_l0"], n_gates=3, seed=0)
fastrnn.init.forget_gate_bias_(lstm, 1.0)
for window in fastrnn.tbptt(x, 2, 4):
    y = window.forward(gru)
    window.backward(gru, np.ones_like(y))
fastrnn.set_num_threads(fastrnn.get_num_threads())
