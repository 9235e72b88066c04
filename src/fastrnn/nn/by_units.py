# SPDX-License-Identifier: BSD-3-Clause
"""Layers made Keras's way, by their number of units alone: ``LSTM(50)``, ``Linear(1)``.

Such a call has Keras's defaults, too: a recurrent layer gives its last output alone and
takes samples first. What an argument means in Keras and not here is refused.
"""

from typing import Any

from fastrnn.util.words import SHAPE, arguments_of, owners_of, taken, word_of

# Parameters of these functions in Keras 3; those here are by default ONNX's.
_FUNCTIONS = {
    "hard_sigmoid": ("hard_sigmoid", 1 / 6),
    "leaky_relu": ("leaky_relu", 0.2),
}


def arguments(
    cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any] | None:
    """The arguments, by the names here, of a layer that is made Keras's way.

    Parameters
    ----------
    cls : type
        A class of layers that has a ``_units_name``.
    args, kwargs
        What it is called with.

    Returns
    -------
    dict of str to object, or None
        With an input size of None; None for a call that is not Keras's way.

    Examples
    --------
    >>> arguments(fastrnn.Linear, (4,), {"use_bias": False})
    {'in_features': None, 'out_features': 4, 'bias': False}
    >>> arguments(fastrnn.Linear, (3, 4), {}) is None
    True
    """
    if not _is_by_units(cls, args, kwargs):
        return None
    who, given = cls.__name__, dict(zip(("units", "activation"), args, strict=False))
    if len(args) > len(given):
        raise TypeError(
            f"{who}({args[0]!r}, {args[1]!r}, ...): arguments after units and "
            f"activation must be given by name, got {args[2]!r}"
        )
    known = [*arguments_of(cls.__init__), SHAPE]  # type: ignore[misc]
    given = _of_keras(cls, given | kwargs)
    found = taken(who, owners_of(cls), known, given)
    first = {cls._input_size_name: None, **cls._keras_defaults}  # type: ignore
    return first | found


def _is_by_units(cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if cls._units_name is None or not getattr(cls.__init__, "_answers", False):
        return False  # a class of the user's has a constructor of its own
    if "units" in kwargs:
        return cls._input_size_name not in kwargs and not args
    named = {cls._input_size_name, cls._units_name} & kwargs.keys()
    return not named and (len(args) == 1 or (len(args) > 1 and type(args[1]) is str))


def _of_keras(cls: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments with values that mean here what they mean in Keras."""
    found = dict(kwargs)
    for name in found.keys() & set(arguments_of(cls.__init__)):
        word = word_of(owners_of(cls), name)  # of what has another meaning in Keras
        if word is not None and not word.changes_nothing(found.pop(name)):
            raise TypeError(f"{cls.__name__}(units): {name} must be 0; {word.answer}")
    for name in cls._cell_functions:
        if isinstance(found.get(name), str):
            found[name] = _FUNCTIONS.get(found[name], found[name])
    return found
