# SPDX-License-Identifier: BSD-3-Clause
"""Keras's words: an argument that has another name here is taken, or told apart.

`keras_words` has the table. A word whose meaning is the same as that of an argument
here is taken for it. Any other unknown argument is a `TypeError` that says what to
write instead. Constructors of all public classes ask the table (`Answering`), and so do
the methods that `answering` decorates.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import CodeType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from fastrnn.util.later import Later

if TYPE_CHECKING:
    import difflib

    from fastrnn.util import keras_words
else:
    difflib = Later("difflib")
    keras_words = Later("fastrnn.util.keras_words")

P = ParamSpec("P")
R = TypeVar("R")

_PACKAGE = __name__.partition(".")[0]


def _code(function: Callable[..., Any]) -> CodeType:
    """A function's own code. `inspect.signature` would cost every import much more."""
    code: CodeType = inspect.unwrap(function).__code__
    return code


def arguments_of(function: Callable[..., Any]) -> list[str]:
    """Names of what a function takes by name, without ``self``.

    Examples
    --------
    >>> arguments_of(fastrnn.Dropout.__init__)
    ['p', 'seed']
    """
    code = _code(function)
    named = range(code.co_posonlyargcount, code.co_argcount + code.co_kwonlyargcount)
    return [name for name in map(code.co_varnames.__getitem__, named) if name != "self"]


def word_of(owners: Sequence[str], name: str) -> keras_words.Word | None:
    """What the table says of a word; `owners` are functions or classes, nearest first.

    Examples
    --------
    >>> word_of(["Dropout", "Module"], "rate").here
    'p'
    """
    found = (keras_words.KEYWORDS.get(owner, {}).get(name) for owner in owners)
    return next((word for word in found if word is not None), None)


def words_taken(owners: Sequence[str]) -> list[str]:
    """Words of Keras's that stand for arguments here."""
    tables = [keras_words.KEYWORDS.get(owner, {}) for owner in owners]
    return [name for table in tables for name, word in table.items() if word.here]


def refuse(
    who: str,
    name: str,
    known: Sequence[str],
    answer: str = "",
    owners: Sequence[str] = (),
) -> TypeError:
    """The error for an argument that there is not; the caller raises it.

    Examples
    --------
    >>> str(refuse("LSTM", "hidden_sise", ["input_size", "hidden_size"]))
    "LSTM() has no argument 'hidden_sise'; did you mean hidden_size?"
    """
    known = [one for one in known if one[0] != "_"]
    if not answer:
        near = difflib.get_close_matches(name, [*known, *words_taken(owners)], n=2)
        answer = f"did you mean {' or '.join(near)}?" if near else ""
    if not answer:
        answer = f"it takes {', '.join(known)}" if known else "it takes none"
    return TypeError(f"{who}() has no argument {name!r}; {answer}")


def taken(
    who: str, owners: Sequence[str], known: Sequence[str], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments under the names that they have here.

    Parameters
    ----------
    who : str
        Whom errors name.
    owners : sequence of str
        Names under which the table has words of the function, nearest first.
    known : sequence of str
        Arguments that the function takes.
    given : mapping of str to object
        Arguments by name.

    Raises
    ------
    TypeError
        If an argument is neither known nor a word whose meaning is the same, or is
        given under both names.

    Examples
    --------
    >>> taken("Dropout", ["Dropout"], ["p", "seed"], {"rate": 0.5, "seed": 1})
    {'p': 0.5, 'seed': 1}
    """
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name in known:
            if name in found:
                raise TypeError(f"{who}() got {name!r} under two names")
            found[name] = value
            continue
        word = word_of(owners, name)
        if word is None:
            raise refuse(who, name, known, owners=owners)
        if word.changes_nothing(value) and word.unless not in given:
            continue
        if word.here is None:
            raise refuse(who, name, known, word.answer)
        if word.here in found or word.here in given:
            raise TypeError(f"{who}() got {word.here!r} also as {name!r}")
        found[word.here] = value if word.convert is None else word.convert(value)
    return found


def answering(function: Callable[P, R]) -> Callable[P, R]:
    """Let a method take Keras's words, and answer for what it does not have."""
    known = arguments_of(function)
    who = function.__name__

    @functools.wraps(function)
    def asked(*args: P.args, **kwargs: P.kwargs) -> R:
        if kwargs.keys() <= set(known):
            return function(*args, **kwargs)
        return function(*args, **taken(who, [who], known, kwargs))  # type: ignore

    return asked


def owners_of(cls: type) -> list[str]:
    """Names of a class and its bases, nearest first."""
    return [base.__name__ for base in cls.__mro__]


class Answering:
    """Base of classes whose constructors take Keras's words, and answer for others."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls) and cls.__module__.partition(".")[0] == _PACKAGE:
            cls.__init__ = answering_constructor(cls.__init__)  # type: ignore

    def _as_here(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the constructor is called with, of what it is given; a class may say."""
        return args, kwargs


def answering_constructor(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that takes Keras's words."""
    if _code(init).co_flags & inspect.CO_VARKEYWORDS:
        return init
    known = arguments_of(init)

    @functools.wraps(init)
    def made(self: Any, *args: Any, **kwargs: Any) -> None:
        args, kwargs = self._as_here(args, kwargs)
        if not kwargs.keys() <= set(known):
            cls = type(self)
            kwargs = taken(cls.__name__, owners_of(cls), [*known, SHAPE], kwargs)
            note_shape(self, kwargs)
        init(self, *args, **kwargs)

    # Whoever derives from a class may write a constructor without this mark.
    made._answers = True  # type: ignore[attr-defined]
    return made


SHAPE = "_input_shape"  # what the words for the shape of a model's input are kept as


def note_shape(made: object, arguments: dict[str, Any]) -> None:
    """Take the shape of a model's input out of arguments, and keep it in an object."""
    shape = arguments.pop(SHAPE, None)
    if shape is not None:
        vars(made)[SHAPE] = shape
