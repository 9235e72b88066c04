# SPDX-License-Identifier: BSD-3-Clause
"""`Tree`: an object made of others of its kind, each under a name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

from fastrnn.nn.attributes import Attributes


class Structure:
    """What trees are made of, as far as somebody may have found it out before.

    Attributes
    ----------
    now : object
        Another one whenever any tree's children or parameters have become others: what
        was found out while it was the same object still holds.
    """

    now = object()


def structure_changed():
    """Note that children or parameters of a tree have become others."""
    Structure.now = object()


class Tree(Attributes):
    """Base of modules: those assigned to attributes become children.

    Attributes
    ----------
    _children : dict of str to Tree
        In the order in which they were assigned.
    _child_names : tuple of str
        Attributes that hold a module, and nothing else.
    """

    _child_names = ()

    if not TYPE_CHECKING:  # a checker shall go by __init__

        def __new__(cls, *args: Any, **kwargs: Any) -> Self:
            # Not in __init__, so that a model need not call super().__init__().
            self = super().__new__(cls)
            self.__dict__["_children"] = {}
            return self

    def _knows(self, name, value):
        return name in type(self)._child_names or super()._knows(name, value)

    def _to_set(self, name, value):
        if name in type(self)._child_names and not isinstance(value, Tree):
            raise TypeError(
                f"{type(self).__name__}: {name} must be a Module, "
                f"got {type(value).__name__}"
            )
        return super()._to_set(name, value)

    if not TYPE_CHECKING:  # or a checker would let any attribute be set

        def __setattr__(self, name, value):
            who, is_child = type(self).__name__, isinstance(value, Tree)
            if is_child and "." in name:
                raise ValueError(
                    f"{who}: a child's name must not contain a dot, got {name!r}"
                )
            if is_child and any(module is self for module in value.modules()):
                raise ValueError(f"{who}: {name} must not contain the module itself")
            super().__setattr__(name, value)
            if is_child:
                self._children[name] = value
            elif self._children.pop(name, None) is None:
                return
            structure_changed()

    def __delattr__(self, name):
        super().__delattr__(name)
        if self._children.pop(name, None) is not None:
            structure_changed()

    def _walk(self):
        """(prefix of names, module) of this module and all below, each once."""
        if not self._children:
            return [("", self)]
        found, seen, waiting = [], set(), [("", self)]
        while waiting:
            prefix, module = waiting.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            found.append((prefix, module))
            for name in reversed(module._children):
                waiting.append((f"{prefix}{name}.", module._children[name]))
        return found

    def modules(self) -> Iterator[Self]:
        """Iterate over this module and all below it, each once.

        Yields
        ------
        Module
        """
        for _, module in self._walk():
            yield module

    # -- text -------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """The arguments that `repr` shows; a layer says which."""
        return ""

    def __repr__(self):
        head = f"{type(self).__name__}({self.extra_repr()}"
        if not self._children:
            return head + ")"
        lines = [
            f"\n  ({name}): " + repr(child).replace("\n", "\n  ")
            for name, child in self._children.items()
        ]
        return head + "".join(lines) + "\n)"
