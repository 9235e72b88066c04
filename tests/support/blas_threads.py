# SPDX-License-Identifier: BSD-3-Clause
"""Imported by conftest.py before NumPy: the reference runs on one BLAS thread.

NumPy's BLAS reads these when it is loaded.  Its threads spin for a while after each
product, on the processors that the kernels under test wait for: the suite took several
times as long.
"""

import os

for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(name, "1")
