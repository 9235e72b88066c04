# SPDX-License-Identifier: BSD-3-Clause
"""What training a model has in common, whatever the library."""

import itertools

import numpy as np

CHECK_STEPS = 5


class ModelSide:
    """Base of each library's model side.

    A subclass has ``step(inputs, targets)``, one whole training step that carries the
    state on and gives the loss, and ``gradients(inputs, targets)``, the gradients by
    parameter name before clipping, from a zero state and with nothing changed.

    Parameters
    ----------
    spec : bench.models.Model
    batches : list of pair
        Inputs and targets as the library wants them.
    """

    def __init__(self, spec, batches):
        self.n_steps, self.first = spec.steps, batches[0]
        self.batches = itertools.cycle(batches)
        self.state = None

    def run(self):
        for _ in range(self.n_steps):
            loss = self.step(*next(self.batches))
        return loss

    def results(self):
        grads = {f"d{k}": np.array(v) for k, v in self.gradients(*self.first).items()}
        loss, *later = (
            float(self.step(*next(self.batches))) for _ in range(CHECK_STEPS)
        )
        return {"loss": np.array(loss), "later losses": np.array(later), **grads}
