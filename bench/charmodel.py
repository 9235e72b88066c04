# SPDX-License-Identifier: BSD-3-Clause
"""A character model end to end, against the same model in PyTorch.

Embedding, LSTM, linear layer and cross-entropy; back-propagation through the last T
characters with the state carried on; gradient norm clipping; Adam.  Everything in a
training step is timed except making the batch.  The text is random: its content does
not change the work.  Unit: characters per second, ``T B`` a step.

Run with ``python -m bench.charmodel [THREADS]``, or as part of ``python -m bench``.
"""

import itertools
import sys
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

import fastrnn
from bench import timing
from fastrnn.charmodel import CharModel
from fastrnn.text import CharVocabulary

SEED = 20260101
CHECK_STEPS = 5
LOSS_TOLERANCE = 1e-4
CLIP_NORM = 1.0
LR = 2e-3
N_BATCHES = 8


class Sizes(NamedTuple):
    """V characters, E-wide embedding, H hidden units, T steps, B rows."""

    V: int = 65
    E: int = 64
    H: int = 128
    T: int = 50
    B: int = 32

    @property
    def id(self):
        return f"charmodel/train/E{self.E}-H{self.H}-T{self.T}-B{self.B}"


def batches(sizes):
    """An endless iterator over a few (T + 1, B) arrays of character numbers."""
    rng = np.random.default_rng(SEED)
    shape = (sizes.T + 1, sizes.B)
    made = [rng.integers(0, sizes.V, shape) for _ in range(N_BATCHES)]
    return itertools.cycle(made)


class FastModel(CharModel):
    """`fastrnn train`'s model; ``run()`` makes a training step and gives its loss."""

    def __init__(self, sizes):
        characters = "".join(chr(ord("0") + k) for k in range(sizes.V - 1))
        vocabulary = CharVocabulary.of(characters)  # and one number for "unknown"
        super().__init__(vocabulary, "lstm", sizes.E, sizes.H, seed=SEED)
        self.optimizer = fastrnn.Adam(self, lr=LR)
        self.batches = batches(sizes)
        self.state = None

    def run(self):
        batch = next(self.batches)
        self.optimizer.zero_grad()
        logits, self.state = self(batch[:-1], self.state)
        loss, dlogits = fastrnn.cross_entropy(logits, batch[1:])
        self.backward(dlogits)
        fastrnn.clip_grad_norm_(self, CLIP_NORM)
        self.optimizer.step()
        return loss


class TorchModel(torch.nn.Module):
    """The same in PyTorch, with its fused Adam."""

    def __init__(self, sizes, weights):
        super().__init__()
        self.embedding = torch.nn.Embedding(sizes.V, sizes.E)
        self.recurrent = torch.nn.LSTM(sizes.E, sizes.H)
        self.head = torch.nn.Linear(sizes.H, sizes.V)
        self.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
        self.optimizer = torch.optim.Adam(self.parameters(), lr=LR, fused=True)
        self.batches = map(torch.from_numpy, batches(sizes))
        self.state = None

    def run(self):
        batch = next(self.batches)
        self.optimizer.zero_grad(set_to_none=True)
        if self.state is not None:
            self.state = tuple(part.detach() for part in self.state)
        y, self.state = self.recurrent(self.embedding(batch[:-1]), self.state)
        logits = self.head(y).flatten(0, 1)
        loss = functional.cross_entropy(logits, batch[1:].ravel())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters(), CLIP_NORM)
        self.optimizer.step()
        return loss.item()


def check(sides, what):
    """Train both sides a few steps and raise ArithmeticError unless losses agree."""
    for step in range(CHECK_STEPS):
        ours, theirs = (side.run() for side in sides.values())
        if not abs(ours - theirs) <= LOSS_TOLERANCE * abs(theirs):
            raise ArithmeticError(
                f"{what}: loss at step {step} is {ours}, PyTorch's {theirs}"
            )


def measure(rounds, sizes=None):
    """Check, then time; the threads are those set by the caller.

    Returns
    -------
    dict
        ``id``; characters per second of each side and their ratio as quartiles over the
        rounds. No times if `rounds` is 0.
    """
    sizes = sizes or Sizes()
    ours = FastModel(sizes)
    sides = {"fastrnn": ours, "torch": TorchModel(sizes, ours.state_dict())}
    check(sides, sizes.id)
    result = {"id": sizes.id, **sizes._asdict(), "unit": "characters per second"}
    if rounds:
        times = timing.interleave({k: side.run for k, side in sides.items()}, rounds)
        characters = sizes.T * sizes.B
        for name, seconds in times.items():
            result[name] = timing.quartiles([characters / s for s in seconds])
        pairs = zip(times["torch"], times["fastrnn"], strict=True)
        result["ratio"] = timing.quartiles([theirs / mine for theirs, mine in pairs])
    return result


def line(result):
    """One line of text for the result of `measure`."""
    if "ratio" not in result:
        return f"{result['id']}: losses agree"
    return (
        f"{result['id']}: {result['fastrnn']['median']:,.0f} characters/s, PyTorch "
        f"{result['torch']['median']:,.0f}, ratio {result['ratio']['median']:.2f} "
        f"[{result['ratio']['q1']:.2f}, {result['ratio']['q3']:.2f}]"
    )


if __name__ == "__main__":
    n_threads = int(sys.argv[1]) if len(sys.argv) > 1 else fastrnn.get_num_threads()
    fastrnn.set_num_threads(n_threads)
    torch.set_num_threads(n_threads)
    print(line(measure(rounds=11)))
