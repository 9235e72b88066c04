# SPDX-License-Identifier: BSD-3-Clause
"""Which packages a file needs to be imported, read from its source.

A file of the repository that is imported by another counts, too: a test module that
imports a helper which imports PyTorch needs PyTorch.
"""

import ast
import functools
import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
TESTS = PROJECT / "tests"
ROOTS = (PROJECT, PROJECT / "src", TESTS / "support")


@functools.cache
def bare():
    """Names that can be imported where only ``pip install ".[test]"`` was run."""
    with open(PROJECT / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    names = {re.match(r"[\w-]+", line).group().replace("-", "_") for line in wanted}
    return names | sys.stdlib_module_names


def needed(path, roots=ROOTS):
    """Packages that importing a file needs, past those that every test run has.

    Parameters
    ----------
    path : pathlib.Path
    roots : tuple of pathlib.Path
        Folders in which imported files are looked for.

    Returns
    -------
    set of str
        Without those that ``pytest.importorskip`` is asked for before.
    """
    found, asked, begun = set(), set(), set()

    def run(file):
        begun.add(file)
        for names, packages in _steps(file, roots):
            asked.update(packages)
            for name in names:
                files = _files(name, roots)
                for imported in files:
                    if imported not in begun:
                        run(imported)
                package = name.partition(".")[0]
                if not files and package not in bare() | asked:
                    found.add(package)

    run(path)
    return found


@functools.cache
def _steps(path, roots):
    """Of each statement that an import runs: names it imports, packages asked for."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return [
        (_imported(node, path, roots), _asked_for(node))
        for node in _run_at_import(body)
    ]


def _run_at_import(body):
    """The statements that an import runs, one after the other.

    Left out are the bodies of functions, what only a type checker reads, and imports
    whose failure is expected.
    """
    for node in body:
        if isinstance(node, ast.Try) and any(
            handler.type is not None and "ImportError" in ast.unparse(handler.type)
            for handler in node.handlers
        ):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        blocks = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
        if any(blocks):
            for block in blocks:
                yield from _run_at_import(block)
        else:
            yield node


def _asked_for(node):
    """Packages that ``pytest.importorskip`` is called with in a statement."""
    return {
        call.args[0].value.partition(".")[0]
        for call in ast.walk(node)
        if isinstance(call, ast.Call)
        and ast.unparse(call.func).endswith("importorskip")
        and isinstance(call.args[0], ast.Constant)
    }


def _imported(node, path, roots):
    """Dotted names that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    module = node.module or ""
    if node.level:
        root = next(root for root in reversed(roots) if path.is_relative_to(root))
        package = path.relative_to(root).parts[: -node.level]
        module = ".".join([*package, *filter(None, [module])])
    # What is imported from a package may be a file of it.
    return [module, *[f"{module}.{alias.name}" for alias in node.names]]


@functools.cache
def _files(name, roots):
    """Files of the repository that ``import name`` runs: packages, then the module."""
    parts = name.split(".")
    for root in roots:
        files = []
        for k in range(1, len(parts) + 1):
            base = root.joinpath(*parts[:k])
            files += [
                file
                for file in (base / "__init__.py", base.with_suffix(".py"))
                if file.is_file()
            ]
        if files:
            return files
    return []
