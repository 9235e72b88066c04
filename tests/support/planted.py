# SPDX-License-Identifier: BSD-3-Clause
"""Does the default run find faults?  ``python tests/support/planted.py`` plants some.

Each fault is a small change of one line, made in a copy of the tree, one at a time; the
kernels are compiled again where it is one of C; then the default run goes on until
something fails.  The test files that are likely to fail come first, the others after
them.  In the end the tests that failed run once more without any fault, and have to
pass: what fails there says nothing about a fault.  ``--list`` shows the faults, names
choose some.  ``tests/project/test_planted.py`` checks that all of them fit today's
files.

Some faults need what few cases have: several threads, one instruction set, rows that
end, a panel one vector wide.  They are what a smaller choice of cases would miss first.
"""

import argparse
import ast
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Fault:
    """In `file`, whose path begins at the tree's root, `old` becomes `new`.

    The file must have `old` once.  `first` are the tests to begin with: words, each the
    X of one file ``test_X.py``.
    """

    file: str
    old: str
    new: str
    first: str

    def planted(self, root):
        """The text of the file with the fault in it; ValueError where it does not fit.

        Python must be able to read what comes out: what is no program fails any test,
        and says nothing about them.
        """
        path = Path(root, self.file)
        if not path.is_file():
            raise ValueError(f"{self.file}: there is no such file")
        text = path.read_text(encoding="utf-8")
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.file}: must have once, has {count}: {self.old}")
        if self.new == self.old:
            raise ValueError(f"{self.file}: the fault changes nothing: {self.old}")
        text = text.replace(self.old, self.new)
        if path.suffix == ".py":
            try:
                ast.parse(text)
            except SyntaxError as error:
                raise ValueError(f"{self.file}: no Python with the fault") from error
        return text

    def first_tests(self, root):
        """The paths of the test files to begin with; ValueError where one is not."""
        paths = []
        for word in self.first.split():
            found = sorted(Path(root, "tests").rglob(f"test_{word}.py"))
            if len(found) != 1:
                raise ValueError(f"tests: must have one test_{word}.py, got {found}")
            paths += found
        return paths


