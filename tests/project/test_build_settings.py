# SPDX-License-Identifier: BSD-3-Clause
"""What setup.py decides about compilers and threads, on systems that are not here."""

import os
import re
import sys
import types
from pathlib import Path

import pytest

pytest.importorskip("Cython")
pytest.importorskip("setuptools")

from windows import crossbuild

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def setup(monkeypatch):
    for name in ("CC", "FASTRNN_NO_OPENMP", "FASTRNN_POOL", "FASTRNN_LIBOMP"):
        monkeypatch.delenv(name, raising=False)
    return types.SimpleNamespace(**crossbuild.build_settings())


class Compiler:
    """A compiler that knows some flags."""

    def __init__(self, *known):
        self.known, self.asked = known, []

    def compile(self, sources, output_dir, extra_postargs):
        self.asked.append(extra_postargs)
        if not set(extra_postargs) <= set(self.known):
            raise OSError("unknown flag")
        return sources

    def link_executable(self, objects, name, output_dir, extra_postargs):
        self.compile(objects, output_dir, extra_postargs)


def test_windows_is_built_by_the_clang_of_zig(setup, monkeypatch):
    zig = types.ModuleType("ziglang")
    zig.__file__ = "/a folder/ziglang/__init__.py"
    monkeypatch.setitem(sys.modules, "ziglang", zig)
    monkeypatch.setenv("_PYTHON_HOST_PLATFORM", "win-amd64")
    assert setup.windows_compiler(None) == "mingw32"
    assert os.environ["CC"] == (
        '"/a folder/ziglang/zig.exe" cc -target x86_64-windows-gnu '
        "-fno-sanitize=undefined"
    )
    monkeypatch.setenv("CC", "clang")
    assert setup.windows_compiler("mingw32") == "mingw32"
    assert os.environ["CC"] == "clang"


@pytest.mark.parametrize("asked", ["msvc", "unix", "cygwin"])
def test_other_compilers_are_refused_on_windows(setup, asked):
    with pytest.raises(SystemExit, match=f"must be mingw32, .*got {asked}: .*vector"):
        setup.windows_compiler(asked)


def test_windows_has_threads_without_openmp(setup, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    compiling, linking = setup.thread_flags(Compiler("-fopenmp"))
    assert compiling == ["-DFR_POOL"]
    assert linking == ["-lapi-ms-win-core-synch-l1-2-0"]


@pytest.mark.parametrize(
    ("variable", "known", "want"),
    [
        (None, ["-fopenmp"], (["-fopenmp"], ["-fopenmp"])),
        (None, [], (["-DFR_POOL"], [])),  # no OpenMP: threads of our own
        ("FASTRNN_POOL", ["-fopenmp"], (["-DFR_POOL"], [])),
        ("FASTRNN_NO_OPENMP", ["-fopenmp"], ([], [])),
    ],
)
def test_whose_threads_there_are(setup, monkeypatch, variable, known, want):
    monkeypatch.setattr(sys, "platform", "linux")
    if variable:
        monkeypatch.setenv(variable, "1")
    assert setup.thread_flags(Compiler(*known)) == want


def test_a_libomp_that_is_named_is_used_or_missed(setup, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("FASTRNN_LIBOMP", "/lib/omp")
    compiling = ["-Xpreprocessor", "-fopenmp", "-I/lib/omp/include"]
    linking = ["-L/lib/omp/lib", "-lomp", "-Wl,-rpath,/lib/omp/lib"]
    found = setup.thread_flags(Compiler(*compiling, *linking))
    assert found == (compiling, linking)
    with pytest.raises(SystemExit, match=r"FASTRNN_LIBOMP: no libomp .* in /lib/omp"):
        setup.thread_flags(Compiler("-fopenmp"))


WORKFLOWS = PROJECT / ".github" / "workflows"


@pytest.mark.skipif(
    not WORKFLOWS.exists(), reason="a source distribution has no workflows"
)
def test_workflows_use_actions_of_known_content():
    uses = [
        (path.name, line.strip())
        for path in sorted(WORKFLOWS.glob("*.yml"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(r"\s*(- )?uses:", line)
    ]
    assert len(uses) > 20
    pinned = re.compile(r"(- )?uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert [use for use in uses if not pinned.fullmatch(use[1])] == []


def test_where_headers_of_xla_come_from(setup, monkeypatch, tmp_path):
    monkeypatch.delenv("FASTRNN_XLA", raising=False)
    package = tmp_path / "jaxlib" / "__init__.py"
    package.parent.mkdir()
    package.touch()
    monkeypatch.syspath_prepend(tmp_path)
    folder = str(package.with_name("include"))
    assert setup.xla_headers(Compiler(f"-I{folder}")) == folder
    # Headers of a version that is no C, or none at all: nobody needs the module.
    assert setup.xla_headers(Compiler()) is None
    assert "jaxlib" not in sys.modules
    # What is named has to be there.
    monkeypatch.setenv("FASTRNN_XLA", "here")
    assert setup.xla_headers(Compiler("-Ihere", f"-I{folder}")) == "here"
    with pytest.raises(SystemExit, match="FASTRNN_XLA: no headers of XLA"):
        setup.xla_headers(Compiler(f"-I{folder}"))


def test_without_headers_of_xla_its_module_is_left_out(setup, monkeypatch):
    monkeypatch.setattr(setup.build_ext, "build_extensions", lambda self: None)
    for headers, names in [("there", ["core", "xla"]), (None, ["core"])]:
        builder = object.__new__(setup.BuildKernels)
        builder.compiler = None
        builder.extensions = [
            types.SimpleNamespace(name=f"fastrnn.native.{name}", include_dirs=[])
            for name in ("core", "xla")
        ]
        monkeypatch.setitem(
            setup.BuildKernels.build_extensions.__globals__,
            "xla_headers",
            lambda compiler, headers=headers: headers,
        )
        builder.build_extensions()
        left = {e.name.rpartition(".")[2]: e.include_dirs for e in builder.extensions}
        assert list(left) == names
        assert left.get("xla", ["there"]) == ["there"]
        assert left["core"] == []
