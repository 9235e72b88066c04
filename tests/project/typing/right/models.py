# SPDX-License-Identifier: BSD-3-Clause
"""Models that fit, in Keras's way and by a loop of one's own."""

from pathlib import Path
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import fastrnn
from fastrnn.callbacks import Callback, EarlyStopping, ModelCheckpoint
from fastrnn.schedules import CosineLR, WarmUp

rng = np.random.default_rng(0)
waves = rng.normal(size=(64, 51, 1))

model = fastrnn.Sequential(fastrnn.LSTM(None, 32, seed=1), fastrnn.Linear(None, 1))
assert_type(model, fastrnn.Sequential)
assert_type(model[0], fastrnn.Module)
model.compile("mse", "adam", metrics=["mae"], lr=1e-3, betas=(0.9, 0.99))
history = model.fit(
    waves[:, :-1],
    waves[:, 1:],
    epochs=3,
    validation_split=0.2,
    callbacks=[EarlyStopping(patience=2), ModelCheckpoint("best"), CosineLR()],
    clip_norm=1.0,
    seed=3,
    verbose=0,
)
assert_type(history.history["loss"], list[float])
print(history.history["val_mae"][-1] < 1, model.history.last, model.optimizer.lr)
print(model.predict(waves[:1]).shape, len(model), [type(layer) for layer in model])
model.optimizer.lr = 1e-4
model.add(fastrnn.Dropout())
model.save(Path("model.safetensors"))
other = fastrnn.load_model("model.safetensors")
other.fit([waves[0], waves[1, :9]], [[1.0], [2.0]], callbacks=CosineLR(3))


def absolute(
    pred: NDArray[np.float32], target: NDArray[np.float32]
) -> tuple[float, NDArray[Any]]:
    """A loss of one's own."""
    return float(abs(pred - target).mean()), np.sign(pred - target) / pred.size


class Worst(Callback):
    """A callback of one's own."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if logs and logs["loss"] > 10:
            self.model.stop_training = True
            self.model.optimizer.lr /= 2


class Doubled(fastrnn.Model):
    """A model of one's own."""

    def __init__(self, size: int = 1) -> None:
        self.head = fastrnn.Linear(size, 1, bias=False, seed=0)

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        return 2 * self.head(x)

    def backward(self, dy: NDArray[Any]) -> NDArray[Any]:
        return self.head.backward(2 * dy)


own = Doubled()
own.compile(absolute, fastrnn.SGD(own, lr=0.1, momentum=0.9), metrics=["mse", absolute])
own.fit(waves[:, 0], waves[:, 1], callbacks=[Worst(), WarmUp(2)])
optimizer = fastrnn.AdamW(own, weight_decay=0.1)
for _ in range(3):
    loss, dy = fastrnn.mse_loss(own(waves[:, 0]), waves[:, 1])
    optimizer.zero_grad()
    own.backward(dy)
    norm = fastrnn.clip_grad_norm_(own, 1.0)
    optimizer.step()
    print(f"{loss:.3f} {norm:.3f} {optimizer.n_steps} {optimizer.betas[0]}")
optimizer.load_state_dict(optimizer.state_dict())

found = fastrnn.diagnose(model, waves, lambda y: fastrnn.mse_loss(y, waves))
print(found.flows[0].ratio, *found.remedies)