K, P = "csrc/kernels/", "src/fastrnn/"
FAULTS = {
    # --- kernels
    "lstm: da_f from i": Fault(
        K + "lstm.c",
        "v_store(da + H, dc * c_prev * d_sigmoid_from(f));",
        "v_store(da + H, dc * c_prev * d_sigmoid_from(i));",
        "cells",
    ),
    "lstm: peephole of o looks at c_{t-1}": Fault(
        K + "lstm.c", "v_fma(P.o, c, a_o)", "v_fma(P.o, c_prev, a_o)", "general_cells"
    ),
    "gru: dhn without r": Fault(
        K + "gru.c",
        "v_store(da + 3 * H, da_n * r);",
        "v_store(da + 3 * H, da_n);",
        "cells",
    ),
    "gru, reset before: z with the function of r": Fault(
        K + "gru.c",
        "v_store(s->held + row * s->between_row + s->j, v_gate(o, 1, a_z));",
        "v_store(s->held + row * s->between_row + s->j, v_gate(o, 0, a_z));",
        "general_cells cell_options",
    ),
    "late gate, forward: each vector of a panel gets the product of the first": Fault(
        K + "products.c",
        "step.ah = out + v;",
        "step.ah = out;",
        "general_cells cell_options",
    ),
    "late gate, backward: dR of h_{t-1}": Fault(
        K + "gradients.c",
        "if (a->dR && is_late_slot(c, slot))",
        "if (0)",
        "general_cells cell_options",
    ),
    "rnn: relu's slope at dh": Fault(
        K + "rnn.c", "v_where_positive(h, dh)", "v_where_positive(dh, dh)", "cells"
    ),
    "forward: x W of few rows, going backwards": Fault(
        K + "products.c",
        "step_time(shape, first) * a->x_step",
        "step_time(shape, s0) * a->x_step",
        "cells driver",
    ),
    "forward: h_n of the first row that ends": Fault(
        K + "forward.c",
        "max_size(g.b0, step_rows(shape, s + 1)); b < n; b++)",
        "max_size(g.b0, step_rows(shape, s + 1) + (s + 1 < shape->T)); b < n; b++)",
        "ragged driver",
    ),
    "gradients: sums of dP are not added": Fault(
        K + "gradients.c",
        "? a->dP",
        "? NULL",
        "general_cells cell_options",
    ),
    "panels: a panel of one vector that is left over": Fault(
        K + "panels.h",
        "widest > 2 && left == 1 && p > 0",
        "widest > 2 && left == 1 && p > 1",
        "cells layers",
    ),
    "panels: the last column of a transposed block": Fault(
        K + "panels.h",
        "if (k + r < K)",
        "if (k + r < K - (K % V == 1 && K > V))",
        "cells",
    ),
    "threads: second dx added by the first thread alone": Fault(
        K + "backward.c",
        "for (ptrdiff_t i = 0; i < shape->I; i += V) {",
        "for (ptrdiff_t i = self->rank > 0 ? V : 0; i < shape->I; i += V) {",
        "threads",
    ),
    "threads: shares of buffers end a line early": Fault(
        K + "flat.h",
        "*end = min_size(n, *end * CACHE_LINE);",
        "*end = min_size(n, *end * CACHE_LINE - (self->rank + 1 < self->size));",
        "optim clip dropout",
    ),
    "AVX2: negative and positive in turn": Fault(
        K + "simd.h", "V_X86(blendv)(b, a, x)", "V_X86(blendv)(a, b, x)", "activations"
    ),
    "AVX2: sums in double begin one late": Fault(
        K + "simd.h",
        "_mm256_cvtps_pd(_mm_loadu_ps(p))",
        "_mm256_cvtps_pd(_mm_loadu_ps(p + 1))",
        "clip loss_functions",
    ),
    "optim: SGD's dampening": Fault(
        K + "optim.c", "(real)(1 - args->dampening)", "(real)1", "optim"
    ),
    "optim: rows that are late by one step": Fault(
        K + "optim.c", "seen = missed - 1;", "seen = missed;", "sparse_embedding"
    ),
    "clip: NaN in the largest of a slice": Fault(
        K + "clip.c",
        "if (slices[i] > largest || slices[i] != slices[i])",
        "if (slices[i] > largest)",
        "clip",
    ),
    "loss: the largest logit among the last few": Fault(
        K + "loss.c",
        "most = v_max(most, v_load(z + n - V));",
        "",
        "loss_functions",
    ),
    "dropout: each thread begins the mask anew": Fault(
        K + "dropout.c",
        "(number + (uint64_t)(FR_DOUBLE ? lane : 2 * lane)) / 2",
        "(uint64_t)(FR_DOUBLE ? lane : 2 * lane) / 2",
        "dropout",
    ),
    "embedding: padding gets a gradient": Fault(
        K + "embedding.c",
        "if (args->indices[i] == args->padding)\n            continue;",
        "",
        "embedding layers",
    ),
    "linear: sums over three blocks": Fault(
        K + "linear.c", ".resume = k0 > 0,", ".resume = k0 > 0 && k0 < 700,", "layers"
    ),
    # --- Python
    "fit: means weigh every batch alike": Fault(
        P + "train/step.py",
        "self.loss += loss * n",
        "self.loss += loss * self.n",
        "fit",
    ),
    "ranks: a mean of means": Fault(
        P + "train/reduction.py",
        "return heads[:, 0] / total if total else heads[:, 0] * 0",
        "return np.full(self.size, 1 / self.size)",
        "fit_cases",
    ),
    "ranks: sums begin with the last": Fault(
        P + "distributed/exchange.py",
        "for weight, one in some:",
        "for weight, one in reversed(some):",
        "exchange",
    ),
    "metrics: top k plus one": Fault(
        P + "losses/metrics.py",
        "axis=-1) < self.k",
        "axis=-1) <= self.k",
        "objectives fit",
    ),
    "metrics: an insertion at the front is free": Fault(
        P + "losses/metrics.py",
        "([i + 1], new)",
        "([i], new)",
        "fit_sequences objectives",
    ),
    "callbacks: patience of one more": Fault(
        P + "train/callbacks.py",
        "elif self.wait >= self.patience and epoch",
        "elif self.wait > self.patience and epoch",
        "callbacks",
    ),
    "saving: callbacks lose their arrays": Fault(
        P + "train/resuming.py",
        'state | without_prefix(f"callback.{i}", extra)\n',
        "state\n",
        "saving callbacks",
    ),
    "ragged: rows of equal length change places": Fault(
        P + "recurrent/rows.py",
        "row[by_length] = np.arange(B)",
        "row[:] = by_length",
        "ragged",
    ),
    "losses: the mean counts ignored rows": Fault(
        P + "losses/functions.py",
        "weight = 1 / n_counted if",
        "weight = 1 / counted.size if",
        "loss_functions",
    ),
    "init: Glorot's bound": Fault(
        P + "nn/init.py",
        "bound = gain * math.sqrt(6 / _fans(matrices[0]))",
        "bound = gain * math.sqrt(3 / _fans(matrices[0]))",
        "init",
    ),
    "sequences: every epoch in one order": Fault(
        P + "data/sequences.py",
        "rng = np.random.default_rng([self.seed, self.epoch])",
        "rng = np.random.default_rng([self.seed])",
        "sequences",
    ),
    "tbptt: the next window begins too early": Fault(
        P + "recurrent/tbptt.py",
        "after = max(0, new + 2 * k1 - k2)",
        "after = start",
        "tbptt",
    ),
    "sampling: top k plus one": Fault(
        P + "generation/sampling.py",
        "ranked[..., top_k:] = 0",
        "ranked[..., top_k + 1 :] = 0",
        "sampling",
    ),
    "generate: a beam's length": Fault(
        P + "generation/search.py",
        "[:, :K] / (t + 1) ** (",
        "[:, :K] / (t + 2) ** (",
        "generate",
    ),
    "optim: Adam's second moment without correction": Fault(
        P + "train/optim.py", "1 / math.sqrt(1 - beta2**self.n_steps)", "1.0", "optim"
    ),
}


