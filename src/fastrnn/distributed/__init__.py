# SPDX-License-Identifier: BSD-3-Clause
"""Data-parallel training on several processes, on one machine or many.

``model.fit(..., distributed=comm)`` trains on joint batches of which every process has
some rows; `world` gives the communicator of a program that ``mpiexec`` started. Needs
mpi4py (``pip install 'fastrnn[mpi]'``), or an object with the methods of
`Communicator`.
"""

from fastrnn.distributed.launch import launched, world
from fastrnn.distributed.protocol import Communicator

__all__ = ["Communicator", "launched", "world"]
