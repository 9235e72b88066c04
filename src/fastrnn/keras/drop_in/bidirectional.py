# SPDX-License-Identifier: BSD-3-Clause
"""Keras's `Bidirectional` around a layer of fastrnn's.

A `Bidirectional` does not run the layer that it is given. It makes two new layers of
the layer's configuration, which names Keras's class, as it has to where a model is
saved. So the two would be Keras's own layers.
"""

import functools

import keras

from fastrnn.keras.drop_in.layers import THEIRS


def keep_classes():
    """Let each `Bidirectional` that is made from now on keep the class of its layer.

    Both of its layers get the class of the layer that it was given, if that is one of
    fastrnn's. Around any other layer a `Bidirectional` is what it was.
    """
    original = keras.layers.Bidirectional.__init__

    # Keras looks at the parameters of a layer's __init__, so they are its own here.
    @functools.wraps(original)
    def __init__(
        self, layer, merge_mode="concat", weights=None, backward_layer=None, **kwargs
    ):
        original(self, layer, merge_mode, weights, backward_layer, **kwargs)
        ours = type(layer)
        if ours not in THEIRS:
            return
        for made in (self.forward_layer, self.backward_layer):
            if type(made) is THEIRS[ours] and made is not backward_layer:
                made.__class__ = ours

    keras.layers.Bidirectional.__init__ = __init__