class Copy:
    """A copy of the tree with an environment of its own, built where it lies."""

    def __init__(self, folder):
        self.root = Path(folder, "tree")
        names = self._run(["git", "ls-files", "-z"], cwd=PROJECT).stdout.split("\0")
        for name in filter(None, names):
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((PROJECT / name).read_bytes())
        # Faults change what is computed, not how fast: -O1 compiles in half the time.
        compiler = Path(folder, "cc")
        compiler.write_text(f'#!/bin/sh\nexec {os.environ.get("CC", "cc")} "$@" -O1\n')
        compiler.chmod(0o755)
        self.environment = {**os.environ, "CC": str(compiler)}
        self.environment.pop("PYTHONPATH", None)
        self._run([sys.executable, "-m", "venv", str(Path(folder, "venv"))])
        self.python = str(Path(folder, "venv", "bin", "python"))
        pip = [self.python, "-m", "pip", "install", "-q"]
        self._run([*pip, "setuptools>=77", "cython>=3.1"])
        self._run([*pip, "--no-build-isolation", "-e", ".[test]"])

    def _run(self, command, cwd=None, check=True, **more):
        return subprocess.run(
            command,
            cwd=cwd or self.root,
            check=check,
            text=True,
            stdout=subprocess.PIPE,
            **more,
        )

    def build(self):
        """Compile what has changed."""
        command = [self.python, "setup.py", "-q", "build_ext", "--inplace"]
        self._run(command, env=self.environment, stderr=subprocess.DEVNULL)

    def test(self, *arguments):
        """The id of the first test that fails, or None."""
        command = [self.python, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        result = self._run([*command, *arguments], check=False, env=self.environment)
        if result.returncode == 0:
            return None
        for line in result.stdout.splitlines():
            kind, _, rest = line.partition(" ")
            if kind in ("FAILED", "ERROR"):
                return rest.partition(" - ")[0]
        return f"exit code {result.returncode}"

    def plant(self, fault):
        """Make the change; what undoes it is returned."""
        path, text = self.root / fault.file, fault.planted(self.root)
        sound = path.read_text(encoding="utf-8")
        path.write_text(text, encoding="utf-8")
        return lambda: path.write_text(sound, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="show the faults' names")
    parser.add_argument("names", nargs="*", help="faults to plant (default: all)")
    arguments = parser.parse_args()
    if arguments.list:
        print(*FAULTS, sep="\n")
        return 0
    for name in arguments.names:
        if name not in FAULTS:
            parser.error(f"no fault {name!r}; --list shows all")
    missed, witnesses = [], []
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(folder)
        for name in arguments.names or FAULTS:
            fault, begin = FAULTS[name], time.monotonic()
            undo = copy.plant(fault)
            if fault.file.startswith(K):
                copy.build()
            first = map(str, fault.first_tests(copy.root))
            found = copy.test(*first) or copy.test("tests")
            undo()
            print(f"{time.monotonic() - begin:6.0f} s  {name}: {found or 'MISSED'}")
            sys.stdout.flush()
            (witnesses if found else missed).append(found or name)
        copy.build()
        if wrong := copy.test(*dict.fromkeys(witnesses)) if witnesses else None:
            print(f"fails without a fault, so it is no witness: {wrong}")
            return 1
    print(f"{len(witnesses)} faults found, {len(missed)} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
