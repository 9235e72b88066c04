# SPDX-License-Identifier: BSD-3-Clause
"""Training steps beside busy processes, and on an idle machine.

    python -m bench.busy                       # PyTorch, and Keras if it is installed
    python -m bench.busy --peers torch --seconds 4 --rounds 3
    python -m bench.busy --quick               # one small case, no peer

Each library trains with its default number of threads and with one, in processes of
their own that may use every CPU, and takes turns with the others for some seconds each;
meanwhile either as many processes as there are CPUs do nothing but count, or nothing
else runs. Every call counts: the time of a step is the mean over all seconds, stalls
included. Needs Linux or another system whose processes can be stopped.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from collections import defaultdict

from bench import cases, peers, timing

CASES = (
    "lstm/train/T100-B64-I50-H50",
    "gru/train/T100-B64-I128-H128",
    "lstm/train/T50-B64-I256-H256",
)
QUICK_CASES = ("lstm/train/T20-B16-I50-H50",)
COUNTING = "n = 0\nwhile True:\n    n += 1"


def cpus():
    """How many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def others(n):
    """A context that starts n processes which count, stopped at first.

    It gives a function that lets them all go on (True) or stops them (False).
    """
    with contextlib.ExitStack() as stack:
        processes = []

        def let(run):
            for process in processes:
                process.send_signal(signal.SIGCONT if run else signal.SIGSTOP)

        for _ in range(n):
            process = subprocess.Popen([sys.executable, "-c", COUNTING])
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        let(False)
        yield let


def workers(names, stack):
    """Workers by library and number of threads: all CPUs', and one.

    A library that is not installed is left out; the second dict says why.
    """
    found, absent = {}, {}
    for name in ("fastrnn", *names):
        for n_threads in sorted({cpus(), 1}, reverse=True):
            worker = peers.Worker(name, n_threads, "float32", n_cpus=cpus())
            if worker.absent:
                absent[name] = worker.absent
                break
            stack.callback(worker.close)
            found[name, n_threads] = worker
    if "fastrnn" in absent:
        raise peers.WorkerError(f"bench: fastrnn is not there: {absent['fastrnn']}")
    return found, absent


def measure(case, team, let, seconds, rounds):
    """Mean seconds of a step, idle and busy, by worker: a dict of pairs."""
    for worker in team.values():
        worker.ask("prepare", case.id)
    calls, spent = defaultdict(int), defaultdict(float)
    for busy in (False, True):
        let(busy)
        for who in timing.turns(team, rounds):
            answer = team[who].ask("mean", seconds)
            calls[who, busy] += answer["calls"]
            spent[who, busy] += answer["seconds"]
        let(False)
    return {
        who: tuple(spent[who, busy] / calls[who, busy] for busy in (False, True))
        for who in team
    }


def row(case, who, found):
    """A table's line: what a step takes, and that by fastrnn's on all CPUs."""
    name, n_threads = who
    ours = found["fastrnn", cpus()]
    cells = [case.id, name, str(n_threads)]
    for mine, reference in zip(found[who], ours, strict=True):
        cells += [f"{mine * 1e3:.2f} ms", f"{mine / reference:.2f}"]
    return cells


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m bench.busy", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--peers", default="torch,keras", help="separated by commas")
    parser.add_argument("--cases", help="ids, separated by commas")
    parser.add_argument("--others", type=int, default=cpus(), help="busy processes")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one small case, no peer")
    options = parser.parse_args(arguments)
    names = [] if options.quick else [n for n in options.peers.split(",") if n]
    ids = options.cases.split(",") if options.cases else CASES
    ids = QUICK_CASES if options.quick else ids
    seconds, rounds = (0.2, 1) if options.quick else (options.seconds, options.rounds)
    with contextlib.ExitStack() as stack:
        team, absent = workers(names, stack)
        let = stack.enter_context(others(options.others))
        for name, reason in absent.items():
            print(f"absent: {name}: {reason}")
        head = ["case", "library", "threads", "idle", "by ours"]
        head += [f"beside {options.others} busy", "by ours"]
        for line in (head, ["---"] * len(head)):
            print(f"| {' | '.join(line)} |")
        for case in map(cases.find, ids):
            found = measure(case, team, let, seconds, rounds)
            for who in found:
                print(f"| {' | '.join(row(case, who, found))} |", flush=True)


if __name__ == "__main__":
    main()
