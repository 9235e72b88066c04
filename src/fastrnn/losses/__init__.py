# SPDX-License-Identifier: BSD-3-Clause
"""Loss functions, losses for `Model.compile`, and metrics."""

from fastrnn.losses.functions import cross_entropy, mse_loss

__all__ = ["cross_entropy", "mse_loss"]
