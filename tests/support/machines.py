# SPDX-License-Identifier: BSD-3-Clause
"""How hypothesis runs the state machines of the suite."""

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test


def run_machine(machine, sequences, steps):
    """Run a state machine: so many sequences of so many steps, the same every time.

    A sequence that fails is made shorter, but not explained: that would take minutes.
    """
    run_state_machine_as_test(
        machine,
        settings=settings(
            phases=(Phase.generate, Phase.shrink),
            max_examples=sequences,
            stateful_step_count=steps,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
