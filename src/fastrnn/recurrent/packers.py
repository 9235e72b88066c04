# SPDX-License-Identifier: BSD-3-Clause
"""`Packers`: the packed weights of calls that no layer object belongs to."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Hashable

from fastrnn.native import memory
from fastrnn.native.layout import Layout
from fastrnn.native.weights import Packer


class Packers:
    """A `Packer` for each pair of a layout and a site, as long as that is useful.

    Packed weights are about as large as the weights, once for forward and once for
    backward. What was not used for the longest time goes when all together are larger
    than `most_bytes`, but the last `least` always stay. A site that can be weakly
    referred to takes its packed weights along when it goes.

    Parameters
    ----------
    most_bytes : int
    least : int

    Examples
    --------
    >>> packers = Packers(most_bytes=1 << 20, least=2)
    >>> lstm = Layout("lstm", 3, 5, 1, 1, True)
    >>> here = packers.get(lstm, "here", n_bytes=640)
    >>> packers.get(lstm, "here", n_bytes=640) is here
    True
    """

    def __init__(self, most_bytes: int, least: int) -> None:
        self._most_bytes, self._least = most_bytes, least
        self._held: OrderedDict[Hashable, tuple[Packer, int]] = OrderedDict()
        self._bytes = 0
        # A garbage collection may drop a site while this thread is in `get`.
        self._lock = threading.RLock()

    def get(self, layout: Layout, site: Hashable, n_bytes: int) -> Packer:
        """The packer of a layout's weights at a site.

        Parameters
        ----------
        layout : Layout
            Its packers are told apart by the object's identity.
        site : hashable
        n_bytes : int
            About the size of what the packer will hold.
        """
        key = layout, self._key_of(site)
        with self._lock:
            found = self._held.get(key)
            if found is not None:
                self._held.move_to_end(key)
                return found[0]
            packer = Packer(layout, memory.Pool(2))
            self._held[key] = packer, n_bytes
            self._bytes += n_bytes
            while self._bytes > self._most_bytes and len(self._held) > self._least:
                self._drop(next(iter(self._held)))
            return packer

    def _key_of(self, site):
        try:
            return weakref.ref(site, self._forget)
        except TypeError:  # a number, a string or a tuple
            return site

    def _forget(self, gone):
        """Drop what a site had that has gone."""
        with self._lock:
            for key in [key for key in self._held if key[1] is gone]:
                self._drop(key)

    def _drop(self, key):
        self._bytes -= self._held.pop(key)[1]
