# SPDX-License-Identifier: BSD-3-Clause
"""Imported by conftest.py before fastrnn: calls get the threads that tests ask for.

Else calls beside other programs would get fewer, and nobody would know what was tested.
"""

import os

os.environ.setdefault("OMP_DYNAMIC", "false")
