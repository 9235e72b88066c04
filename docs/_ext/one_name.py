# SPDX-License-Identifier: BSD-3-Clause
"""Links by any name of a thing go to the one page that it has.

`fastrnn.keras.layers.Dense` is `fastrnn.Linear`, and `fastrnn.LSTM.save` the method of
`fastrnn.Module`. A link that Sphinx finds no target for is looked up here: the object
that its name stands for is imported, and where that object is documented under another
name, the link goes there. A class says that it is based on public classes only.
"""

import functools
import importlib
import inspect
from types import ModuleType
from typing import Generic

import fastrnn


@functools.cache
def public_names():
    """All public names: those in ``__all__`` of `fastrnn` and the modules named there.

    Modules that are imported at first use are among them.
    """
    names, modules = [], ["fastrnn", *(f"fastrnn.{name}" for name in fastrnn._LATER)]
    for module in modules:  # which grows
        for name in importlib.import_module(module).__all__:
            names.append(f"{module}.{name}")
            if isinstance(_object(names[-1]), ModuleType):
                modules.append(names[-1])
    return names


def _object(name):
    """What a dotted name stands for, or None."""
    parts = name.split(".")
    for k in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:k]))
        except ImportError:
            continue
        for part in parts[k:]:
            thing = inspect.getattr_static(thing, part, None)
        # Numbers and the like are equal by chance.
        has_page = callable(thing) or isinstance(thing, property | ModuleType)
        return thing if has_page else None
    return None


def _collect(documented, app, env):
    """Of each object that has a page, by its identity, the name it is there under."""
    for name in env.get_domain("py").objects:
        thing = _object(name)
        if thing is not None:
            documented.setdefault(id(thing), name)


def _resolve(documented, app, env, node, content):
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].removesuffix("()")
    module, of = node.get("py:module"), node.get("py:class")
    for place in (f"{module}.{of}" if module and of else None, module, "fastrnn", None):
        thing = _object(f"{place}.{target}" if place else target)
        if thing is not None and id(thing) in documented:
            return env.get_domain("py").resolve_xref(
                env, node["refdoc"], app.builder, "obj", documented[id(thing)], node,
                content,
            )  # fmt: skip
    return None


def _name_public_bases(app, name, obj, options, bases):
    """The event autodoc-process-bases: in place of a private base, its own bases."""
    public = {id(_object(name)) for name in public_names()}

    def of(base):
        base = getattr(base, "__origin__", base)  # Recurrent[Array] is Recurrent
        if id(base) in public or not base.__module__.startswith("fastrnn."):
            return [base] * (base is not Generic)
        return [found for above in base.__bases__ for found in of(above)]

    bases[:] = dict.fromkeys(found for base in bases for found in of(base))
    if len(bases) > 1:
        bases[:] = [base for base in bases if base is not object]


def setup(app):
    app.connect("autodoc-process-bases", _name_public_bases)
    documented = {}
    collect = functools.partial(_collect, documented)
    app.connect("env-check-consistency", collect)  # all pages have been read
    app.connect("missing-reference", functools.partial(_resolve, documented))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
