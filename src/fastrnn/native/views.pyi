# SPDX-License-Identifier: BSD-3-Clause
# views.pyx has nothing for Python: other compiled modules use it.
