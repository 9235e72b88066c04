# SPDX-License-Identifier: BSD-3-Clause
"""Which axis of a sequence array comes first, inside a model and outside of one.

Called by itself a layer follows PyTorch's rule: (T, B, ...), or (B, T, ...) with
``batch_first``. A model takes samples first, (N, T, ...), however it is called, and so
do all layers while one of the model's methods runs. The rule in force belongs to the
thread: no layer is written to, so several threads may run one model at a time.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class _Rule(threading.local):
    """Of each thread: whether a method of a model is running on it."""

    samples_first = False


rule = _Rule()


class as_in_a_model:
    """Let layers take samples first within the body; with False, as they were made."""

    __slots__ = ("before", "inside")

    def __init__(self, inside=True):
        self.inside = inside

    def __enter__(self):
        self.before, rule.samples_first = rule.samples_first, self.inside

    def __exit__(self, *_):
        rule.samples_first = self.before


def of_a_model(method: Callable[P, R]) -> Callable[P, R]:
    """A model's method, whose layers take samples first while it runs."""

    @functools.wraps(method)
    def run(self, *args, **kwargs):
        # What `as_in_a_model` does, without the calls that a `with` makes.
        before, rule.samples_first = rule.samples_first, True
        try:
            return method(self, *args, **kwargs)
        finally:
            rule.samples_first = before

    return run


class BatchFirst:
    """Base of layers that take sequences: the attribute ``batch_first``.

    Attributes
    ----------
    batch_first : bool
        Whether sequences are (B, T, ...) at the moment: as the layer was made, or
        because a model is running it.
    """

    _batch_first = False

    @property
    def batch_first(self) -> bool:
        return self._batch_first or rule.samples_first

    @batch_first.setter
    def batch_first(self, value: bool) -> None:
        self._batch_first = value

    def _was_batch_first(self, context):
        """What `batch_first` was in the forward that left `context`."""
        return self._batch_first or context.samples_first
