# SPDX-License-Identifier: BSD-3-Clause
"""Results of other libraries: how near to ours they have to be."""

import numpy as np
import tolerances


def close(ours, theirs, n_terms=500, precision=None):
    """Fail unless two results are alike but for rounding.

    Parameters
    ----------
    ours, theirs : ndarray
    n_terms : int
        Terms of the longest sum that an element is.
    precision : str, optional
        Type that the coarser of the two computes in. Default: that of `ours`.
    """
    # Twice, as both sides round.
    limit = 2 * tolerances.relative(precision or ours.dtype.name, n_terms)
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    assert np.abs(ours - theirs).max() <= limit * np.abs(theirs).max()
