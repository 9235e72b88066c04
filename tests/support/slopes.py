# SPDX-License-Identifier: BSD-3-Clause
"""Central differences of a function with respect to arrays, changed in place.

For whole modules: their parameters are views, and perturbing a view perturbs the
module.
"""

import numpy as np
from gradcheck import assert_close
from tolerances import CENTRAL_RTOL, CENTRAL_STEP


def slopes(function, array, step=CENTRAL_STEP):
    """Gradient of ``function()``, a number, with respect to each entry of `array`."""
    gradient = np.empty(array.shape)
    for index in np.ndindex(array.shape):
        before = array[index]
        array[index] = before + step
        above = function()
        array[index] = before - step
        gradient[index] = (above - function()) / (2 * step)
        array[index] = before
    return gradient


def check_gradients(function, module, got, arrays):
    """Compare a float64 module's gradients, added to ones, with differences.

    Parameters
    ----------
    function : callable
        The loss, from a forward of `module`.
    got : dict of str to ndarray
        What backward returned for each of `arrays`; the module's own gradients are
        read from it.
    arrays : dict of str to ndarray
        The data that the loss depends on.
    """
    largest = max(
        [1e-3, *(np.abs(a).max(initial=0) for a in (*got.values(), module.flat_grads))]
    )
    for name, array in arrays.items():
        want = slopes(function, array)
        assert_close(name, got[name], want, CENTRAL_RTOL, scale=largest)
    for name, view in module.parameters.items():
        want = 1 + slopes(function, view)
        assert_close(name, module.grads[name], want, CENTRAL_RTOL, scale=largest)
