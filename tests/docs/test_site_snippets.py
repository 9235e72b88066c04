# SPDX-License-Identifier: BSD-3-Clause
"""The Python on the site's pages runs, and prints what the comments beside it say.

Every block of a page under docs/ that is marked as Python, or has a line with ``>>>``,
runs in the order of the page, in one namespace and in an empty folder. ``<!-- not run:
REASON -->`` on the line before a block leaves it out. ``<!-- needs: torch -->`` before
a block, or before the page's title, says that it needs a package: such a block is left
out of the first test here, and is in the second one, with the rest of its page.

Of ``print(...)  # text`` the text has to begin with what is printed; numbers may differ
in the last digit, or by a tenth of their size, for targets do not round alike.
"""

import ast
import contextlib
import doctest
import io
import re
import shlex
import socket
from dataclasses import dataclass
from pathlib import Path

import pytest

import fastrnn
from fastrnn.text.cli import main

DOCS = Path(__file__).resolve().parents[2] / "docs"
GENERATED = {"_build", "generated", "gallery"}
FENCE = re.compile(
    r"(?P<comments>(?:^<!--[^\n]*-->\n\n?)*)"
    r"^(?P<fence>`{3,})(?P<language>[\w+-]*)[^\n]*\n(?P<code>.*?)^(?P=fence)`*$",
    re.MULTILINE | re.DOTALL,
)
COMMENT = re.compile(r"<!--\s*(not run|needs)\b(.*?)-->")
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@dataclass
class Block:
    code: str
    line: int  # of the page, above the first line of code
    needs: tuple = ()


def packages(rest):
    names = tuple(re.findall(r"[\w.]+", rest))
    assert names, "<!-- needs: --> names no package"
    return names


def blocks_of(text):
    """The blocks that run, and what the whole page needs."""
    title = re.search(r"^# ", text, re.MULTILINE)
    head = text[: title.start()] if title else ""
    whole, comments = [], 0
    for kind, rest in COMMENT.findall(head):
        assert kind == "needs", "a whole page that is not run has no ```python"
        whole += packages(rest)
        comments += 1
    found = []
    for match in FENCE.finditer(text):
        code = match["code"]
        if match["language"] not in ("python", "py", "pycon") and ">>> " not in code:
            continue
        said = COMMENT.findall(match["comments"])
        comments += len(said) if match.start() >= len(head) else 0
        needs, runs = [], True
        for kind, rest in said:
            if kind == "needs":
                needs += packages(rest)
            else:
                assert re.search(r":\s*\w+", rest), "<!-- not run: --> gives no reason"
                runs = False
        if runs:
            line = text.count("\n", 0, match.start("code"))
            found.append(Block(code, line, tuple(needs)))
    assert comments == len(COMMENT.findall(text)), "a comment stands before no block"
    return found, tuple(whole)


PAGES = {
    path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(DOCS.rglob("*.md"))
    if not GENERATED & set(path.relative_to(DOCS).parts) and path.name != "README.md"
}


