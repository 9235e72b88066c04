# SPDX-License-Identifier: BSD-3-Clause
"""Docstrings and signatures of the classes of layers, which are written out in each.

Editors and type checkers read what stands in the source, so nothing is composed at run
time; what two classes say of one argument has to stay the same.
"""

import ast
import inspect
import re

import pytest

from fastrnn.recurrent import table

CLASSES = table.classes()
# What an argument means differs where it is about the cell's own gates or states.
OWN_WORDS = {
    "activation",
    "recurrent_activation",
    "learn_initial_state",
    "recurrent_dropout_mode",
    "zoneout",
    "layer_norm",
    "rms_norm",
}


def paragraphs(cls):
    """The text of a class's Parameters, by the arguments that an entry is of."""
    lines = inspect.getdoc(cls).split("Parameters\n----------\n")[1].splitlines()
    found, names = {}, ()
    for line in lines:
        if not line:
            break
        if not line.startswith(" "):
            names = tuple(line.partition(" : ")[0].split(", "))
            found[names] = ""
        # References have other numbers in other classes.
        found[names] += re.sub(r"\[\d+\]_", "[n]_", line.strip()) + "\n"
    return found


@pytest.mark.parametrize("cls", CLASSES.values())
def test_every_argument_is_described(cls):
    """In words of its own, or by the name of a class that has them."""
    described = [name for names in paragraphs(cls) for name in names]
    assert set(described) == set(inspect.signature(cls).parameters)
    assert len(described) == len(set(described))


def test_one_argument_has_one_description():
    seen = {}
    for cls in CLASSES.values():
        for names, text in paragraphs(cls).items():
            other = re.search(r"^As (?:of|in) `(\w+)`\.$", text, re.M)
            if other:  # "As of `GRU`.": then that class has to describe them
                whole = [n for of in paragraphs(CLASSES[other[1].lower()]) for n in of]
                assert set(names) <= set(whole), (cls, names)
            elif not OWN_WORDS & set(names):
                seen.setdefault(names, {}).setdefault(text, []).append(cls.__name__)
    assert len(seen) > 20
    for names, texts in seen.items():
        assert len(texts) == 1, (names, texts)


@pytest.mark.parametrize("cls", CLASSES.values())
def test_signatures_are_written_out_and_annotated(cls):
    """No ``*args`` or ``**kwargs``, and the common arguments are the base's."""
    kinds = inspect.Parameter
    common = inspect.signature(cls.__mro__[1]).parameters
    for name, parameter in inspect.signature(cls).parameters.items():
        assert parameter.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)
        assert parameter.annotation is not kinds.empty, name
        if name in common:
            assert parameter == common[name], name


@pytest.mark.parametrize("cls", CLASSES.values())
def test_docstrings_are_literals(cls):
    """What the source says is what `help` says."""
    (tree,) = (
        node
        for node in ast.parse(inspect.getsource(inspect.getmodule(cls))).body
        if isinstance(node, ast.ClassDef) and node.name == cls.__name__
    )
    assert ast.get_docstring(tree) == inspect.getdoc(cls)
