# SPDX-License-Identifier: BSD-3-Clause
"""`Home`: what is kept between calls for the weights of a stack.

A home has the weights in the kernels' packed form, and the calls that are known to fit
the kernels. Homes are not attributes of a module, because copying and pickling the
module would then copy them, too.
"""

import functools
import weakref

from fastrnn.native import memory, weights

# By the id of an owner, and the place in the owner where the weights begin: see `home`.
_homes = {}


class Home:
    """What is kept for the weights of a stack as long as their owner lives.

    The owner is the module that has the weights. Compiled code has no module: there the
    owner is the storage of the first weight. The owner is referred to weakly, and is
    never a tensor, because `torch.utils.swap_tensors` refuses tensors that have weak
    references.

    Parameters
    ----------
    spec : Spec

    Attributes
    ----------
    owner : weakref.ref
    packer : weights.Packer
        Packs the weights, and keeps them packed.
    tapes, scratch : memory.Pool
        Memory for what backward needs of a forward, and for work space. All homes
        share these two pools.
    seen : dict of int to tuple of _path.Seen
        The calls that are known to fit the kernels, by the number of their tensors.
    """

    __slots__ = ("owner", "packer", "scratch", "seen", "spec", "tapes")

    def __init__(self, spec):
        self.spec, self.owner = spec, None
        layout, self.seen = spec.layout, {}
        self.packer = weights.Packer(layout, memory.Pool(2 * layout.n_cells))
        self.tapes = memory.shared_pool("tapes", 1024)
        self.scratch = memory.shared_pool("scratch", 8)

    def packed(self, kernels, n_threads, weights, forward=True, backward=False):
        """The `weights.Use` of the weights, packed for forward, backward or both.

        The weights of a cell are packed again only when they have changed.
        """
        # PyTorch counts no writes to inference tensors: only the fingerprint of such a
        # weight tells whether it has changed.
        versions = [-1 if w.is_inference() else w._version for w in weights]
        return self.packer.take_tensors(
            kernels, n_threads, weights, versions, forward, backward
        )


def find(owner, spec, at=0):
    """The `Home` of a stack's weights, or None if there is none yet; see `home`."""
    home = _homes.get((id(owner), at))
    if home is None or home.spec is not spec or home.owner() is not owner:
        return None
    return home


def home(owner, spec, at=0):
    """The `Home` of a stack's weights; made at the first request.

    Parameters
    ----------
    owner : object
        The module or the storage that has the weights. The home goes when it goes.
    spec : Spec
    at : int
        The element of a storage at which the weights begin, since one storage may have
        the weights of several stacks.
    """
    found = find(owner, spec, at)
    if found is None:
        key = id(owner), at
        found = Home(spec)
        found.owner = weakref.ref(owner, functools.partial(_forget, _homes, key))
        _homes[key] = found
    return found


def _forget(homes, key, owner):
    """Drop the home of an owner that has gone; `owner` is the weak reference to it.

    `homes` is given, since this module's names are gone when the interpreter ends.
    """
    held = homes.get(key)
    # Python may have given the id to a new owner by now, whose home must stay.
    if held is not None and held.owner is owner:
        del homes[key]
