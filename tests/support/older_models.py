# SPDX-License-Identifier: BSD-3-Clause
"""Write the files of tests/support/older: run once, by the version that they are of.

    python tests/support/older_models.py FOLDER

writes models, a checkpoint and parameters with the fastrnn that is installed, and what
they give, so that later versions can be held to both.  The files in the repository are
of commit 95fd891 (x86_v3 and x86_v4 give the same bits).
"""

import sys
from pathlib import Path

import numpy as np
import safetensors.numpy

import fastrnn

X = np.random.default_rng(1).normal(size=(6, 5, 3)).astype("f")  # (N, T, F)
TOKENS = np.random.default_rng(2).integers(0, 9, (6, 5))


def models():
    """A model of each kind that a file may hold, and its samples."""
    shared = fastrnn.Linear(4, 4, seed=9)
    yield (
        "cells",
        X,
        fastrnn.Sequential(
            fastrnn.LayerNorm(3),
            fastrnn.LSTM(3, 4, 2, dropout=0.2, bidirectional=True, seed=0),
            fastrnn.GRU(8, 4, reset_after=False, learn_initial_state=True, seed=1),
            fastrnn.Sequential(shared, fastrnn.Dropout(0.1, seed=4), shared),
            fastrnn.RNN(4, 3, nonlinearity="relu", return_sequences=False, seed=2),
            fastrnn.Linear(3, 2, seed=3),
        ),
    )
    yield (
        "options",
        X,
        fastrnn.Sequential(
            fastrnn.LSTM(3, 5, proj_size=2, peephole=True, cell_clip=1.0, seed=0),
            fastrnn.Bidirectional(fastrnn.GRU(None, 3, seed=1), "sum"),
            fastrnn.TimeDistributed(fastrnn.Linear(None, 2, seed=2)),
        ),
    )
    yield (
        "tagger",
        TOKENS,
        fastrnn.Sequential(
            fastrnn.Embedding(9, 3, padding_idx=0, seed=0),
            fastrnn.LSTM(3, 4, batch_first=True, seed=1),
            fastrnn.Linear(4, 3, seed=2),
            fastrnn.CRF(3, seed=3),
        ),
    )
    yield (
        "writer",
        TOKENS[:, :2],
        fastrnn.Generator(9, fastrnn.GRU(3, 6, seed=0), start=7, end=8, seed=1),
    )
    yield "translator", TOKENS, fastrnn.EncoderDecoder(
        fastrnn.LSTM(3, 4, bidirectional=True, seed=0), fastrnn.LSTM(3, 5, seed=1),
        9, 8, start=6, end=7, attention="additive", units=4, seed=2,
    )  # fmt: skip


def answer(found):
    """What `predict` gave, as one array."""
    if isinstance(found, list):
        found = np.concatenate([np.append(row, -1) for row in found])
    return found


def main():
    folder = Path(sys.argv[1])
    answers = {}
    for name, x, model in models():
        if name in ("cells", "options"):
            model.compile("mse", "adam", lr=0.01)
            y = np.ones_like(model.predict(x))
            model.fit(x, y, epochs=2, batch_size=3, seed=0, verbose=0)
        answers[name] = answer(model.predict(x))
        model.save(folder / f"{name}.safetensors")

    model = fastrnn.Sequential(fastrnn.GRU(3, 4, seed=0), fastrnn.Linear(4, 1, seed=1))
    model.compile("mse", "adam", metrics=["mae"], lr=0.01)
    keep = fastrnn.callbacks.ModelCheckpoint(folder / "run.safetensors", "loss")
    y = X[:, :, :1]
    model.fit(X, y, epochs=2, batch_size=4, seed=0, verbose=0, callbacks=[keep])
    keep.path = str(folder / "gone.safetensors")
    model.fit(
        X, y, epochs=4, batch_size=4, verbose=0, callbacks=[keep],
        resume=folder / "run.safetensors",
    )  # fmt: skip
    (folder / "gone.safetensors").unlink()
    answers["run"] = model.flat_parameters

    layer = fastrnn.LSTM(3, 4, 2, seed=5)
    layer.save(folder / "layer.safetensors")
    answers["layer"] = layer.eval()(X)[0]
    safetensors.numpy.save_file(answers, folder / "answers.safetensors")


if __name__ == "__main__":
    main()
