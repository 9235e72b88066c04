# SPDX-License-Identifier: BSD-3-Clause
"""The machine that a result comes from, and the FMA peak of its processor."""

import os
import platform
import statistics
import sys
import time
from pathlib import Path

from fastrnn.native import core

# A call of so many rounds takes about a millisecond. That is long compared with the
# start of a team of threads, and short enough to fall between two interruptions.
PEAK_ROUNDS = 300_000
PEAK_REPEATS = 5


def fma_peak(dtype, n_threads, repeats=PEAK_REPEATS):
    """The GFLOP/s of FMAs on registers alone at this moment: the median of some runs.

    The loop of FMAs (csrc/kernels/peak.c) runs on the active target, so with
    ``FASTRNN_ISA`` set, a share of peak is the share of what that instruction set can
    do. The clock of a processor falls under load, so the peak has to be measured right
    after the work that is compared with it.
    """
    kernels = core.kernels(dtype)
    kernels.fma_peak(n_threads, PEAK_ROUNDS)  # untimed: it wakes the threads
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        operations = kernels.fma_peak(n_threads, PEAK_ROUNDS)
        rates.append(operations / (time.perf_counter() - start) / 1e9)
    return statistics.median(rates)


def _first_line(path, start=""):
    """The first line of a system file, or the rest of the first that has this start.

    None if there is no such file or line.
    """
    path = Path(path)
    if not path.is_file():
        return None
    for line in path.read_text().splitlines():
        if line.startswith(start):
            return line.partition(":")[2].strip() if start else line.strip()
    return None


def cpu_name():
    """The name that the system has for the processor."""
    name = _first_line("/proc/cpuinfo", "model name")
    return name or platform.processor() or platform.machine()


# What Linux calls the instruction sets that decide how fast products are.
INSTRUCTIONS = (
    "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip


def instructions():
    """The names in `INSTRUCTIONS` of what this processor has; none where not Linux."""
    found = _first_line("/proc/cpuinfo", "flags") or _first_line(
        "/proc/cpuinfo", "Features"
    )
    return [name for name in INSTRUCTIONS if name in (found or "").split()]


def build():
    """How the installed fastrnn was compiled, and which target is active."""
    return {
        "isa": core.active_target(),
        "compiler": core.COMPILER,
        "openmp": core.THREADING == "OpenMP",
    }


def cpus_allowed():
    """The number of CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def describe():
    """What a reader has to know of the machine to judge a result, as plain values."""
    governor = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    return {
        "cpu": cpu_name(),
        "instructions": instructions(),
        "architecture": platform.machine(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "cpus_allowed": cpus_allowed(),
        "governor": _first_line(governor),
        "load_average": os.getloadavg()[0],
        "python": sys.version.split()[0],
        **build(),
        "environment": {
            name: os.environ[name]
            for name in ("FASTRNN_ISA", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")
            if name in os.environ
        },
    }
