# SPDX-License-Identifier: BSD-3-Clause
"""Modules: parameters, layers without recurrence, what wraps layers."""
