# SPDX-License-Identifier: BSD-3-Clause
"""Benchmarks of fastrnn and other libraries; bench/README.md says how to run them."""
