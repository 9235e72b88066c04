# SPDX-License-Identifier: BSD-3-Clause
"""What has nothing to do with networks: checks of arguments, files, sizes."""
