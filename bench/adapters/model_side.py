# SPDX-License-Identifier: BSD-3-Clause
"""`ModelSide` and `ProgramSide`: what the sides of all libraries have in common."""

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


class ProgramSide(ModelSide):
    """Base of the sides of programs, whose arrays are samples first.

    A subclass has a method more, ``predict(inputs)``, which returns the outputs as the
    user gets them. Its ``gradients`` may train the program, if the weights are those of
    before in the end.

    Parameters
    ----------
    spec : bench.programs.Program
    batches : list of pair
        What `bench.data.model` gives.
    """

    def __init__(self, spec, batches):
        super().__init__(
            spec, [(np.ascontiguousarray(x.swapaxes(0, 1)), y) for x, y in batches]
        )

    def results(self):
        return {"y": np.array(self.predict(self.first[0])), **super().results()}
