# SPDX-License-Identifier: BSD-3-Clause
"""Attributes that can be set, and what setting them does: never nothing.

A name that a class of this package does not know is a slip of the pen, or another
library's, and setting it is an error.  What an object was made with stays as it is,
unless the class lists it in ``_changeable``: what is read at every call may change.

Classes that derive from these outside of this package have what attributes they like.
Names that begin with an underscore are nobody's business but the class's.
"""

import inspect
import sys
from typing import TYPE_CHECKING, ClassVar, NoReturn

from fastrnn.util import checks
from fastrnn.util.later import Later
from fastrnn.util.words import Answering

if TYPE_CHECKING:
    import difflib
else:
    difflib = Later("difflib")

_PACKAGE = __name__.partition(".")[0]
# What Keras and PyTorch call what has another name here.
_ELSEWHERE = {
    "requires_grad": "trainable",
    "weight": "parameters['weight']",
    "bias": "parameters['bias']",
    "grad": "grads",
    "return_state": "return_sequences",
    "units": "hidden_size",
    "rate": "p",
}


def by(check, *arguments):
    """A rule of ``_changeable`` from one of the functions of `fastrnn.util.checks`."""

    def rule(owner, name, value):
        return check(type(owner).__name__, name, value, *arguments)

    return rule


flag = by(checks.flag)


def instance_of(*kinds):
    """A rule of ``_changeable``: None, or an object of one of these classes."""

    def rule(owner, name, value):
        if value is not None and not isinstance(value, kinds):
            listed = " or ".join(kind.__name__ for kind in kinds)
            raise TypeError(
                f"{type(owner).__name__}: {name} must be None or of class {listed}, "
                f"got {value!r}"
            )
        return value

    return rule


class Elsewhere:
    """An attribute that there is not, and what has its meaning: for a class.

    Parameters
    ----------
    name : str
        Of the attribute, in another library.
    here : str
        What to write instead.
    """

    def __init__(self, name: str, here: str) -> None:
        self.name, self.here = name, here

    def __get__(self, thing: object, cls: type | None = None) -> NoReturn:
        who = cls.__name__ if thing is None and cls else type(thing).__name__
        raise AttributeError(
            f"{who!r} object has no attribute {self.name!r}; here that is {self.here}"
        )


class Attributes(Answering):
    """Base of objects whose attributes are known.

    Attributes
    ----------
    _changeable : dict of str to callable
        Attributes that may be set at any time: the rule ``(owner, name, value)`` gives
        the value to keep, or raises.
    _others : tuple of str
        Attributes that are neither these nor arguments of the constructor.
    _not_kept : tuple of str
        Arguments of the constructor that are no attributes.
    _first_values : tuple of str
        Such arguments that say what parameters are at first, and nothing later on:
        a saved model has the parameters instead.
    """

    _changeable: ClassVar = {}
    _others: ClassVar = ()
    _not_kept: ClassVar = ()
    _first_values: ClassVar = ()

    if not TYPE_CHECKING:  # or a checker would let any attribute be set

        def __setattr__(self, name, value):
            if not name.startswith("_"):
                value = self._to_set(name, value)
            super().__setattr__(name, value)

    def _knows(self, name, value):
        """Whether this object may have an attribute that its class does not list."""
        return not _is_ours(type(self))

    def _to_set(self, name, value):
        """What an attribute is to be set to.

        Raises
        ------
        AttributeError
            If the attribute is not known, or may not be changed.
        """
        rules, fixed, free = _names(type(self))
        if name in rules:
            return rules[name](self, name, value)
        if name in fixed:
            here = vars(self)
            if name in here and not _same(here[name], value):
                raise AttributeError(
                    f"{type(self).__name__}: {name} is what the object was made with, "
                    f"{here[name]!r}, and cannot be set to {value!r}; make a new one"
                )
        elif name not in free and not self._knows(name, value):
            raise AttributeError(
                f"{type(self).__name__} has no attribute {name!r} that could be set"
                f"{_hint(name, [*rules, *free, *fixed])}"
            )
        return value


def _same(one, other):
    if isinstance(one, (int, float, str, tuple)):
        return type(one) is type(other) and one == other
    return one is other


def _hint(name, known):
    here = _ELSEWHERE.get(name)
    if here in known or (here or "").partition("[")[0] in known:
        return f"; did you mean {here}?"
    near = difflib.get_close_matches(name, known, n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _is_ours(cls):
    """Whether a class is one of a module of this package."""
    if cls.__module__.partition(".")[0] != _PACKAGE:
        return False
    # One that an example in a docstring defines is not to be found there.
    return getattr(sys.modules.get(cls.__module__), cls.__name__, None) is cls


def _arguments(cls):
    """Names of what a class's constructor takes one by one."""
    if "__init__" not in vars(cls):
        return set()
    kinds = inspect.Parameter
    return {
        name
        for name, parameter in inspect.signature(cls.__init__).parameters.items()
        if parameter.kind not in (kinds.VAR_KEYWORD, kinds.VAR_POSITIONAL)
    }


def _names(cls):
    """Rules of what may be changed, what is fixed, and what else can be set."""
    kept = vars(cls).get("_known_names")
    if kept is not None and kept[0] is cls.__init__:
        return kept[1]
    rules, fixed, free = {}, set(), set()
    for base in reversed(cls.__mro__):
        if _is_ours(base):
            rules.update(vars(base).get("_changeable", {}))
            free |= {
                name
                for name, value in vars(base).items()
                if not (name.startswith("_") or isinstance(value, Elsewhere))
            }
            free |= set(vars(base).get("_others", ()))
            fixed |= _arguments(base)
    fixed -= {"self", "seed", *cls._not_kept, *cls._first_values, *free, *rules}
    cls._known_names = cls.__init__, (rules, fixed, free)
    return rules, fixed, free
