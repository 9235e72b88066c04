# SPDX-License-Identifier: BSD-3-Clause
"""`ModelSide`: the part of a model's side that is the same for all libraries."""

import itertools

import numpy as np

CHECK_STEPS = 5


class ModelSide:
    """Base of the sides of models.

    A subclass has two methods. ``step(inputs, targets)`` runs one whole training step
    from the state after the step before, and returns the loss.
    ``gradients(inputs, targets)`` returns the gradients by the names of the parameters,
    from a zero state and before clipping, and changes nothing.

    Parameters
    ----------
    spec : bench.models.Model
    batches : list of pair
        Inputs and targets, in the types and layouts that the library needs.
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
