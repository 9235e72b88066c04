# SPDX-License-Identifier: BSD-3-Clause
import pytest

import fastrnn


@pytest.fixture
def one_thread():
    """Ranks that are threads of one process share its number of threads."""
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(1)
    yield
    fastrnn.set_num_threads(before)
