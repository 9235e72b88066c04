# SPDX-License-Identifier: BSD-3-Clause
"""Slips of the pen: a checker has to find what is marked, and nothing else."""

import numpy as np

import fastrnn
from fastrnn.callbacks import EarlyStopping
from fastrnn.schedules import StepLR

x = np.ones((4, 5, 1))
model = fastrnn.Sequential(fastrnn.LSTM(1, 3), fastrnn.Linear(3, 1))

fastrnn.LTSM(3, 4)  # wrong
fastrnn.LSTM("a", 3)  # wrong
fastrnn.LSTM("3")  # wrong
fastrnn.LSTM(units="3")  # wrong
fastrnn.LSTM(3, 4, init=3)  # wrong
fastrnn.LSTM(3, 4, hidden=3)  # wrong
fastrnn.LSTM(3, 4, bidirectional="yes")  # wrong
fastrnn.GRU(3, 4, proj_size=2)  # wrong
fastrnn.GRU(3, 4, seed="0")  # wrong
fastrnn.Linear(3, 4.5)  # wrong
fastrnn.Dropout("a")  # wrong
fastrnn.Embedding(3.5, 4)  # wrong
fastrnn.Activation(3)  # wrong
fastrnn.Concatenate("last")  # wrong
fastrnn.Dense("3")  # wrong
fastrnn.Dense(3, unit=4)  # wrong
fastrnn.Conv1D(3, "4")  # wrong
fastrnn.Bidirectional("lstm")  # wrong
fastrnn.Sequential([3])  # wrong
fastrnn.Sequential(fastrnn.Linear)  # wrong
fastrnn.Generator(9, fastrnn.Linear(4, 8))  # wrong

model.compile(loss=3)  # wrong
model.compile("mse", optimizer=0.1)  # wrong
model.compile("mse", "adam", lrr=1e-3)  # wrong
model.compile("mse", "adam", lr="fast")  # wrong
model.compile("mse", metrics=3)  # wrong
model.compile("mse", metrics=[3])  # wrong
model.fit(x, x, epoch=2)  # wrong
model.fit(x, x, epochs="2")  # wrong
model.fit(x, x, callbacks=["stop"])  # wrong
model.fit(x, x, validation_split=None)  # wrong
model.fit(x, x, shuffle=3)  # wrong
model.predict(x, batchsize=3)  # wrong
model.evaluat(x, x)  # wrong
model.save(3)  # wrong
model[0].trainabel = False  # wrong
model["lstm"]  # wrong
model.add(3)  # wrong
model.evaluate(x, x, return_dict=True).upper()  # wrong
model.train_on_batch(x)  # wrong
print(model.fit(x, x).losses)  # wrong
model.fit(x, x).history["loss"].upper()  # wrong

fastrnn.Adam("adam")  # wrong
fastrnn.Adam(model, learnin_rate=3)  # wrong
fastrnn.Adam(learning_rate="fast")  # wrong
fastrnn.SGD(model, lr="0.1")  # wrong
fastrnn.clip_grad_norm_(1.0)  # wrong
EarlyStopping(patience="3")  # wrong
EarlyStopping(patient=3)  # wrong
StepLR("every 3")  # wrong
fastrnn.GRU(3, 4)(x, length=[3])  # wrong
fastrnn.Linear(3, 4)(x, x)  # wrong
fastrnn.Linear(3, 4)(x).forward()  # wrong
fastrnn.set_num_threads("2")  # wrong
fastrnn.mse_loss(x)  # wrong
fastrnn.WordTokenizer().fit(3)  # wrong
fastrnn.keras.load_file("model.keras")  # wrong
