# SPDX-License-Identifier: BSD-3-Clause
"""Training a character model, step by step against PyTorch."""

import math

import numpy as np
import pytest

from fastrnn.text import StreamBatches, default_text
from fastrnn.text.model import CharModel
from fastrnn.text.settings import Settings
from fastrnn.text.team import Solo
from fastrnn.text.training import Trainer, evaluate
from fastrnn.text.vocabulary import CharVocabulary

TEXT = default_text()[:3000]
SETTINGS = Settings(batch_size=6, seq_length=11, epochs=2, lr=0.01, clip_norm=0.3)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_losses_are_those_of_the_same_loop_in_pytorch(cell):
    """Carried states, clipping, the schedule and Adam, over the border of an epoch."""
    torch = pytest.importorskip("torch")
    shape = {"embedding_dim": 7, "hidden_size": 9, "num_layers": 2}
    trainer = Trainer.start(TEXT, SETTINGS, cell=cell, dtype="float64", **shape)
    n_classes, n_windows = len(trainer.model.vocabulary), len(trainer.batches)

    net = torch.nn.ModuleDict(
        {
            "embedding": torch.nn.Embedding(n_classes, 7),
            "recurrent": getattr(torch.nn, cell.upper())(7, 9, 2),
            "head": torch.nn.Linear(9, n_classes),
        }
    ).double()
    state_dict = trainer.model.state_dict()
    net.load_state_dict({k: torch.from_numpy(v) for k, v in state_dict.items()})
    adam = torch.optim.Adam(net.parameters(), lr=SETTINGS.lr)
    state = None
    for step in range(n_windows + 5):
        if step == n_windows:
            state = None
        inputs, targets = (
            torch.from_numpy(tokens.astype(np.int64))
            for tokens in trainer.batches[step % n_windows]
        )
        y, state = net["recurrent"](net["embedding"](inputs), state)
        logits = net["head"](y).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, targets.flatten())
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), SETTINGS.clip_norm)
        adam.param_groups[0]["lr"] = SETTINGS.lr * (1 - step / (2 * n_windows))
        adam.step()
        state = tuple(s.detach() for s in state) if cell == "lstm" else state.detach()

        trainer.loss_sum = trainer.loss_count = 0
        trainer.train_window()
        # Adam divides by roots of squares, so that rounding grows with the steps.
        ours = trainer.train_bits * math.log(2)
        assert ours == pytest.approx(loss.item(), rel=1e-8)
    for name, parameter in net.named_parameters():
        assert trainer.model.parameters[name] == pytest.approx(
            parameter.detach().numpy(), rel=1e-6, abs=1e-7
        )


def test_evaluation_carries_the_state_and_counts_every_character():
    vocabulary = CharVocabulary.of(TEXT)
    model = CharModel(vocabulary, embedding_dim=4, hidden_size=6, seed=0)
    batches = [StreamBatches(vocabulary.encode(TEXT), 3, T) for T in (1000, 7)]
    whole, in_windows = (evaluate(model, b, Solo()) for b in batches)
    # The same sums in another order, of about a thousand terms in float64.
    assert in_windows == pytest.approx(whole, rel=1e-12)
    model.flat_parameters[:] = 0
    assert evaluate(model, batches[1], Solo()) == pytest.approx(
        math.log2(len(vocabulary)), rel=1e-6
    )


def test_characters_that_only_the_held_out_text_has_are_counted():
    trainer = Trainer.start("ab" * 500 + "☃" * 100, Settings(4, 8), hidden_size=4)
    assert trainer.model.vocabulary.characters == "ab"
    trainer.model.flat_parameters[:] = 0
    assert trainer.evaluate().held_out_bits == pytest.approx(math.log2(3), rel=1e-6)


@pytest.mark.parametrize(
    ("epochs", "points"), [(1, 2), (2, 4), (3, 4), (12, 12), (20, 20), (50, 20)]
)
def test_evaluations_are_spread_over_the_run(epochs, points):
    settings = Settings(batch_size=6, seq_length=11, epochs=epochs)
    trainer = Trainer.start(TEXT, settings, hidden_size=4)
    due = []
    for step in range(1, trainer.total_steps + 1):
        trainer.step = step
        if trainer.evaluation_due:
            due.append(step)
    assert due[-1] == trainer.total_steps
    assert len(due) == points
    gaps = np.diff([0, *due])
    assert gaps.max() <= gaps.min() + 1


@pytest.mark.parametrize("seq_length", [7, 11, 68])
def test_characters_done_count_to_the_end(seq_length):
    settings = Settings(batch_size=6, seq_length=seq_length, epochs=2)
    trainer = Trainer.start(TEXT, settings, hidden_size=4)
    done = 0
    while trainer.step < trainer.total_steps:
        assert trainer.characters_done == done
        done += trainer.train_window()
    assert trainer.characters_done == done == 2 * trainer.batches.n_characters


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be a positive integer, got 0"),
        ({"batch_size": -1}, "batch_size must be a positive integer, got -1"),
        ({"lr": 0.0}, "lr must be a number in (0, inf), got 0.0"),
        ({"clip_norm": math.inf}, "clip_norm must be a number in (0, inf), got inf"),
        (
            {"seed": -1},
            "seed must be None, a non-negative integer or a numpy.random.Generator, "
            "got -1",
        ),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=r"^Settings: ") as caught:
        Settings(**change)
    assert str(caught.value) == f"Settings: {message}"
