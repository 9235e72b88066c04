# SPDX-License-Identifier: BSD-3-Clause
"""What is known of a stack's weights from the calls before: packed, and fit to run."""

import weakref

from fastrnn import _tensors

_homes = {}  # id of a stack's first weight: its Home


class Home:
    """What belongs to the weights of a stack as long as its first weight lives.

    Attributes
    ----------
    packer : _tensors.Weights
    seen : dict
        Of `_path.Seen`: calls that were found to fit the kernels, by how many tensors
        they were given.
    """

    __slots__ = ("owner", "packer", "seen", "spec")

    def packed(self, kernels, n_threads, weights, forward=True, backward=False):
        """The `_tensors.Packs` of weights, for these directions.

        Packed again only when they have changed.
        """
        # Inference tensors have no version: their fingerprint alone tells.
        versions = [-1 if w.is_inference() else w._version for w in weights]
        return self.packer.take(
            kernels, n_threads, weights, versions, forward, backward
        )


def find(first, spec):
    """The `Home` of the weights of a stack that begin with `first`, or None."""
    home = _homes.get(id(first))
    if home is None or home.spec is not spec or home.owner() is not first:
        return None
    return home


def home(first, spec):
    """The `Home` of the weights of a stack that begin with `first`, made if need be."""
    found = find(first, spec)
    if found is None:
        found = Home()
        found.owner, found.spec = weakref.ref(first, _forget), spec
        found.packer, found.seen = _tensors.Weights(spec.layout), {}
        _homes[id(first)] = found
    return found


def _forget(owner):
    """A weight is gone: so is what was known of it."""
    for key, held in tuple(_homes.items()):
        if held.owner is owner:
            _homes.pop(key, None)
