# SPDX-License-Identifier: BSD-3-Clause
"""What this build of the package is and can do."""

from __future__ import annotations

from fastrnn.native import core
from fastrnn.native.threads import get_num_threads, is_dynamic

# setup.py reads the version here: asking for the installed package's would make
# `import fastrnn` half as long again.
VERSION = "0.1.0"

# What to say of OpenMP, by whose threads there are.
_OPENMP = {"OpenMP": "yes", "fastrnn": "no, a pool of its own", "": "no"}


def show_config() -> None:
    """Print what this build can do and what is in use.

    Examples
    --------
    >>> show_config()  # doctest: +ELLIPSIS
    fastrnn ...
    """
    rows = {
        "built targets": " ".join(core.BUILT),
        "supported here": " ".join(core.SUPPORTED),
        "active target": core.active_target(),
        "bfloat16-fast": core.kernels("bfloat16-fast").target,
        "OpenMP": _OPENMP[core.THREADING],
        "threads": f"{get_num_threads()}{', or fewer if faster' * is_dynamic()}",
        "compiler": core.COMPILER,
    }
    print(f"fastrnn {VERSION}")
    for name, value in rows.items():
        print(f"{name:<15} {value}")
