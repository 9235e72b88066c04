# SPDX-License-Identifier: BSD-3-Clause
"""What pyproject.toml cannot say: the kernels, compiled once per target and dtype.

Environment: FASTRNN_TARGETS="baseline x86_v3" builds fewer targets,
FASTRNN_NO_OPENMP=1 builds without threads, FASTRNN_POOL=1 with those of csrc/pool.c in
place of OpenMP's (as on Windows), FASTRNN_LIBOMP=FOLDER with the libomp there, for
Apple's compiler, FASTRNN_XLA=FOLDER with XLA's headers, which are jaxlib's otherwise if
that can be imported, FASTRNN_SANITIZE=address,undefined adds sanitizers,
FASTRNN_CYTHON_CHECKS=1 turns Cython's own checks on, FASTRNN_WERROR=1 makes compiler
warnings errors.
"""

import importlib
import importlib.util
import itertools
import os
import platform
import shutil
import sys
import sysconfig
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# The targets of each machine, best first, as (name, compiler flags).  No other place
# lists them.
X86_V3 = "-mavx2 -mfma -mbmi2"
X86_V4 = f"-mavx512f -mavx512bw -mavx512cd -mavx512dq -mavx512vl {X86_V3}"
TARGETS = {
    "x86_64": [
        # Compilers prefer half-width vectors with AVX-512; the kernels write full ones.
        # Small: most of their time goes into instructions that no compiler chooses.
        (
            "x86_v4_bf16",
            f"{X86_V4} -mavx512bf16 -mprefer-vector-width=512 -DFR_PAIRS=1 -Os",
        ),
        (
            "x86_v4_amx",
            f"{X86_V4} -mavx512bf16 -mamx-tile -mamx-bf16 -mprefer-vector-width=512 "
            "-DFR_PAIRS=1 -DFR_AMX=1 -Os",
        ),
        ("x86_v4", f"{X86_V4} -mprefer-vector-width=512 -DFR_EXPECT_AVX512"),
        ("x86_v3", f"{X86_V3} -DFR_EXPECT_AVX2"),
        # Small: for processors from before 2013.
        ("baseline", "-Os"),
    ],
    "aarch64": [("baseline", "")],
}
MACHINE_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}

# -ffp-contract=off: every fused multiply-add is written out as v_fma, and the compiler
# adds none, so that all targets with FMA agree to the bit.
CFLAGS = [
    "-O3",
    "-g0",
    "-std=gnu11",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
]
if sys.platform == "linux":
    # They are a fortieth of what is linked, and no C++ throws through this code.
    # Windows walks the stack by such tables.
    CFLAGS.append("-fno-asynchronous-unwind-tables")
# -Wno-psabi: GCC warns that passing vectors depends on the target, but the kernels pass
# vectors to static functions only.
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wdouble-promotion", "-Wvla", "-Wno-psabi"]
# No names of static functions in what is linked: a tenth of its size.
STRIP = {"linux": ["-Wl,--strip-all"], "darwin": ["-Wl,-x"]}
# One build serves every CPython from 3.11 on, where there is a stable ABI for it; the
# free-threaded ones have builds of their own.
IS_CPYTHON = sys.implementation.name == "cpython"
ABI3 = IS_CPYTHON and not sysconfig.get_config_var("Py_GIL_DISABLED")
LIMITED_API = [("Py_LIMITED_API", "0x030B0000")] if ABI3 else []
KERNELS = "csrc/kernels/kernels.c"
# Modules that each forward and backward of a layer goes through.
IN_EVERY_CALL = ("arrays", "calls", "views")
XLA = "fastrnn.native.xla"
SOURCES = sorted(str(p) for p in Path("csrc").rglob("*.[ch]"))


def machine():
    name = os.environ.get("_PYTHON_HOST_PLATFORM", platform.machine()).lower()
    name = name.rsplit("-", 1)[-1]
    return MACHINE_ALIASES.get(name, name)


def compiles(compiler, source, flags, linking=None):
    """Whether a one-file program compiles with `flags`, and links with `linking`."""
    folder = tempfile.mkdtemp()
    try:
        path = Path(folder, "probe.c")
        path.write_text(source)
        objects = compiler.compile([str(path)], output_dir=folder, extra_postargs=flags)
        if linking is not None:
            compiler.link_executable(
                objects, "probe", output_dir=folder, extra_postargs=linking
            )
    except Exception as error:  # distutils raises CompileError, LinkError or OSError
        print(f"fastrnn: probe {' '.join(flags) or '(no flags)'} failed: {error}")
        return False
    finally:
        shutil.rmtree(folder)
    return True


def thread_flags(compiler):
    """Flags for compiling and for linking that decide whose threads run the kernels."""
    if os.environ.get("FASTRNN_NO_OPENMP"):
        return [], []
    if sys.platform == "win32":  # WaitOnAddress is in that library
        return ["-DFR_POOL"], ["-lapi-ms-win-core-synch-l1-2-0"]
    if os.environ.get("FASTRNN_POOL"):
        return ["-DFR_POOL"], []
    source = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
    if folder := os.environ.get("FASTRNN_LIBOMP"):
        compiling = ["-Xpreprocessor", "-fopenmp", f"-I{folder}/include"]
        linking = [f"-L{folder}/lib", "-lomp", f"-Wl,-rpath,{folder}/lib"]
        if compiles(compiler, source, compiling, linking):
            return compiling, linking
        raise SystemExit(f"FASTRNN_LIBOMP: no libomp to build with in {folder}")
    if compiles(compiler, source, ["-fopenmp"], ["-fopenmp"]):
        return ["-fopenmp"], ["-fopenmp"]
    print("fastrnn: no OpenMP; the kernels will run on threads of csrc/pool.c")
    return ["-DFR_POOL"], []


def xla_headers(compiler):
    """The folder of XLA's headers; None where the module that needs them is left out.

    It is the one that ``jax.ffi.include_dir()`` names, found without importing JAX.
    """
    source = '#include "xla/ffi/api/c_api.h"\nXLA_FFI_Attrs attributes;\n'
    if folder := os.environ.get("FASTRNN_XLA"):
        if compiles(compiler, source, [f"-I{folder}"]):
            return folder
        raise SystemExit(f"FASTRNN_XLA: no headers of XLA to build with in {folder}")
    if jaxlib := importlib.util.find_spec("jaxlib"):
        folder = str(Path(jaxlib.submodule_search_locations[0], "include"))
        if compiles(compiler, source, [f"-I{folder}"]):
            return folder
    print(f"fastrnn: {XLA} left out: no headers of XLA's that it can be built with")
    return None


def usable_targets(compiler):
    wanted = os.environ.get("FASTRNN_TARGETS", "").split()
    table = TARGETS.get(machine(), [("baseline", "")])
    if unknown := set(wanted) - {name for name, _ in table}:
        known = " ".join(name for name, _ in table)
        raise SystemExit(f"FASTRNN_TARGETS: {sorted(unknown)} not among: {known}")
    for name, flags in table:
        optional = name != "baseline"
        if optional and wanted and name not in wanted:
            continue
        if name == "x86_v4_amx" and sys.platform != "linux":
            continue  # csrc/dispatch.c asks Linux alone for its registers
        if optional and not compiles(compiler, "int x;\n", flags.split()):
            print(f"fastrnn: target {name} left out: the compiler lacks its flags")
            continue
        yield name, flags.split()


def n_cpus():
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def windows_compiler(asked):
    """The class of compilers to build with on Windows, after `CC` is set for it.

    Microsoft's compiler has no vector types, and GCC aligns the stack of a function for
    no vector of more than 16 bytes there: docs/platforms_windows.md says more. So the
    compiler is Clang, which Zig's package brings, unless `CC` names another Clang.
    """
    if asked not in (None, "mingw32"):
        raise SystemExit(
            f"fastrnn: on Windows --compiler must be mingw32, whose driver runs Clang, "
            f"got {asked}: the kernels need the vector types of GCC and Clang"
        )
    if "CC" not in os.environ:
        zig = Path(importlib.import_module("ziglang").__file__).with_name("zig.exe")
        target = f"-target {machine()}-windows-gnu -fno-sanitize=undefined"
        os.environ["CC"] = f'"{zig.as_posix()}" cc {target}'
    return "mingw32"


