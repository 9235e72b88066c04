# SPDX-License-Identifier: BSD-3-Clause
"""``python -m fastrnn``."""

import sys

from fastrnn.text.cli import main

sys.exit(main())
