# SPDX-License-Identifier: BSD-3-Clause
"""``python -m fastrnn``."""

import sys

from fastrnn.text.cli import main

if __name__ == "__main__":  # and not when help() or an editor reads it
    sys.exit(main())
