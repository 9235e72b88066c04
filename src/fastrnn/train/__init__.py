# SPDX-License-Identifier: BSD-3-Clause
"""Training: models that fit, optimisers, callbacks, saving."""
