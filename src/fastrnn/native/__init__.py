# SPDX-License-Identifier: BSD-3-Clause
"""The compiled modules, and the only Python that knows how they take memory."""
