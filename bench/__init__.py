# SPDX-License-Identifier: BSD-3-Clause
"""Benchmarks of fastrnn against its peers; bench/README.md says how to run them."""
