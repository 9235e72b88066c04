# SPDX-License-Identifier: BSD-3-Clause
"""A layer's signature is that of its constructor.

Sphinx would show that of `Module.__new__`, which takes any arguments: it looks at them
for what Keras would mean.
"""

import inspect

from sphinx.util.inspect import signature, stringify_signature

from fastrnn import Module


def _of_constructor(app, what, name, obj, options, shown, returns):
    if not inspect.isclass(obj) or not issubclass(obj, Module):
        return None
    if obj.__init__ is object.__init__:
        return "()", None
    found = signature(obj.__init__, bound_method=True)
    return stringify_signature(found, show_annotation=False), None


def setup(app):
    app.connect("autodoc-process-signature", _of_constructor)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
