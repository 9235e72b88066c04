# SPDX-License-Identifier: BSD-3-Clause
"""Models that write sequences, and how a next token is chosen."""
