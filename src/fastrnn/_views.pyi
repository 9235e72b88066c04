# SPDX-License-Identifier: BSD-3-Clause
# _views.pyx has nothing for Python: other compiled modules use it.
