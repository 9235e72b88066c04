# SPDX-License-Identifier: BSD-3-Clause
"""How large the level-2 cache is that a CPU has for itself, as Linux tells it."""

import os
import re

_UNITS = {"K": 1 << 10, "M": 1 << 20}


def level2_bytes(root: str | os.PathLike[str] = "/") -> int:
    """Bytes of the first CPU's level-2 cache, by the number of CPUs that share it.

    0 where the system does not tell.

    Parameters
    ----------
    root : path-like
        The folder that has ``sys``.
    """
    folder = os.path.join(root, "sys/devices/system/cpu/cpu0/cache")
    try:
        names = sorted(os.listdir(folder))
    except OSError:  # another system, or one that hides it
        return 0
    for name in names:
        level, kind, size_text, cpus = (
            _text(os.path.join(folder, name, what))
            for what in ("level", "type", "size", "shared_cpu_list")
        )
        if level != "2" or kind == "Instruction":
            continue
        size = re.fullmatch(r"(\d+)([KM])", size_text)
        sharing = _n_cpus(cpus)
        if size and sharing:
            return int(size[1]) * _UNITS[size[2]] // sharing
    return 0


def _text(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:  # no such file, or not for us
        return ""


def _n_cpus(text):
    """How many CPUs a list as ``0-1,4`` names; 0 for any other text."""
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text):
        return 0
    ranges = [[int(n) for n in part.split("-")] for part in text.split(",")]
    return sum(max(0, r[-1] - r[0] + 1) for r in ranges)
