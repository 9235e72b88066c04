# SPDX-License-Identifier: BSD-3-Clause
"""How many CPUs Linux's control groups grant to this process.

A group has a quota: so many microseconds of processor time in each period. Version 2
has both in ``cpu.max``, version 1 in ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us``. A
process is bound by the quotas of its own group and of all groups around it.
"""

import os
import re

# Where groups are when nothing says where they are mounted: version, root, mount point.
_USUAL_MOUNTS = [
    (2, "/", "/sys/fs/cgroup"),
    (1, "/", "/sys/fs/cgroup/cpu"),
    (1, "/", "/sys/fs/cgroup/cpu,cpuacct"),
]


def cpu_limit(root="/"):
    """CPUs that the process may use, rounded, at least 1; None where nothing limits it.

    Files that are missing, cannot be read or make no sense set no limit.

    Parameters
    ----------
    root : path-like
        The folder that has ``proc`` and ``sys``.
    """
    groups = _own_groups(_text(root, "proc/self/cgroup"))
    mounts = _mounts(_text(root, "proc/self/mountinfo")) or _USUAL_MOUNTS
    limits = [
        limit
        for version, top, point in mounts
        for folder in _folders(
            groups.get(version, "/"), top, os.path.join(root, point[1:])
        )
        if (limit := _quota(version, folder)) is not None
    ]
    return max(1, round(min(limits))) if limits else None


def _text(folder, name):
    try:
        path = os.path.join(folder, name)
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:  # no such file, or not for us
        return ""


def _own_groups(text):
    """The process's group by version of the control groups that limit CPUs."""
    groups = {}
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            groups[2] = path
        elif "cpu" in controllers.split(","):
            groups[1] = path
    return groups


def _mounts(text):
    """(version, group that is mounted, mount point) of each mount of groups."""
    found = []
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if not dash or len(fields) < 5:
            continue
        where = [_unescaped(field) for field in fields[3:5]]
        if kind[0] == "cgroup2":
            found.append((2, *where))
        elif kind[0] == "cgroup" and "cpu" in kind[-1].split(","):
            found.append((1, *where))
    return found


def _unescaped(field):
    """A path with the spaces that mountinfo writes as numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _folders(group, top, point):
    """Folders of a group and of those around it, up to the one that is mounted."""
    parts, above = _names(group), _names(top)
    if parts[: len(above)] == above:
        parts = parts[len(above) :]
    if ".." in parts:  # of another namespace: not to be seen from here
        parts = []
    return [os.path.join(point, *parts[:n]) for n in range(len(parts), -1, -1)]


def _names(path):
    """The names that a path is made of."""
    return [name for name in path.split("/") if name not in ("", ".")]


def _quota(version, folder):
    """CPUs that one group's own files grant, or None."""
    if version == 2:
        words = _text(folder, "cpu.max").split()
    else:
        names = "cpu.cfs_quota_us", "cpu.cfs_period_us"
        words = [_text(folder, name).strip() for name in names]
    try:
        quota, period = (int(word) for word in words)
    except ValueError:  # "max", or nothing that we know
        return None
    return quota / period if quota > 0 and period > 0 else None
