# SPDX-License-Identifier: BSD-3-Clause
"""native/teamsize.py: how many threads calls get beside other programs."""

import os
import subprocess
import sys

import numpy as np
import pytest
from cells import assert_same_bits

import fastrnn
from fastrnn.native import core, threads
from fastrnn.native.teamsize import LONGEST, TeamSize

MOST = 4
FLOPS = 1e6  # of a call


class Machine:
    """Calls one after the other, whose seconds depend on their number of threads.

    `takes` gives the seconds of a call on n threads, and how many of them it waits.
    """

    def __init__(self, most, takes):
        self.most, self.takes, self.now = most, takes, 0.0
        self.sizes = TeamSize(lambda: self.now)
        self.n, self.used = most, []

    def run(self, seconds):
        """Seconds of a call in the mean."""
        end, calls, begin = self.now + seconds, 0, self.now
        while self.now < end:
            took, waited = self.takes(self.n)
            self.now += took
            self.used.append(self.n)
            calls += 1
            self.n = self.sizes.observe(self.most, self.n, 1, took, waited, FLOPS)
        return (self.now - begin) / calls


def idle(n):
    return 0.01 / n, 0.0


def crowded(n):
    """One thread is nearly as fast as ever, others wait until it is their turn."""
    return (0.012, 0.0) if n == 1 else (0.03, 0.02)


def uneven(n):
    """One thread has more to do than the others: they wait, and it is no use."""
    return (0.01, 0.0) if n == 1 else (0.006, 0.002)


def test_calls_that_do_not_wait_get_all_threads():
    machine = Machine(MOST, idle)
    machine.run(20)
    assert set(machine.used) == {MOST}


def test_a_crowded_machine_is_hardly_slower_than_on_one_thread():
    machine = Machine(MOST, crowded)
    machine.run(2)
    assert machine.run(30) < 1.1 * crowded(1)[0]


def test_all_threads_come_back_when_the_others_leave():
    machine = Machine(MOST, crowded)
    machine.run(30)
    machine.takes = idle
    machine.run(2 * LONGEST)
    assert machine.n == MOST
    machine.used.clear()
    machine.run(20)
    assert set(machine.used) == {MOST}


def test_waiting_alone_is_no_reason():
    machine = Machine(MOST, uneven)
    assert machine.run(60) < 1.03 * uneven(MOST)[0]


def test_a_moments_delay_is_soon_forgotten():
    machine = Machine(MOST, idle)
    machine.run(1)
    machine.takes = lambda n: (0.06, 0.05)
    machine.run(0.2)
    machine.takes = idle
    machine.run(0.2)
    assert machine.n == MOST


def test_some_threads_fewer_may_be_best():
    """Three of sixteen processors are busy: eight threads do not meet them."""
    machine = Machine(16, lambda n: (0.01, 0.007) if n > 13 else (0.016 / n, 0.0))
    machine.run(2)
    assert machine.run(30) < 1.05 * 0.016 / 8


def test_what_does_not_count():
    """Calls that began before a change, and those on another number of threads."""
    sizes = TeamSize(lambda: 0.0)
    assert sizes.observe(MOST, MOST, 4, 1.0, 0.9, FLOPS) == 2
    assert sizes.observe(MOST, MOST, 4, 1.0, 0.9, FLOPS) == 2
    assert sizes.observe(8, 2, 4, 1.0, 0.9, FLOPS) == 8


@pytest.fixture
def observed():
    """`core.set_observer`; undone after the test."""
    before = fastrnn.get_num_threads()
    yield core.set_observer
    fastrnn.set_num_threads(before, dynamic=False)


