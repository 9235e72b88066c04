# SPDX-License-Identifier: BSD-3-Clause
"""Learning-rate schedules: callbacks that set the optimiser's rate.

A schedule is a factor on the rate that the optimiser had at the start, a function of
the epochs done, a fraction of one included.
"""

from fastrnn.train.schedules import (
    CosineLR,
    ReduceLROnPlateau,
    Schedule,
    StepLR,
    WarmUp,
)

__all__ = ["CosineLR", "ReduceLROnPlateau", "Schedule", "StepLR", "WarmUp"]
