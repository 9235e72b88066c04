# SPDX-License-Identifier: BSD-3-Clause
"""Every tolerance of the suite, with the argument for it.

Rounding errors of a sum of n products behave like a random walk: about
``eps * sqrt(n)`` of the size of the terms.  Each element of an output depends on a
chain of such sums, one per time step and layer, so n is the number of terms along that
chain.  MARGIN covers what the walk leaves out: the largest of many elements instead of
a typical one, activations that are good to 2 ULP instead of half a one, and sums that
cancel (the scale is the largest element of the *result*, the walk is in units of the
*terms*).
Tolerances are relative to the largest element of an array (or of all arrays that are
sums of like terms, see `cells.scales`), because the small elements of a product carry
the rounding errors of the large ones.
"""

import numpy as np

# The largest ratio seen over all tests of the cells, in both dtypes and on all targets,
# is 2.5; test_judge.py shows what still fails.
MARGIN = 8.0

# Central differences with step s err by s^2 (truncation) and eps / s (rounding); at
# s = 1e-6 the second dominates: 2.2e-16 / 1e-6 = 2.2e-10 of the loss, times a margin
# for the size of the loss relative to the gradient.
CENTRAL_STEP = 1e-6
CENTRAL_RTOL = 1e-7


def chain_terms(T, B, I, H, gates, num_layers=1, directions=1, backward=False):
    """Products along the longest chain of sums that leads to one element.

    Forward, each step of each layer sums I (or D * H) + H products and two biases.
    Backward, the same again for the activations it reads, gates * H products for each
    step's dh, and T * B for a weight.
    """
    width = I if num_layers == 1 else max(I, directions * H)
    forward = num_layers * T * (width + H + 2)
    if not backward:
        return forward
    return forward + num_layers * T * directions * gates * H + T * B


def relative(dtype, n_terms):
    """Largest difference allowed, relative to the largest element of the result."""
    return MARGIN * float(np.finfo(dtype).eps) * np.sqrt(n_terms)


def activation_ulp(dtype, has_fma):
    """Largest error of sigmoid and tanh in units of the last place of the result.

    float32 with FMA: the 2 that is promised.  Without FMA the residuals of the argument
    reduction and of the quotient are rounded twice: half a ULP more on top of up to 2.5
    found.
    """
    return 2.0 if dtype == "float32" and has_fma else 3.0
