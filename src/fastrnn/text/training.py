# SPDX-License-Identifier: BSD-3-Clause
"""Training a character model: truncated back-propagation through time, resumable.

Everything that the numbers depend on is in `Trainer.save`'s file, so a run that was
killed and resumed ends with the same bits as one that was not.
"""

import hashlib
import math
import time
from dataclasses import asdict, dataclass

import numpy as np

from fastrnn.losses.functions import cross_entropy
from fastrnn.recurrent.states import as_state
from fastrnn.text import checkpoint
from fastrnn.text.model import CharModel
from fastrnn.text.settings import Settings
from fastrnn.text.streams import StreamBatches, check_length, split_held_out
from fastrnn.text.team import Solo
from fastrnn.text.vocabulary import CharVocabulary
from fastrnn.train.clip import clip_grad_norm_
from fastrnn.train.optim import Adam
from fastrnn.util import checks
from fastrnn.util.container import with_prefix, without_prefix
from fastrnn.util.printable import short
from fastrnn.util.writing import write_atomically

# Seconds between checkpoints: what a killed run loses at most.
CHECKPOINT_SECONDS = 5.0

# Evaluations in a run: one an epoch but at most so many, and some in a run of few
# epochs, though no more than two an epoch, since one costs about 4 % of it.
_MOST_EVALUATIONS, _SOME_EVALUATIONS = 20, 4

# What an evaluation writes, and how much of the training text's end it goes on from.
SAMPLE_LENGTH = 300
_SAMPLE_TEMPERATURE = 0.5
_PROMPT_LENGTH = 100


@dataclass(frozen=True)
class Evaluation:
    """Where a run stands: `epoch` may be fractional, figures are bits per character."""

    epoch: float
    train_bits: float
    held_out_bits: float
    sample: str


def evaluate(model, batches, team):
    """Bits per character of a model on a text, the state carried through each stream.

    Parameters
    ----------
    model : CharModel
    batches : StreamBatches
    team : Solo or Team

    Returns
    -------
    float
    """
    state = None
    total = 0.0
    for window in batches:
        inputs, targets = map(team.columns, window)
        if targets.size:  # there may be fewer streams than processes
            logits, state = model.predict(inputs, state)
            total += cross_entropy(logits, targets, reduction="sum")[0]
    return team.total(total) / batches.n_characters / math.log(2)


