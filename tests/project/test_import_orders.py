# SPDX-License-Identifier: BSD-3-Clause
"""fastrnn beside NumPy, PyTorch and scikit-learn, whoever is imported first.

Each brings threads: OpenBLAS's, and the OpenMP runtimes of PyTorch and scikit-learn.
Ours has the name of PyTorch's, so the process never has one more because of fastrnn.
"""

import itertools
import json
import subprocess
import sys

import pytest

LIBRARIES = ("fastrnn", "numpy", "sklearn", "torch")
ORDERS = list(itertools.permutations(LIBRARIES))
FIRST = [ORDERS[0], ORDERS[9], ORDERS[14], ORDERS[23]]  # each library first, once

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

PROGRAM = """
import importlib, json, os, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
import numpy as np, torch, fastrnn
from sklearn.cluster import KMeans

fastrnn.set_num_threads(2, dynamic=False)
torch.set_num_threads(2)
rng = np.random.default_rng(0)
x = rng.standard_normal((20, 32, 64), dtype="float32")
found = []
for _ in range(3):  # each pool of threads after each other one
    layer = fastrnn.LSTM(64, 128, seed=0)
    y, _ = layer(x)
    layer.backward(y)
    found.append(layer.flat_grads.tobytes())
    product = torch.from_numpy(x[0]) @ torch.ones(64, 500).sqrt()
    KMeans(2, n_init=1, max_iter=2, random_state=0).fit(x[:, :, :2].reshape(-1, 2))
    x[0] @ np.ones((64, 500), "f")
assert len(set(found)) == 1
with open("/proc/self/maps") as maps:
    paths = {line.split()[-1] for line in maps if "omp" in line.split()[-1]}
names = [os.path.basename(path) for path in paths if ".so" in path]
runtimes = [name for name in names if name.startswith(("libgomp", "libomp", "libiomp"))]
print(json.dumps(sorted(runtimes)))
"""


def runtimes(order):
    """Names of the OpenMP runtimes of a process that imports and uses all of them."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *order],
        capture_output=True,
        text=True,
        timeout=120,  # a deadlock
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check(order):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    found = runtimes(order)
    # One that PyTorch and fastrnn share, and the one in scikit-learn's wheel, whose
    # name is its own.
    assert found.count("libgomp.so.1") + found.count("libgomp.so.1.0.0") == 1
    assert len(found) <= 2


@pytest.mark.parametrize("order", FIRST, ids="-".join)
def test_whoever_is_imported_first(order):
    check(order)


@pytest.mark.only_grid
@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_every_order_of_imports(order):
    check(order)
