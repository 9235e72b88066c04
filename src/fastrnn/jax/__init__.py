# SPDX-License-Identifier: BSD-3-Clause
"""Recurrent layers for programs of JAX on the CPU, as pure functions."""
