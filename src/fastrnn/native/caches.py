# SPDX-License-Identifier: BSD-3-Clause
"""How large the level-2 cache is that a CPU has for itself, as Linux tells it."""

import re
from pathlib import Path

_UNITS = {"K": 1 << 10, "M": 1 << 20}


def level2_bytes(root="/"):
    """Bytes of the first CPU's level-2 cache, by the number of CPUs that share it.

    0 where the system does not tell.

    Parameters
    ----------
    root : path-like
        The folder that has ``sys``.
    """
    folder = Path(root, "sys/devices/system/cpu/cpu0/cache")
    for index in sorted(folder.glob("index*")):
        if _text(index / "level") != "2" or _text(index / "type") == "Instruction":
            continue
        size = re.fullmatch(r"(\d+)([KM])", _text(index / "size"))
        sharing = _n_cpus(_text(index / "shared_cpu_list"))
        if size and sharing:
            return int(size[1]) * _UNITS[size[2]] // sharing
    return 0


def _text(path):
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:  # no such file, or not for us
        return ""


def _n_cpus(text):
    """How many CPUs a list as ``0-1,4`` names; 0 for any other text."""
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text):
        return 0
    ranges = [[int(n) for n in part.split("-")] for part in text.split(",")]
    return sum(max(0, r[-1] - r[0] + 1) for r in ranges)
