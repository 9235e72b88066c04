# SPDX-License-Identifier: BSD-3-Clause
"""`SizedAtFirstCall`: layers whose arguments, Keras's, leave the input size out."""

from typing import TYPE_CHECKING

from fastrnn.nn.module import Module


class SizedAtFirstCall(Module):
    """Base of layers whose input size is a keyword that may be left out.

    Without it the constructor gives a `deferred.Unbuilt`, which becomes the layer when
    it is first called.

    Attributes
    ----------
    _size_keyword : str
        The argument's name.
    """

    _saved = False
    _size_keyword = None

    if not TYPE_CHECKING:  # a checker shall go by __init__

        def __new__(cls, *args, **kwargs):
            if kwargs.get(cls._size_keyword) is None:
                return Module._deferred(cls, args, kwargs)
            return super().__new__(cls)

    def __getnewargs_ex__(self):
        # A copy is made of a layer that knows its size.
        return (), {self._size_keyword: getattr(self, self._size_keyword)}
