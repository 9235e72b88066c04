# SPDX-License-Identifier: BSD-3-Clause
"""What the benchmark's tests share: bench/ is not installed."""

import importlib
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bench(monkeypatch):
    """Import a module of bench/, which is not installed, by its name."""
    monkeypatch.syspath_prepend(str(PROJECT))
    return lambda name: importlib.import_module(f"bench.{name}")
