# SPDX-License-Identifier: BSD-3-Clause
"""Compile the kernels for Windows on another system, and the harness around them.

`python tests/support/windows/crossbuild.py FOLDER` makes ``replay.exe`` with Zig's
Clang, from the package ``ziglang``, and ``replay`` with this system's compiler, each
with all targets of x86-64. Compiler flags are those of setup.py. What has not changed
since the last time is not compiled again, and the kernels that `setup.py build_ext
--inplace` has compiled for this system are taken as they are.
"""

import itertools
import os
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import Cython.Build
import setuptools

TREE = Path(__file__).resolve().parents[3]
HARNESS = Path(__file__).with_name("replay.c")
WINDOWS = ["-target", "x86_64-windows-gnu", "-fno-sanitize=undefined"]


def build_settings():
    """The names that setup.py defines, without a build."""
    with (
        mock.patch.object(setuptools, "setup"),
        mock.patch.object(Cython.Build, "cythonize"),
        mock.patch.dict(os.environ),
    ):
        before = Path.cwd()
        os.chdir(TREE)
        try:
            return runpy.run_path(str(TREE / "setup.py"))
        finally:
            os.chdir(before)


def zig():
    """The command of Zig's C compiler for Windows."""
    return [sys.executable, "-m", "ziglang", "cc", *WINDOWS]


def objects(folder, compiler, threads, inplace):
    """Compile kernels, the rest of csrc/ and the harness; the object files.

    Parameters
    ----------
    folder : Path
        Where the object files go.
    compiler, threads : list of str
        The compiler's command, and the flags for the threads of its teams.
    inplace : Path
        Where a build may have left kernels of the same compiler and flags.
    """
    settings = build_settings()
    sources = [*settings["SOURCES"], "setup.py"]
    newest = max((TREE / path).stat().st_mtime for path in sources)
    flags = [*settings["CFLAGS"], *settings["WARNINGS"], "-Werror", *threads]
    targets = settings["TARGETS"]["x86_64"]
    units = [
        (
            f"{name}-float{bits}.o",
            TREE / settings["KERNELS"],
            [*extra.split(), f"-DFR_TARGET={name}", f"-DFR_DOUBLE={int(bits == 64)}"],
        )
        for (name, extra), bits in itertools.product(targets, (32, 64))
    ]
    built = [f"-DFR_HAVE_{name}" for name, _ in targets]
    once = [*(TREE / "csrc").glob("*.c"), HARNESS]
    units += [(f"{path.stem}.o", path, built) for path in once]

    def build(unit):
        name, source, more = unit
        made = folder / name
        for other in inplace.glob(f"{Path(name).stem}/csrc/kernels/kernels.o"):
            if other.stat().st_mtime >= newest:
                return other
        since = max(newest, source.stat().st_mtime)
        if not made.exists() or made.stat().st_mtime < since:
            command = [*compiler, *flags, *more, f"-I{TREE / 'csrc'}", "-c", source]
            subprocess.run([*command, "-o", made], check=True)
        return made

    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(build, units))


def make(folder):
    """Both harnesses, as paths: this system's, and the one for Windows."""
    folder = Path(folder)
    here, there = folder / "replay", folder / "replay.exe"
    built = next((TREE / "build").glob("temp.linux-x86_64-*"), folder / "none")
    found = objects(folder / "here", ["gcc"], ["-fopenmp"], built)
    subprocess.run(["gcc", "-fopenmp", *found, "-o", here, "-lm"], check=True)
    found = objects(folder / "windows", zig(), ["-DFR_POOL"], folder / "none")
    command = [*zig(), *found, "-o", there, "-lapi-ms-win-core-synch-l1-2-0"]
    subprocess.run(command, check=True)
    return here, there


if __name__ == "__main__":
    print(*make(sys.argv[1]), sep="\n")
