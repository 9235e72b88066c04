# SPDX-License-Identifier: BSD-3-Clause
"""Observers: what they are told of calls of modules, and what they leave as it was."""

import threading

import numpy as np
import pytest

import fastrnn
from fastrnn.nn.observing import calls_told_to, observers


@pytest.fixture
def model():
    return fastrnn.Sequential(
        fastrnn.Linear(2, 3, seed=0), fastrnn.Linear(3, 1, seed=1)
    )


def test_calls_are_told_with_their_results_and_parts_come_first(model):
    told, before = [], [dict(vars(module)) for module in model.modules()]
    with calls_told_to(lambda module, y: told.append((module, y))):
        assert all(
            vars(module).keys() == kept.keys()
            for module, kept in zip(model.modules(), before, strict=True)
        )
        y = model(np.ones((4, 2)))
    model(np.ones((4, 2)))
    assert [module for module, _ in told] == [model[0], model[1], model]
    assert told[1][1] is y


def test_an_observer_is_told_of_calls_on_its_own_thread_only(model):
    told = []
    with calls_told_to(lambda module, y: told.append(module)):
        other = threading.Thread(target=model, args=(np.ones((4, 2)),))
        other.start()
        other.join()
    assert told == []


def test_nobody_looks_on_after_an_error(model):
    def refuse(module, y):
        raise ValueError("seen enough")

    with pytest.raises(ValueError, match="seen enough"), calls_told_to(refuse):
        model(np.ones((4, 2)))
    assert observers == []
    model(np.ones((4, 2)))
