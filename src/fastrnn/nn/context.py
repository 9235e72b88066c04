# SPDX-License-Identifier: BSD-3-Clause
"""`Context`: what a forward keeps for its backward."""

from fastrnn.nn.attempt import running
from fastrnn.nn.axis_rule import rule


class Context:
    """What one forward in training mode leaves for its backward.

    Attributes
    ----------
    owner : Module
        The layer that made it.
    saved : object
        What the layer put aside; None once backward has used it.
    samples_first : bool
        Whether a model ran the forward, so that sequences were (N, T, ...).
    """

    __slots__ = ("owner", "samples_first", "saved", "spent")

    def __init__(self, owner, saved):
        self.owner = owner
        self.saved = saved
        self.spent = False
        self.samples_first = rule.samples_first

    def release(self):
        """Mark as used and let go of the memory."""
        attempt = running.attempt
        if attempt is not None:  # if it fails, it restores this context
            attempt.note(self)
        self.saved = None
        self.spent = True

    def restore(self, saved):
        """Hold what `release` let go of: the backward that used it has failed."""
        self.saved = saved
        self.spent = False