def all_of_a_step(seed=0):
    """Results of a training step that has kernels of every kind."""
    rng = np.random.default_rng(seed)
    model = fastrnn.Sequential(
        fastrnn.LSTM(40, 48, 2, bidirectional=True, dropout=0.2, seed=1),
        fastrnn.Linear(96, 30, seed=2),
    )
    optimizer = fastrnn.Adam(model, lr=0.01)
    y = model(rng.standard_normal((30, 24, 40)).astype("f"))
    loss, dy = fastrnn.cross_entropy(y, rng.integers(0, 30, (30, 24)))
    dx = model.backward(dy)
    fastrnn.clip_grad_norm_(model, 1.0)
    optimizer.step()
    found = {name: value.copy() for name, value in model.state_dict().items()}
    return {**found, "y": y, "dx": dx, "loss": np.array(loss)}


def test_fewer_threads_in_the_middle_change_no_bit(observed):
    fastrnn.set_num_threads(4, dynamic=False)
    want = all_of_a_step()
    answers, asked = iter([3, 1, 2, 4] * 1000), []

    def observe(*about):
        asked.append(about)
        return next(answers)

    observed(observe)
    for _ in range(40):
        got = all_of_a_step()
        assert_same_bits("some threads:", got, want)
    assert {about[0] for about in asked} == {4}
    assert {about[1] for about in asked} <= {1, 2, 3, 4}
    assert len(asked) > 2


def test_what_an_observer_is_told(observed):
    fastrnn.set_num_threads(2, dynamic=False)
    asked = []
    observed(lambda *about: asked.append(about) or 1)
    layer, x = fastrnn.LSTM(64, 64, seed=0), np.ones((100, 32, 64), "f")
    for _ in range(60):
        layer.backward(layer(x)[0])
    assert {(most, n) for most, n, *_ in asked[1:]} == {(2, 1)}
    calls = sum(about[2] for about in asked)
    forward = 2 * 100 * 32 * 4 * 64 * 128
    assert sum(about[5] for about in asked) == pytest.approx(
        1.5 * forward * calls, rel=0.1
    )
    assert all(about[3] >= 0.01 for about in asked)
    assert all(about[4] == 0 for about in asked[1:])  # one thread waits for nobody


def test_an_error_of_the_observer_ends_a_call_before_it_begins(observed):
    def observe(*about):
        raise KeyboardInterrupt

    fastrnn.set_num_threads(2, dynamic=False)
    observed(observe)
    layer, x = fastrnn.LSTM(64, 64, seed=0), np.ones((100, 32, 64), "f")

    def calls():
        for _ in range(1000):
            layer(x)

    with pytest.raises(KeyboardInterrupt):
        calls()


@pytest.mark.parametrize("dynamic", [True, False])
def test_set_num_threads_turns_it_on_and_off(observed, monkeypatch, dynamic):
    asked = []

    class Sizes:
        def observe(self, most, *about):
            asked.append(about)
            return most

    monkeypatch.setattr(threads, "TeamSize", Sizes)
    fastrnn.set_num_threads(2, dynamic=dynamic)
    fastrnn.set_num_threads(2)  # as before
    layer, x = fastrnn.LSTM(64, 64, seed=0), np.ones((100, 32, 64), "f")
    for _ in range(60):
        layer(x)
    assert bool(asked) == dynamic


def test_dynamic_must_be_a_bool():
    before = fastrnn.get_num_threads()
    with pytest.raises(
        TypeError, match="set_num_threads: dynamic must be True or False, got 1"
    ):
        fastrnn.set_num_threads(before + 1, dynamic=1)
    assert fastrnn.get_num_threads() == before


@pytest.mark.parametrize(
    ("value", "dynamic"),
    [("false", False), (" FALSE", False), ("true", True), ("", True)],
)
def test_the_environment_can_turn_it_off(value, dynamic):
    done = subprocess.run(
        [sys.executable, "-c", "import fastrnn; fastrnn.show_config()"],
        env={**os.environ, "OMP_DYNAMIC": value},
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = [line for line in done.stdout.splitlines() if "threads" in line]
    assert line.endswith(", or fewer if faster") == dynamic
