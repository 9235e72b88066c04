# SPDX-License-Identifier: BSD-3-Clause
"""What the JSON object in a file must be, said once, level by level, and checked.

A rule is a type (True and False are no integers), None for null, a dict of rules (an
object that has these keys; it may have others), or a function that takes a value and
the name of its place, and raises ValueError where the value does not fit.
"""

import math
import re

MOST = 2**63  # what an integer in a file must be below


def check(value, rule, name=""):
    """Hold a value against a rule.

    Parameters
    ----------
    value : object
        What JSON gave.
    rule : type, None, dict or callable
    name : str
        Where the value is in the file, for errors.

    Raises
    ------
    ValueError
        If it does not fit.

    Examples
    --------
    >>> check({"epochs": 3}, {"epochs": integer(1)})
    >>> check({"epochs": "3"}, {"epochs": integer(1)})
    Traceback (most recent call last):
    ValueError: epochs is of the wrong type, str
    """
    if isinstance(rule, dict):
        _of_type(value, dict, name)
        for key, inner in rule.items():
            below = f"{name}.{key}" if name else key
            if key not in value:
                raise ValueError(f"{below} is missing")
            check(value[key], inner, below)
    elif isinstance(rule, type) or rule is None:
        _of_type(value, type(None) if rule is None else rule, name)
    else:
        rule(value, name)


def _of_type(value, kind, name):
    flag = isinstance(value, bool) and kind is not bool
    if flag or not isinstance(value, kind):
        raise ValueError(
            f"{name or 'its description'} is of the wrong type, {type(value).__name__}"
        )


def integer(low=-MOST, high=MOST - 1):
    """The rule of an integer in [low, high]."""

    def rule(value, name):
        _of_type(value, int, name)
        if not low <= value <= high:
            shown = value if abs(value) < MOST else "one of more than 63 bits"
            raise ValueError(f"{name} must be in [{low}, {high}], got {shown}")

    return rule


def number(value, name):
    """The rule of a real number that a float can hold; NaN and infinities are some."""
    if not isinstance(value, float):
        _of_type(value, int, name)
        if abs(value) > 2**1023:
            raise ValueError(f"{name} must be a number that a float can hold")


def finite(value, name):
    """The rule of a finite number."""
    number(value, name)
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")


def at_least(low):
    """The rule of a finite number of at least `low`."""

    def rule(value, name):
        finite(value, name)
        if value < low:
            raise ValueError(f"{name} must be at least {low}, got {value}")

    return rule


def one_of(*values):
    """The rule of one of some strings."""

    def rule(value, name):
        _of_type(value, str, name)
        if value not in values:
            raise ValueError(f"{name} must be {' or '.join(values)}, got {value!r}")

    return rule


def matching(pattern, what):
    """The rule of a string that a regular expression matches whole."""

    def rule(value, name):
        _of_type(value, str, name)
        if not re.fullmatch(pattern, value):
            raise ValueError(f"{name} must be {what}, got {value!r}")

    return rule


def list_of(inner, *, most=None):
    """The rule of a list whose elements all fit a rule."""

    def rule(value, name):
        _of_type(value, list, name)
        if most is not None and len(value) > most:
            raise ValueError(f"{name} must have at most {most}, got {len(value)}")
        for i, item in enumerate(value):
            check(item, inner, f"{name}[{i}]")

    return rule


def row_of(*rules):
    """The rule of a list of so many elements, each with a rule of its own."""

    def rule(value, name):
        _of_type(value, list, name)
        if len(value) != len(rules):
            raise ValueError(f"{name} must have {len(rules)}, got {len(value)}")
        for i, (item, inner) in enumerate(zip(value, rules, strict=True)):
            check(item, inner, f"{name}[{i}]")

    return rule


def dict_of(inner):
    """The rule of an object whose values all fit a rule, whatever its keys."""

    def rule(value, name):
        _of_type(value, dict, name)
        for key, item in value.items():
            check(item, inner, f"{name}.{key}")

    return rule


def any_of(*rules):
    """The rule of what fits one of some rules; the error is the last one's."""

    def rule(value, name):
        for inner in rules[:-1]:
            try:
                check(value, inner, name)
            except ValueError:
                continue
            return
        check(value, rules[-1], name)

    return rule
