# SPDX-License-Identifier: BSD-3-Clause
"""Kernels for Windows, compiled and replayed here."""
