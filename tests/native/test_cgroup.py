# SPDX-License-Identifier: BSD-3-Clause
"""CPU quotas of Linux's control groups, both versions, in made-up file systems."""

import pytest

from fastrnn.native.cgroup import cpu_limit

V1_MOUNT = "33 24 0:29 {root} /sys/fs/cgroup/{name} rw - cgroup cgroup rw,cpu,cpuacct"
V2_MOUNT = "24 1 0:26 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"


def system(root, groups, mounts, files):
    files = {
        "proc/self/cgroup": groups,
        "proc/self/mountinfo": mounts,
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def v1(folder, quota, period=100_000):
    return {
        f"{folder}/cpu.cfs_quota_us": str(quota),
        f"{folder}/cpu.cfs_period_us": str(period),
    }


GROUPS_V1 = "11:memory:/a\n4:cpu,cpuacct:/a/b\n1:name=systemd:/a\n0::/a"
PLAIN_V1 = V1_MOUNT.format(root="/", name="cpu,cpuacct")
PLAIN_V2 = V2_MOUNT.format(root="/")


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "want"),
    [
        # Version 1: the quota of half a CPU, of two, none, of the group or around it.
        (GROUPS_V1, PLAIN_V1, v1("cpu,cpuacct/a/b", 50_000), 1),
        (GROUPS_V1, PLAIN_V1, v1("cpu,cpuacct/a/b", 250_000), 2),
        (GROUPS_V1, PLAIN_V1, v1("cpu,cpuacct/a/b", -1), None),
        (
            GROUPS_V1,
            PLAIN_V1,
            v1("cpu,cpuacct/a/b", 400_000) | v1("cpu,cpuacct/a", 300_000),
            3,
        ),
        (GROUPS_V1, PLAIN_V1, v1("cpu,cpuacct", 700_000), 7),
        (GROUPS_V1, PLAIN_V1, v1("cpu,cpuacct/c", 100_000), None),
        # In a container the process's group is what is mounted.
        (
            "4:cpu,cpuacct:/docker/1f",
            V1_MOUNT.format(root="/docker/1f", name="cpu,cpuacct"),
            v1("cpu,cpuacct", 300_000),
            3,
        ),
        # Nothing says where the groups are.
        ("", "", v1("cpu", 150_000, 50_000), 3),
        ("", "", {"cpu.max": "300000 100000"}, 3),
        # Version 2.
        ("0::/a/b", PLAIN_V2, {"a/b/cpu.max": "50000 100000"}, 1),
        ("0::/a/b", PLAIN_V2, {"a/b/cpu.max": "max 100000"}, None),
        (
            "0::/a/b",
            PLAIN_V2,
            {"a/b/cpu.max": "max 100000", "a/cpu.max": "600000 200000"},
            3,
        ),
        ("0::/", PLAIN_V2, {"cpu.max": "450000 100000"}, 4),
        ("0::/../x", PLAIN_V2, {"cpu.max": "500000 100000"}, 5),
        # Files that make no sense set no limit.
        ("0::/a", PLAIN_V2, {"a/cpu.max": "", "cpu.max": "many 100000"}, None),
        ("0::/a", PLAIN_V2, {"a/cpu.max": "100000 0", "cpu.max": "1 2 3"}, None),
        ("rubbish\n::\n0", "rubbish - \n- cgroup2", {}, None),
        (GROUPS_V1, PLAIN_V1, {"cpu,cpuacct/a/b/cpu.cfs_quota_us": "50000"}, None),
    ],
)
def test_the_least_quota_on_the_way_up_counts(tmp_path, groups, mounts, files, want):
    assert cpu_limit(system(tmp_path, groups, mounts, files)) == want


def test_both_versions_count(tmp_path):
    files = v1("cpu", 300_000) | {"unified/a/cpu.max": "200000 100000"}
    mounts = V1_MOUNT.format(root="/", name="cpu") + "\n"
    mounts += PLAIN_V2.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ")
    root = system(tmp_path, "3:cpu:/\n0::/a", mounts, files)
    assert cpu_limit(root) == 2


def test_an_empty_system_sets_no_limit(tmp_path):
    assert cpu_limit(tmp_path) is None