@pytest.fixture
def _alone(tmp_path, monkeypatch):
    """An empty folder, no network, and what is set for all calls as it was before."""

    def refuse(self, address):
        raise AssertionError(f"a page's Python asked for {address}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    before = fastrnn.get_num_threads()
    yield
    fastrnn.set_num_threads(before)
    fastrnn.set_seed(None)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("_alone")
def test_page(page):
    blocks, whole = blocks_of(PAGES[page])
    if not whole:
        run(page, [block for block in blocks if not block.needs])


def with_needs():
    for page, text in PAGES.items():
        blocks, whole = blocks_of(text)
        needs = sorted({*whole, *(name for block in blocks for name in block.needs)})
        if needs:
            yield page, needs


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of Keras
@pytest.mark.parametrize(("page", "needs"), list(with_needs()))
@pytest.mark.usefixtures("_alone")
def test_page_with_all_that_it_needs(page, needs):
    for name in needs:
        pytest.importorskip(name, reason=f"{name} is not installed")
    run(page, blocks_of(PAGES[page])[0])


def run(page, blocks):
    """Run blocks in one namespace; the page's name and line are in every traceback."""
    names = {"__name__": "page"}
    for block in blocks:
        if ">>> " in block.code:
            test = doctest.DocTestParser().get_doctest(
                block.code, names, page, str(DOCS / page), block.line
            )
            runner = doctest.DebugRunner(optionflags=FLAGS)
            runner.run(test, clear_globs=False)
            names.update(test.globs)
        else:
            run_statements(page, block, names)


def run_statements(page, block, names):
    tree = ast.parse(block.code)
    lines = block.code.splitlines()
    for statement in tree.body:
        line = lines[statement.end_lineno - 1].encode()[statement.end_col_offset :]
        _, is_said, comment = line.decode().partition("#")
        ast.increment_lineno(statement, block.line)
        code = compile(ast.Module([statement], []), str(DOCS / page), "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        if is_said and ast.unparse(statement).startswith("print("):
            assert begins_with(comment, printed.getvalue()), (
                f"docs/{page}, line {statement.end_lineno}: prints "
                f"{printed.getvalue().strip()!r}, the comment says {comment.strip()!r}"
            )


def begins_with(comment, printed):
    said, got = comment.split(), printed.split()
    return len(got) <= len(said) and all(map(same, said, got))


def same(said, got):
    """Whether a word is the other, but for the rounding of a number."""
    if got in (said, said.rstrip(":,;.")):
        return True
    try:
        said_number, got_number = (float(w.strip("[](),:;")) for w in (said, got))
    except ValueError:
        return False
    digits = len(re.sub(r"e.*|[\])(:;,]", "", said).partition(".")[2])
    if digits == 0:
        return False
    return got_number == pytest.approx(said_number, rel=0.1, abs=2 * 10.0**-digits)


def test_what_counts_as_printed():
    assert begins_with(" (2, 3): rows and columns", "(2, 3)\n")
    assert begins_with(" 0.123 at the end", "0.125\n")
    assert not begins_with(" 4 rows", "5\n")
    assert not begins_with(" (2, 3)", "(2, 4)\n")
    assert not begins_with(" True", "False\n")
    assert not begins_with(" 1 2", "1 2 3\n")


def test_blocks_are_found_and_left_out():
    page = "# T\n\n```python\na = 1\n```\n<!-- not run: no X -->\n```python\nb\n```\n"
    assert [(b.code, b.line) for b in blocks_of(page)[0]] == [("a = 1\n", 3)]
    needing = page.replace("not run: no X", "needs: torch, h5py")
    assert blocks_of(needing)[0][1].needs == ("torch", "h5py")
    assert blocks_of("<!-- needs: onnx -->\n" + page)[1] == ("onnx",)
    with pytest.raises(AssertionError, match="gives no reason"):
        blocks_of(page.replace(": no X", ""))
    with pytest.raises(AssertionError, match="stands before no block"):
        blocks_of(page + "<!-- needs: torch -->\nwords\n")
    with pytest.raises(NameError):
        run("t", [Block("a = 1\n", 3), Block("b\n", 7)])
    with pytest.raises(doctest.DocTestFailure):
        run("t", [Block(">>> 1 + 1\n3\n", 3)])


def commands():
    """Each `fastrnn` command in the pages' blocks for a shell."""
    for page, text in PAGES.items():
        for match in FENCE.finditer(text):
            if match["language"] not in ("bash", "sh", "console", "shell"):
                continue
            joined = match["code"].replace("\\\n", " ")
            for line in re.split(r"\n|&&|\|", joined):
                words = shlex.split(line, comments=True)
                for k, word in enumerate(words):
                    if Path(word).name == "fastrnn" and "install" not in words[:k]:
                        yield page, words[k + 1 :]


def test_commands_have_the_options_that_pages_name(capsys):
    checked = 0
    for page, words in commands():
        command = [w for w in words[:1] if not w.startswith("-")]
        with pytest.raises(SystemExit):
            main([*command, "--help"])
        offered = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
        asked = {w.partition("=")[0] for w in words if w.startswith("--")}
        assert asked <= offered, f"docs/{page}: {words}"
        checked += 1
    assert checked >= 5
