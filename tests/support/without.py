# SPDX-License-Identifier: BSD-3-Clause
"""Programs run in a Python of their own where packages cannot be imported."""

import subprocess
import sys

# What fastrnn can use, and works without.
OPTIONAL = ("torch", "sklearn", "keras", "tensorflow", "h5py", "onnx", "pandas")
OPTIONAL += ("matplotlib", "scipy", "onnxruntime", "jax")

_BLOCK = """
import importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""


def run(program, packages=OPTIONAL):
    """What a program prints.

    Parameters
    ----------
    program : str
    packages : tuple of str
        That it shall not find.

    Raises
    ------
    AssertionError
        If it fails, or writes to standard error.
    """
    command = [sys.executable, "-c", _BLOCK.format(packages=packages) + program]
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout
