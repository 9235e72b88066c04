# SPDX-License-Identifier: BSD-3-Clause
"""What is known of a stack's weights from the calls before: packed, and fit to run."""

import functools
import weakref

from fastrnn.native import tensors

_homes = {}  # by id of an owner and place in it


class Home:
    """What is kept for the weights of a stack as long as their owner lives.

    The owner is a module; in compiled code, where there is no module, the storage of
    the first weight. It is never a tensor: PyTorch refuses to swap tensors that
    somebody has a weak reference to.

    Parameters
    ----------
    spec : Spec

    Attributes
    ----------
    packer : tensors.Weights
    seen : dict
        Of `_path.Seen`: calls that were found to fit the kernels, by how many tensors
        they were given.
    """

    __slots__ = ("owner", "packer", "seen", "spec")

    def __init__(self, spec):
        self.spec, self.owner = spec, None
        self.packer, self.seen = tensors.Weights(spec.layout), {}

    def packed(self, kernels, n_threads, weights, forward=True, backward=False):
        """The `tensors.Packs` of weights, for these directions.

        Packed again only when they have changed.
        """
        # Inference tensors have no version: their fingerprint alone tells.
        versions = [-1 if w.is_inference() else w._version for w in weights]
        return self.packer.take(
            kernels, n_threads, weights, versions, forward, backward
        )


def find(owner, spec, at=0):
    """The `Home` of a stack's weights, or None."""
    home = _homes.get((id(owner), at))
    if home is None or home.spec is not spec or home.owner() is not owner:
        return None
    return home


def home(owner, spec, at=0):
    """The `Home` of a stack's weights, made if need be.

    Parameters
    ----------
    owner : object
        Whose end is the home's; can be referred to weakly.
    spec : Spec
    at : int
        Where in the owner's memory the weights begin, if there may be several.
    """
    found = find(owner, spec, at)
    if found is None:
        key = id(owner), at
        found = Home(spec)
        found.owner = weakref.ref(owner, functools.partial(_forget, key))
        _homes[key] = found
    return found


def _forget(key, owner):
    """An owner is gone: so is what was known of its weights."""
    held = _homes.get(key)
    if held is not None and held.owner is owner:  # not a later one's of the same id
        del _homes[key]
