# SPDX-License-Identifier: BSD-3-Clause
"""What this build of the package is and can do."""

from importlib.metadata import version

from fastrnn.native import core
from fastrnn.native.threads import get_num_threads, is_dynamic

VERSION = version("fastrnn")


def show_config():
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
        "OpenMP": "yes" if core.OPENMP else "no",
        "threads": f"{get_num_threads()}{', or fewer if faster' * is_dynamic()}",
        "compiler": core.COMPILER,
    }
    print(f"fastrnn {VERSION}")
    for name, value in rows.items():
        print(f"{name:<15} {value}")