class BuildKernels(build_ext):
    """Compile the kernels once per target and dtype, then the extension."""

    def finalize_options(self):
        super().finalize_options()
        if sys.platform == "win32":
            self.compiler = windows_compiler(self.compiler)
        self.parallel = self.parallel or n_cpus()

    def run(self):
        super().run()
        for ext in self.extensions if self.inplace else ():
            built = Path(self.get_ext_fullpath(ext.name))
            stem = built.name.partition(".")[0]
            # An older build with another suffix would be imported instead.
            for suffix in EXTENSION_SUFFIXES:
                if (other := built.with_name(stem + suffix)) != built:
                    other.unlink(missing_ok=True)

    def build_extensions(self):
        xla = next(ext for ext in self.extensions if ext.name == XLA)
        if headers := xla_headers(self.compiler):
            xla.include_dirs.append(headers)
        else:
            self.extensions.remove(xla)
        super().build_extensions()

    def rebuild_if_changed(self, configuration):
        """Compile everything again if an earlier build was made with other flags."""
        record = Path(self.build_temp, "configuration.txt")
        if not record.exists() or record.read_text() != str(configuration):
            self.force = True
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(str(configuration))

    def build_extension(self, ext):
        flags = CFLAGS + WARNINGS
        if os.environ.get("FASTRNN_WERROR"):
            flags = [*flags, "-Werror"]
        if sanitize := os.environ.get("FASTRNN_SANITIZE"):
            # -O1: with -O3 the instrumented kernels take minutes to compile.
            sanitizer = f"-fsanitize={sanitize} -g -O1 -fno-omit-frame-pointer".split()
            flags = [*flags, *sanitizer]
            ext.extra_compile_args += sanitizer
            ext.extra_link_args += sanitizer[:1]
        else:
            ext.extra_link_args += STRIP.get(sys.platform, [])
        # The other modules call the kernels through this one.
        if ext.name == "fastrnn.native.core":
            self.add_kernels(ext, flags)
        # The C that Cython writes only passes pointers: -O2 makes it as fast as -O3,
        # and -Os a fifth smaller. Of several -O the last one counts.
        level = "-O2" if ext.name.rpartition(".")[2] in IN_EVERY_CALL else "-Os"
        ext.extra_compile_args = [*CFLAGS, level, *ext.extra_compile_args]
        super().build_extension(ext)

    def add_kernels(self, ext, flags):
        threads, linking = thread_flags(self.compiler)
        ext.extra_link_args += linking
        targets = list(usable_targets(self.compiler))
        command = self.compiler.compiler_so
        self.rebuild_if_changed([command, flags, threads, targets, CHECKS])
        newest = max(os.path.getmtime(path) for path in [*SOURCES, "setup.py"])

        def build(target, bits):
            name, target_flags = target
            folder = os.path.join(self.build_temp, f"{name}-float{bits}")
            built = Path(folder, KERNELS).with_suffix(".o")
            current = built.exists() and built.stat().st_mtime > newest
            if self.force or not current:
                self.compiler.compile(
                    [KERNELS],
                    output_dir=folder,
                    macros=[("FR_TARGET", name), ("FR_DOUBLE", str(int(bits == "64")))],
                    include_dirs=["csrc"],
                    extra_postargs=flags + threads + target_flags,
                )
            return str(built)

        # The targets for pairs of bfloat16 have one table, of float32 arrays.
        units = [
            (target, bits)
            for target, bits in itertools.product(targets, ("32", "64"))
            if bits == "32" or target[0] not in ("x86_v4_bf16", "x86_v4_amx")
        ]
        with ThreadPoolExecutor(self.parallel) as pool:
            ext.extra_objects += pool.map(build, *zip(*units, strict=True))
        ext.define_macros += [(f"FR_HAVE_{name}", None) for name, _ in targets]
        ext.extra_compile_args += threads


CHECKS = bool(os.environ.get("FASTRNN_CYTHON_CHECKS"))
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": CHECKS,
    "wraparound": CHECKS,
    "initializedcheck": CHECKS,
    "cdivision": True,
    "auto_pickle": False,  # a pickle could set fields that were checked
    "freethreading_compatible": True,
    # Functions as C has them, without the attributes of Python's functions: a
    # fifth of a module's size.  help() and inspect.signature() know them.
    "binding": False,
    "embedsignature": True,
    "embedsignature.format": "clinic",
}

setup(
    ext_modules=cythonize(
        [
            Extension(
                "fastrnn.native.core",
                [
                    "src/fastrnn/native/core.pyx",
                    *(
                        f"csrc/{name}.c"
                        for name in (
                            "amx",
                            "dispatch",
                            "machine",
                            "pace",
                            "pool",
                            "runtime",
                            "team",
                            "wait",
                        )
                    ),
                ],
                include_dirs=["csrc"],
                define_macros=list(LIMITED_API),
                py_limited_api=ABI3,
                depends=SOURCES,
            ),
            *(
                Extension(
                    f"fastrnn.native.{name}",
                    [f"src/fastrnn/native/{name}.pyx"],
                    include_dirs=["csrc"],
                    define_macros=list(LIMITED_API),
                    py_limited_api=ABI3,
                    depends=["csrc/fastrnn.h"],
                )
                for name in (
                    "addresses",
                    "arrays",
                    "calls",
                    "celltable",
                    "draws",
                    "layout",
                    "memory",
                    "optimizers",
                    "single",
                    "tensors",
                    "views",
                    "weights",
                    "xla",
                )
            ),
        ],
        compiler_directives=DIRECTIVES,
        # Cython does not see that its directives have changed: a folder for each set.
        build_dir=f"build/cython-{zlib.crc32(repr(DIRECTIVES).encode()):08x}",
    ),
    cmdclass={"build_ext": BuildKernels},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if ABI3 else {},
)
