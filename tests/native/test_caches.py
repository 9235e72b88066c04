# SPDX-License-Identifier: BSD-3-Clause
"""native/caches.py, on folders laid out like Linux's."""

import numpy as np
import pytest
from cells import assert_same_bits

import fastrnn
from fastrnn.native import caches, core


def write_caches(root, *found):
    for k, (level, kind, size, shared) in enumerate(found):
        folder = root / f"sys/devices/system/cpu/cpu0/cache/index{k}"
        folder.mkdir(parents=True)
        (folder / "level").write_text(f"{level}\n")
        (folder / "type").write_text(f"{kind}\n")
        (folder / "size").write_text(f"{size}\n")
        (folder / "shared_cpu_list").write_text(f"{shared}\n")


LEVEL_1 = [(1, "Data", "48K", "0-1"), (1, "Instruction", "32K", "0-1")]


@pytest.mark.parametrize(
    ("size", "shared", "expected"),
    [
        ("2048K", "0", 2 << 20),
        ("1M", "0,8", 1 << 19),
        ("4096K", "0-3", 1 << 20),
        ("4096K", "0-1,8-9", 1 << 20),
        ("4096K", "", 0),
        ("many", "0", 0),
        ("4096K", "0-", 0),
        ("4096K", "3-2", 0),
    ],
)
def test_a_processors_share_of_level_2(tmp_path, size, shared, expected):
    level_2, level_3 = (2, "Unified", size, shared), (3, "Unified", "32M", "0-7")
    write_caches(tmp_path, *LEVEL_1, level_2, level_3)
    assert caches.level2_bytes(tmp_path) == expected


def test_a_system_that_does_not_tell(tmp_path):
    assert caches.level2_bytes(tmp_path) == 0
    write_caches(tmp_path, *LEVEL_1)
    assert caches.level2_bytes(tmp_path) == 0


@pytest.fixture
def level2():
    """`core.set_level2_bytes` for plans on four threads; undone after the test."""
    before, n_threads = core.set_level2_bytes(0), fastrnn.get_num_threads()
    fastrnn.set_num_threads(4)
    yield core.set_level2_bytes
    core.set_level2_bytes(before)
    fastrnn.set_num_threads(n_threads)


def test_layers_run_at_once_where_their_weights_fit_the_cache(level2):
    layer, kernels = fastrnn.LSTM(96, 96, 4, seed=0), core.kernels("float32")
    at_once = []
    for n_bytes in (1 << 14, 1 << 20):
        level2(n_bytes)
        layer._runtime.plans.clear()
        at_once.append(layer._runtime.plan_for(kernels, 4, False, 300, 2).at_once)
    assert at_once == [1, 4]


def test_the_size_of_the_cache_changes_no_bit(level2, rng):
    x = rng.standard_normal((30, 24, 20)).astype("f")
    results = []
    for n_bytes in (0, 1 << 12, 1 << 24):
        level2(n_bytes)
        layer = fastrnn.LSTM(20, 96, 2, seed=0)
        y, _ = layer(x)
        dx, _ = layer.backward(np.cos(y))
        results.append({"y": y, "dx": dx, "grads": layer.flat_grads.copy()})
    assert_same_bits("4 KiB:", results[1], results[0])
    assert_same_bits("16 MiB:", results[2], results[0])


def test_a_negative_size_is_refused():
    with pytest.raises(
        ValueError, match="set_level2_bytes: n_bytes must be >= 0, got -1"
    ):
        core.set_level2_bytes(-1)
