# SPDX-License-Identifier: BSD-3-Clause
"""docs/api: every public name stands in exactly one group of the reference."""

import ast
import re
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

import fastrnn

API = Path(__file__).resolve().parents[2] / "docs" / "api"
PAGES = {
    path.name: path.read_text(encoding="utf-8") for path in sorted(API.glob("*.md"))
}

# What fastrnn.keras has of Keras's own layers, which needs Keras.
OF_KERAS = {f"fastrnn.keras.{name}" for name in fastrnn.keras._DROP_IN}


def names_of(module):
    """What a module writes into ``__all__``, without importing it: it may need a peer.

    Names that a module adds from the table of layers have that table's entries.
    """
    tree = ast.parse(source_of(module).read_text(encoding="utf-8"))
    (names,) = (
        [ast.literal_eval(e) for e in node.value.elts if not isinstance(e, ast.Starred)]
        for node in tree.body
        if isinstance(node, ast.Assign)
        and [getattr(target, "id", "") for target in node.targets] == ["__all__"]
    )
    return names


def source_of(module):
    """The file of a module: `find_spec` of a part of a package imports the package."""
    place = Path(fastrnn.__file__).parent.joinpath(*module.split(".")[1:])
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def public_names():
    """All names for users, modules among them."""
    found, modules = set(), ["fastrnn", *(f"fastrnn.{name}" for name in fastrnn._LATER)]
    found.update(modules[1:])
    found.update(OF_KERAS)
    for module in modules:  # which grows
        for name in names_of(module):
            found.add(f"{module}.{name}")
            if is_module(module, name):
                modules.append(f"{module}.{name}")
    return found


def is_module(package, name):
    if package == "fastrnn":
        return isinstance(getattr(fastrnn, name), ModuleType)
    at = source_of(package)
    return at.name == "__init__.py" and (
        (at.parent / f"{name}.py").is_file() or (at.parent / name).is_dir()
    )


def listed():
    """Each name in the lists of the reference, as often as it stands there."""
    for text in PAGES.values():
        for block in re.findall(r"^```\{eval-rst\}\n(.*?)^```", text, re.M | re.S):
            yield from re.findall(r"^ +(fastrnn\.[\w.]+)$", block, re.M)
            yield from re.findall(r"^\.\. automodule:: (fastrnn\.[\w.]+)$", block, re.M)


def test_every_public_name_is_in_one_group():
    count = Counter(listed())
    public = public_names()
    assert len(public) > 250
    assert sorted(public - set(count)) == [], "in no group of docs/api"
    assert sorted(set(count) - public) == [], "in docs/api, and not public"
    assert [name for name, n in count.items() if n > 1] == [], "in two groups"


def test_a_new_name_would_be_missed(monkeypatch):
    monkeypatch.setitem(PAGES, "optimizers.md", "# Optimisers\n")
    with pytest.raises(AssertionError, match="in no group"):
        test_every_public_name_is_in_one_group()


def test_every_page_is_in_the_contents():
    named = re.search(r"```\{toctree\}\n.*?\n\n(.*?)```", PAGES["index.md"], re.S)[1]
    assert {f"{name}.md" for name in named.split()} == set(PAGES) - {"index.md"}


def test_each_thing_has_one_page_of_its_own():
    """A list with ``:toctree:`` makes pages; other names of a thing only link to it."""
    pages = {}
    for text in PAGES.values():
        for block in re.findall(r"^\.\. autosummary::\n(.*?)^```", text, re.M | re.S):
            for name in re.findall(r"^ +(fastrnn\.[\w.]+)$", block, re.M):
                thing = resolve(name)
                if thing is not None and ":toctree:" in block:
                    assert pages.setdefault(id(thing), name) == name
    others = [name for name in listed() if resolve(name) is not None]
    without = [name for name in others if id(resolve(name)) not in pages]
    assert all(isinstance(resolve(name), ModuleType) for name in without), without


def resolve(name):
    """What a public name stands for; None if it needs a package that may be missing."""
    if re.match(r"fastrnn\.(jax|torch|sklearn|onnx)\b", name) or name in OF_KERAS:
        return None
    thing = fastrnn
    for part in name.split(".")[1:]:
        thing = getattr(thing, part)
    return thing
