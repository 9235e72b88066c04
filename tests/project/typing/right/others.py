# SPDX-License-Identifier: BSD-3-Clause
"""Rooms that other packages are for, found by their names alone."""

from typing import assert_type

import fastrnn

model = fastrnn.keras.load("model.keras")
assert_type(model, fastrnn.Sequential | fastrnn.Functional)
graph = fastrnn.onnx.load("model.onnx")
print(graph([[1.0]]), graph.inputs[0].upper())
fastrnn.onnx.save(model, "again.onnx", states=True)
forecaster = fastrnn.sklearn.RNNForecaster(window=24, cell="gru", random_state=0)
print(forecaster.fit([1.0, 2.0]).forecast([1.0], 3).mean())
lstm = fastrnn.torch.LSTM(3, 4, batch_first=True)
fastrnn.torch.accelerate(lstm)
with fastrnn.torch.patched():
    print(lstm.hidden_size)