class Trainer:
    """A model, a text, and how far the one has been trained on the other.

    Parameters
    ----------
    model : CharModel
        Trained in place; its vocabulary must be that of the training part of `text`.
    text : str
        Its last tenth is held out.
    settings : Settings
        How to train.
    source : str, optional
        Where the text came from, for the checkpoint.
    rng : numpy.random.Generator, optional
        For samples. Default: one made from the settings' seed.

    Attributes
    ----------
    step : int
        Windows trained on.
    total_steps : int
        Windows in the whole run.
    n_held_out : int
        Characters held out.
    evaluations : list of [int, float, float]
        Step, bits per character in training and on the held-out text.

    Raises
    ------
    ValueError
        If the text is shorter than a batch of sequences.
    """

    def __init__(self, model, text, settings, *, source=None, rng=None):
        batch_size, seq_length = settings.batch_size, settings.seq_length
        check_length(type(self).__name__, text, batch_size, seq_length)
        train, held_out = split_held_out(text)
        vocabulary = model.vocabulary
        self.model = model.train()
        self.settings = settings
        self.text = {
            "source": source,
            "characters": len(text),
            "sha256": _digest(text),
        }
        self.batches = StreamBatches(vocabulary.encode(train), batch_size, seq_length)
        # A character that only the held-out text has costs what the model gives to
        # number 0, which it never saw.
        self.held_out = StreamBatches(
            vocabulary.encode(held_out, replace=True),
            min(batch_size, len(held_out) - 1),
            seq_length,
        )
        self.n_held_out = len(held_out)
        self._prompt = train[-_PROMPT_LENGTH:]
        self.optimizer = Adam(model, lr=settings.lr)
        self.rng = checks.generator(
            type(self).__name__, settings.seed if rng is None else rng
        )
        self.state = None
        self.team, self.late = Solo(), False
        self.step = 0
        self.total_steps = settings.epochs * len(self.batches)
        self.evaluations = []
        # Nats and characters since the last evaluation.
        self.loss_sum = 0.0
        self.loss_count = 0

    @classmethod
    def start(cls, text, settings, *, source=None, **shape):
        """A trainer with a new model.

        Parameters
        ----------
        text, settings, source
            As for `Trainer`.
        **shape
            ``cell``, ``embedding_dim``, ``hidden_size``, ``num_layers``, ``dtype`` of
            the model.
        """
        check_length(cls.__name__, text, settings.batch_size, settings.seq_length)
        rng = checks.generator(cls.__name__, settings.seed)
        vocabulary = CharVocabulary.of(split_held_out(text)[0])
        model = CharModel(vocabulary, seed=rng, **shape)
        return cls(model, text, settings, source=source, rng=rng)

    def join(self, team):
        """Train together with other processes, all of which call this.

        Parameters
        ----------
        team : Solo or Team
        """
        self.team = team
        team.settle(self.model)
        if isinstance(self.state, tuple):
            self.state = tuple(map(team.columns, self.state))
        elif self.state is not None:
            self.state = team.columns(self.state)

    # -- one window -------------------------------------------------------------------

    @property
    def epoch(self):
        """Passes over the training text so far: a float."""
        return self.step / len(self.batches)

    @property
    def characters_done(self):
        """Characters trained on so far."""
        epochs, window = divmod(self.step, len(self.batches))
        in_epoch = window * self.settings.seq_length * self.settings.batch_size
        return epochs * self.batches.n_characters + in_epoch

    @property
    def train_bits(self):
        """Bits per character in training since the last evaluation."""
        return self.loss_sum / max(1, self.loss_count) / math.log(2)

    def train_window(self, late=False):
        """Train on the next window.

        Parameters
        ----------
        late : bool
            Whether a checkpoint is due after it; ``trainer.late`` is what the first
            process says.

        Returns
        -------
        int
            Characters in the window.

        Raises
        ------
        FloatingPointError
            If the loss or the gradient is not finite; parameters are as before.
        """
        window = self.step % len(self.batches)
        if window == 0:
            self.state = None
        inputs, targets = map(self.team.columns, self.batches[window])
        logits, state = self.model(inputs, self.state)
        loss, dlogits = cross_entropy(logits, targets)
        self.model.zero_grad()
        self.model.backward(dlogits)
        size = targets.size
        loss, n, self.late = self.team.reduce(self.model, loss, size, late)
        norm = clip_grad_norm_(self.model, self.settings.clip_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise FloatingPointError(
                f"training diverged in window {self.step + 1} of {self.total_steps}: "
                f"loss {loss}, gradient norm {norm}; lower the learning rate "
                f"({self.settings.lr})"
            )
        self.optimizer.lr = self.settings.lr * (1 - self.step / self.total_steps)
        self.optimizer.step()
        self.state = state
        self.step += 1
        self.loss_sum += loss * n
        self.loss_count += n
        return n

    # -- evaluation -------------------------------------------------------------------

    @property
    def evaluation_due(self):
        """Whether the run should be evaluated after the window just trained on."""
        epochs = self.settings.epochs
        count = min(_MOST_EVALUATIONS, max(_SOME_EVALUATIONS, epochs), 2 * epochs)
        before = (self.step - 1) * count // self.total_steps
        return self.step * count // self.total_steps > before

    def evaluate(self):
        """Measure on the held-out text, write a sample, and note the figures.

        The sample goes on from where the training text ends.

        Returns
        -------
        Evaluation
        """
        held_out = evaluate(self.model, self.held_out, self.team)
        sample = ""
        if self.team.main:  # the checkpoint keeps its generator
            characters = self.model.generate(
                self._prompt,
                SAMPLE_LENGTH,
                temperature=_SAMPLE_TEMPERATURE,
                seed=self.rng,
            )
            sample = "".join(characters)
        found = Evaluation(self.epoch, self.train_bits, held_out, sample)
        self.evaluations.append([self.step, found.train_bits, held_out])
        self.loss_sum, self.loss_count = 0.0, 0
        return found

    # -- checkpoints ------------------------------------------------------------------

    def save(self, path, write=write_atomically):
        """Write a checkpoint, whole or not at all, on the first process.

        Parameters
        ----------
        path : path-like
        write : callable
            Writes the bytes: ``write(path, data)``.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        state = {}
        if self.state is not None:
            named = _named_state(self.state).items()
            state = {name: self.team.joined(array) for name, array in named}
        if not self.team.main:
            return
        arrays = with_prefix("model", self.model.state_dict())
        arrays |= with_prefix("optimizer", self.optimizer.state_dict())
        arrays |= with_prefix("state", state)
        meta = {
            "model": self.model.config,
            "vocabulary": self.model.vocabulary.characters,
            "settings": asdict(self.settings),
            "text": self.text,
            "progress": {
                "step": self.step,
                "loss_sum": self.loss_sum,
                "loss_count": self.loss_count,
                "evaluations": self.evaluations,
            },
            "rng": self.rng.bit_generator.state,
        }
        checkpoint.write(path, arrays, meta, write)

    @classmethod
    def resume(cls, path, contents, text, *, epochs=None):
        """The trainer that wrote a checkpoint, as it was then.

        Parameters
        ----------
        path : path-like
            Named in errors.
        contents : (dict, dict)
            What `checkpoint.read` returned.
        text : str
            The text of the run.
        epochs : int, optional
            Train for so many epochs in all; the learning rate then falls towards the
            new end. Default: as before.

        Raises
        ------
        ValueError
            If the text is not that of the run, or the checkpoint is damaged.
        """
        arrays, meta = contents
        if _digest(text) != meta["text"]["sha256"]:
            raise ValueError(
                f"{path}: must be resumed on the text it was trained on "
                f"({meta['text']['characters']} characters), got another "
                f"({len(text)} characters)"
            )
        model = checkpoint.model_of(path, arrays, meta)
        settings = dict(meta["settings"])
        if epochs is not None:
            settings["epochs"] = epochs
        progress = meta["progress"]
        try:
            self = cls(model, text, Settings(**settings), source=meta["text"]["source"])
            self.optimizer.load_state_dict(without_prefix("optimizer", arrays))
            self.rng.bit_generator.state = meta["rng"]
            self.state = self._state_of(without_prefix("state", arrays))
        except (
            AttributeError,
            OverflowError,
            TypeError,
            ValueError,
            KeyError,
        ) as error:
            raise ValueError(short(f"{path}: damaged: {error}")) from error
        self.step = progress["step"]
        self.loss_sum = progress["loss_sum"]
        self.loss_count = progress["loss_count"]
        self.evaluations = progress["evaluations"]
        if not 0 <= self.step <= self.total_steps:
            raise ValueError(
                f"{path}: epochs must be at least the {self.epoch:.1f} that it has "
                f"been trained for, got {self.settings.epochs}"
            )
        return self

    def _state_of(self, arrays):
        """The recurrent state of a checkpoint, refused unless it fits the model."""
        if not arrays:
            return None
        recurrent = self.model.recurrent
        names = recurrent._cells[0].states
        shape = recurrent.num_layers, self.settings.batch_size, recurrent.hidden_size
        if set(arrays) != set(names) or any(a.shape != shape for a in arrays.values()):
            found = {name: array.shape for name, array in arrays.items()}
            raise ValueError(
                f"state must be {' and '.join(names)} of shape {shape}, got {found}"
            )
        for name, array in arrays.items():
            if array.dtype.name != self.model.dtype:
                raise ValueError(
                    f"state {name} must be {self.model.dtype}, got {array.dtype}"
                )
        return as_state([arrays[name] for name in names])


def train(trainer, path, reporter, write=write_atomically):
    """Train to the end, writing checkpoints on the way.

    Parameters
    ----------
    trainer : Trainer
        Where it stands is where training goes on.
    path : path-like
        The checkpoint, written at the start of a run, after every evaluation and
        every few seconds.
    reporter : object
        Has ``window(trainer, n_characters)`` and ``evaluation(trainer, evaluation)``,
        called as training goes on.
    write : callable
        Writes a checkpoint's bytes: ``write(path, data)``.

    Raises
    ------
    FloatingPointError
        If training diverges; the checkpoint is the last one before.
    OSError
        If the checkpoint cannot be written: at the start where that can be known.
    KeyboardInterrupt
        If the user interrupts; the checkpoint is then a few seconds old.
    """
    if trainer.step == 0:
        trainer.save(path, write)
    saved = time.monotonic()
    while trainer.step < trainer.total_steps:
        late = time.monotonic() - saved >= CHECKPOINT_SECONDS
        reporter.window(trainer, trainer.train_window(late))
        due = trainer.evaluation_due
        if due:
            reporter.evaluation(trainer, trainer.evaluate())
        if due or trainer.late:
            trainer.save(path, write)
            saved = time.monotonic()


def _digest(text):
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _named_state(state):
    arrays = state if isinstance(state, tuple) else (state,)
    return {name: np.asarray(a) for name, a in zip("hcnm", arrays, strict=False)}
