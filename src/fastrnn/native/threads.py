# SPDX-License-Identifier: BSD-3-Clause
"""How many threads the kernels use.

A pool of threads, GNU OpenMP's or our own, does not survive a fork, and a thread that
had one hangs in its next parallel region in the child.  Other libraries share OpenMP's
pool where they share the runtime, PyTorch first of all, and no function tells whether
they have made one.
"""

from __future__ import annotations

import functools
import os
import sys

from fastrnn.native import caches, cgroup, core
from fastrnn.native.teamsize import TeamSize
from fastrnn.util import checks

MOST_THREADS = core.MOST_THREADS
_FORKED_WITHOUT_EXEC = 0x40  # Linux's PF_FORKNOEXEC
# With one of these OpenMP binds the main thread to one place as soon as it is loaded.
_BINDING = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY")

_n_threads = None  # as set; None: the default
_pool_exists = False  # a call with several threads has been made
_others_at_fork = True  # at the last fork others had the runtime; True: not looked at


@functools.cache
def _default():
    """Looked up once: a small network's step is shorter than the look-up."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if asked.isdigit() and int(asked) > 0:
        return min(int(asked), MOST_THREADS)
    allowed = len(allowed_cpus())
    if any(name in os.environ for name in _BINDING):
        allowed = max(allowed, core.openmp_processors())
    return min(allowed, cgroup.cpu_limit() or allowed)


def allowed_cpus() -> set[int]:
    """Numbers of the CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(core.system_allowed_cpus() or os.cpu_count() or 1))


def is_chosen() -> bool:
    """Whether somebody chose a number of threads, by a call or by the environment."""
    return _n_threads is not None or bool(os.environ.get("OMP_NUM_THREADS"))


def forget_chosen() -> None:
    """Go back to the default number of threads."""
    global _n_threads
    _n_threads = None


def get_num_threads() -> int:
    """Threads that a kernel call may use at most.

    Returns
    -------
    int
        What `set_num_threads` set; else ``OMP_NUM_THREADS``, else the number of CPUs
        that this process may run on, control-group limits included, as they were at the
        first call, or fewer while the OpenMP runtime is limited to fewer, as by
        `threadpoolctl.threadpool_limits`. 1 in a build without threads, and in a
        process forked from one where OpenMP's threads may have run: ours, or another
        library's that shares the runtime, as PyTorch does.

    Examples
    --------
    >>> get_num_threads() >= 1
    True
    """
    if _forked or not core.THREADING:
        return 1
    if _n_threads is not None:
        return _n_threads
    return min(_default(), core.openmp_max_threads())


def set_num_threads(n: int, dynamic: bool | None = None) -> None:
    """Set how many threads a kernel call may use at most, for the whole process.

    Results are the same to the bit for any number. Work too small to share runs on
    fewer.

    Parameters
    ----------
    n : int
        1 to 1024.
    dynamic : bool, optional
        Whether calls get fewer threads while that is faster, because other programs use
        the processors: a team waits for those of its threads that do not run. Calls of
        the layers notice that by the time that they take, and now and then try another
        number. Default: as before; at the beginning True, unless the environment has
        ``OMP_DYNAMIC=false``.

    Raises
    ------
    TypeError
        If `n` is not an integer, or `dynamic` no bool.
    ValueError
        If `n` is less than 1 or more than 1024.
    RuntimeError
        If `n` is more than 1 in a process forked from one where OpenMP's threads may
        have run, ours or those of a library that shares the runtime: they do not
        survive the fork. Start such processes with the "spawn" method instead.

    Examples
    --------
    >>> before = get_num_threads()
    >>> set_num_threads(1)
    >>> get_num_threads()
    1
    >>> set_num_threads(before)
    """
    global _n_threads
    n = checks.positive_int("set_num_threads", "n", n)
    if n > MOST_THREADS:
        raise ValueError(f"set_num_threads: n must be at most {MOST_THREADS}, got {n}")
    if n > 1 and _forked:
        raise RuntimeError(
            f"set_num_threads: n must be 1 in a process forked from one where "
            f"OpenMP's threads may have run, got {n}; use the 'spawn' start method"
        )
    if dynamic is not None:
        _set_dynamic(checks.flag("set_num_threads", "dynamic", dynamic))
    _n_threads = n


def is_dynamic() -> bool:
    """Whether calls get fewer threads while that is faster."""
    return _dynamic


def _set_dynamic(dynamic):
    global _dynamic
    core.set_observer(TeamSize().observe if dynamic else None)
    _dynamic = dynamic


def for_kernel(wanted=None):
    """What a call passes on; remembers that a pool of threads may now exist.

    `wanted` is another library's number of threads, to be used instead of ours.
    """
    global _pool_exists
    if wanted is None:
        n = get_num_threads()
    else:
        n = 1 if _forked or not core.THREADING else min(wanted, MOST_THREADS)
    if n > 1:
        _pool_exists = True
    return n


def _before_fork():
    """Look here: the child must not wait for the dynamic linker's lock."""
    global _others_at_fork
    _others_at_fork = core.openmp_is_shared()


def _after_fork():
    global _forked, _others_at_fork
    _forked = _forked or _pool_exists or _others_at_fork
    _others_at_fork = True
    if _forked:
        core.set_most_threads(1)  # a stream made before was made for more


def _is_forked():
    """Whether this process is a copy of another one that had run other things.

    Linux says of each process whether it was forked and runs no program of its own
    since.  A fork server does nothing but fork.
    """
    record = "/proc/self/stat"
    if not os.path.exists(record) or any(
        "multiprocessing.forkserver" in a for a in sys.orig_argv
    ):
        return False
    with open(record, encoding="utf-8", errors="replace") as file:
        flags = int(file.read().rpartition(")")[2].split()[6])
    return bool(flags & _FORKED_WITHOUT_EXEC)


core.set_level2_bytes(caches.level2_bytes() or core.system_level2_bytes())
_set_dynamic(os.environ.get("OMP_DYNAMIC", "").strip().lower() != "false")
# This process is a child of one where there may have been a pool.
_forked = _is_forked() and core.openmp_is_shared()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
