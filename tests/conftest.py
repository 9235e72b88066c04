# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures for the whole suite, and the guard that the installed package is tested."""

import importlib.metadata
import json
import os
import warnings
import zlib
from pathlib import Path

import all_threads  # noqa: F401  (first: before fastrnn is loaded)
import blas_threads  # noqa: F401  (first: before NumPy is loaded)
import numpy as np
import pytest
import selection
from selection import (  # noqa: F401  (hooks)
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_report_collectionfinish,
    pytest_runtest_makereport,
)
from tried import pytest_terminal_summary, tried  # noqa: F401  (a hook and a fixture)

import fastrnn
from fastrnn.native import core

# Whoever imports Keras first decides its backend, and an import that finds none leaves
# half a Keras behind.
os.environ.setdefault("KERAS_BACKEND", "torch")
PROJECT = Path(__file__).resolve().parents[1]


def pytest_configure(config):
    selection.set_up(config)
    stop_unless_installed()


def stop_unless_installed():
    """Stop when Python found the source folder by accident, not an installation."""
    distribution = importlib.metadata.distribution("fastrnn")
    direct_url = json.loads(distribution.read_text("direct_url.json") or "{}")
    is_editable = direct_url.get("dir_info", {}).get("editable", False)
    package = Path(fastrnn.__file__).resolve()
    if package.is_relative_to(PROJECT / "src") and not is_editable:
        raise pytest.UsageError(
            f"fastrnn was imported from {package}, but what is installed is a wheel: "
            "take the source folder out of sys.path (PYTHONPATH) and run again"
        )


@pytest.fixture
def rng(request):
    """A generator of its own for each test: the same numbers in every run."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(params=core.SUPPORTED)
def isa(request):
    """Run the test on every target that this processor supports."""
    with core.use_isa(request.param):
        yield request.param


@pytest.fixture(params=[1, 2, 7], ids=lambda n: f"{n}thr")
def n_threads(request):
    """Run the test on one thread, on two, and on more than there is work for."""
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(request.param)
    yield request.param
    fastrnn.set_num_threads(before)


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture(scope="module")
def keras():
    """Keras, to make files and to judge, on PyTorch or the backend that is chosen."""
    pytest.importorskip(os.environ["KERAS_BACKEND"], reason="Keras has no backend")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its dependencies
        return pytest.importorskip("keras", reason="keras is not installed")


@pytest.fixture(params=["keras", "h5"])
def suffix(request):
    """Both kinds of Keras's files."""
    return request.param
