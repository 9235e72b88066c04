# SPDX-License-Identifier: BSD-3-Clause
"""Functions that are told of every call of a module while they are interested.

What a model is made of does not say what its own ``forward`` does with the parts.
Whoever has to know, such as `Model.summary`, runs the model once and looks on.
"""

import contextlib
import threading

# (number of the thread, function) of everybody who looks on. `Module.__call__` passes
# over `tell` while this list is empty, which it nearly always is.
observers = []


@contextlib.contextmanager
def calls_told_to(observe):
    """Tell a function of all calls of modules on this thread within the body.

    Parameters
    ----------
    observe : callable
        ``observe(module, y)`` is called after each call of a module, with what its
        ``forward`` returned; parts come before what they are part of. A model that
        calls the ``forward`` of a part, instead of the part, hides that call.
    """
    entry = threading.get_ident(), observe
    observers.append(entry)
    try:
        yield
    finally:
        observers.remove(entry)


def tell(module, y):
    """Tell the observers on this thread that a call of `module` has returned `y`."""
    thread = threading.get_ident()
    for owner, observe in tuple(observers):
        if owner == thread:
            observe(module, y)
