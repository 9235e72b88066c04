# SPDX-License-Identifier: BSD-3-Clause
"""`Batches`: what `fit`, `evaluate` and `predict` are given batch by batch.

A generator, a `torch.utils.data.DataLoader`, a `tf.data.Dataset`, Keras's `PyDataset`
and whatever else can be iterated over.
"""

import inspect
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np

from fastrnn.data.samples import Samples
from fastrnn.util import checks

# Inputs (a tuple), targets and weights of a batch.
Batch = tuple[tuple[Any, ...], Any, Any]


def is_batches(x: object) -> bool:
    """Whether `x` gives batches, and is not an array, a table or a list of samples.

    Examples
    --------
    >>> is_batches(iter([])), is_batches([]), is_batches(np.zeros(3))
    (True, False, False)
    """
    if hasattr(x, "__array__") or isinstance(x, (str, bytes, dict)):
        return False
    if hasattr(x, "__iter__"):
        return isinstance(x, Iterator) or not _is_sequence(x)
    return hasattr(x, "__getitem__") and hasattr(x, "__len__")


def _is_sequence(x: object) -> bool:
    """Whether it is a collection of samples, as a list is, by all that it can do."""
    return isinstance(x, Collection) and hasattr(x, "__getitem__")


class Batches:
    """Samples that come in batches.

    Parameters
    ----------
    who : str
        Whom errors name.
    source : iterable, or object with ``__getitem__`` and ``__len__``
        Of batches ``(x, y)`` or ``(x, y, sample_weight)``, or ``x`` without targets.
    steps : int, optional
        Batches in an epoch. Default: all that there are.
    read : callable
        Makes `Samples` of a batch: ``read(x, y, weight)``.
    targets : bool
        Whether a batch must have targets.
    anew : bool
        Whether every epoch begins with the first batch, also with `steps`.

    Raises
    ------
    ValueError, TypeError
        If there is no batch, or the first is not as described.

    Examples
    --------
    >>> def read(x, y, weight):
    ...     return Samples("fit", x, y, weight)
    >>> batches = Batches("fit", iter([([[1.0]], [2.0]), ([[3.0]], [4.0])]), None, read)
    >>> [target.tolist() for _, target, _ in batches.epoch(None)]
    [[2.0], [4.0]]
    """

    several = ragged = False

    def __init__(
        self,
        who: str,
        source: Any,
        steps: int | None,
        read: Callable[[Any, Any, Any], Samples],
        *,
        targets: bool = True,
        anew: bool = False,
    ) -> None:
        self.who, self.source, self._read = who, source, read
        self._targets, self._anew, self._steps = targets, anew, steps
        self.once = isinstance(source, Iterator)
        self._now: Iterator[Any] | None = None
        self._done = 0
        self.weigh: Callable[[Samples], None] | None = None
        first = next(self._begin(), None)
        if first is None:
            raise ValueError(f"{who}: x must give batches, got none")
        self._waiting: list[Any] = [first]  # a generator cannot give it once more
        self.first = self._samples(first)
        self.y = self.first.y

    def _begin(self) -> Iterator[Any]:
        source = self.source
        if hasattr(source, "__iter__"):
            self._now = iter(source)
        else:  # as Keras's PyDataset, which need not be iterable
            self._now = (source[i] for i in range(len(source)))
        return self._now

    def _samples(self, batch: Any) -> Samples:
        """A batch as `Samples`, once it is known to be one."""
        parts = batch if isinstance(batch, (tuple, list)) else (batch,)
        of_arrays = all(np.ndim(one) and hasattr(one, "shape") for one in parts)
        if isinstance(batch, list) and not (self._targets or of_arrays):
            parts = (batch,)  # samples, as a list
        if not (2 if self._targets else 1) <= len(parts) <= 3:
            raise TypeError(
                f"{self.who}: x must give batches (x, y) or (x, y, sample_weight), got "
                f"{type(batch).__name__}"
                + (f" of {len(batch)}" if batch is parts else "")
            )
        x, y, weight = (*parts, (), None)[:3] if len(parts) == 1 else (*parts, None)[:3]
        samples = self._read(x, y if self._targets else (), weight)
        if self.weigh is not None:
            self.weigh(samples)
        return samples

    def scale_classes(self, weights: Callable[[Any], Any]) -> None:
        """Multiply every batch's weights by those that `weights` gives for targets."""
        self.weigh = lambda samples: samples.scale_classes(weights)

    def check_epochs(self, epochs: int) -> None:
        """Refuse more than one epoch of what can be gone through once."""
        if self.once and self._steps is None and epochs > 1:
            raise ValueError(
                f"{self.who}: epochs must be 1 where x is an iterator, which can be "
                f"gone through once, got {epochs}; give steps_per_epoch, or what can "
                "be iterated over anew"
            )

    def count_batches(self, batch_size: int) -> int | None:
        """How many an epoch has; None where it is not known."""
        if self._steps is not None:
            return self._steps
        try:
            return len(self.source)
        except TypeError:  # a generator, or a data set that does not know
            return None

    def sample(self) -> tuple[Any, ...]:
        """The inputs of one sample."""
        return self.first.sample()

    def trial(self, batch_size: int) -> Batch:
        """The inputs of one sample, and targets and weights of a batch with it."""
        return self.first.trial(self.first.n)

    def sizes(self, batch_size: int) -> list[int]:
        """How many samples batches have, as far as is known: the first one."""
        return [self.first.n]

    def epoch(self, batch_size: int | None, rng: object = None) -> Iterator[Batch]:
        """Batch by batch; the order is the source's own.

        Raises
        ------
        ValueError
            If there are fewer than were asked for, or a batch is not as described.
        """
        if self._steps is None or (self._anew and not self.once):
            self._rewind()
        given = 0
        while self._steps is None or given < self._steps:
            batch = self._next()
            if batch is None:
                break
            samples = self._samples(batch[0])
            given, self._done = given + 1, self._done + 1
            yield from samples.epoch(samples.n)
        if given < (1 if self._steps is None else self._steps):
            raise ValueError(
                f"{self.who}: x must give "
                f"{'batches' if self._steps is None else f'{self._steps} batches'} in "
                f"every epoch, got {given} after {self._done - given} before; an "
                "iterator can be gone through once"
            )
        if hasattr(self.source, "on_epoch_end"):
            self.source.on_epoch_end()

    def _rewind(self) -> None:
        """Begin with the first batch; an iterator stays where it is."""
        if not self.once and not self._waiting:
            self._now = None

    def _next(self) -> tuple[Any] | None:
        """The next batch, within a tuple, or None where there is none left."""
        if self._waiting:
            return (self._waiting.pop(),)
        if self._now is None:
            self._begin()
        assert self._now is not None
        nothing = object()
        found = next(self._now, nothing)
        if found is nothing and self._steps is not None and not self.once:
            found = next(self._begin(), nothing)  # an epoch may be longer than it
        return None if found is nothing else (found,)


def steps_of(who: str, name: str, steps: int | None, x: object) -> int | None:
    """A number of batches, which only what gives batches can be asked for."""
    if callable(x) and inspect.isroutine(x):
        raise TypeError(
            f"{who}: x must be arrays or give batches, got the function "
            f"{x.__name__}; call it: {x.__name__}()"
        )
    if steps is None:
        return None
    if not is_batches(x):
        raise ValueError(
            f"{who}: {name} must be None where x is arrays, which are cut into batches "
            f"of batch_size, got {steps!r}"
        )
    return checks.positive_int(who, name, steps)


def all_outputs(outputs: list[Any]) -> Any:
    """What `predict` gives of the outputs of batches: an array, or a list of rows."""
    if not all(isinstance(one, np.ndarray) for one in outputs):
        return [row for one in outputs for row in one]
    if len({one.shape[1:] for one in outputs}) > 1:
        return [row for one in outputs for row in one]
    return np.concatenate(outputs)
