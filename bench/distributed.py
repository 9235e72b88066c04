# SPDX-License-Identifier: BSD-3-Clause
"""What a step of data-parallel training takes, for several numbers of processes.

    python -m bench.distributed                  # 1 and 2 processes of one thread each
    python -m bench.distributed --ranks 1 2 4 --hidden 64 --rounds 5

Needs mpi4py and an mpiexec. Each round starts every number of processes in turns, and
one process with as many threads as processes, or as there are processors. The times are
medians over rounds of medians over steps, with the lowest and the highest round;
`exchange` is the reduction alone, of the same buffer, and `model` is what the cost
model of docs/guide_distributed.md makes of the other columns: the step of one process
on its share of the batch, and the exchange.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

T, BATCH = 50, 64
HEAD = ["H", "processes", "threads", "step, ms", "speed-up", "share, ms"]
HEAD += ["exchange, ms", "model, ms", "gradient, kB"]


def model_of(hidden):
    import fastrnn

    model = fastrnn.Sequential(
        fastrnn.LSTM(hidden, hidden, seed=0), fastrnn.Linear(hidden, 1, seed=1)
    )
    model.compile("mse", "sgd", lr=1e-3)
    return model


def steps(hidden, batch, seconds, comm=None):
    """Seconds of each step of `fit`, about as many as fit into `seconds`."""
    import numpy as np

    from fastrnn.callbacks import Callback

    class Clock(Callback):
        def __init__(self):
            self.times = []

        def on_train_batch_begin(self, batch, logs=None):
            self.begun = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            self.times.append(time.perf_counter() - self.begun)

    x = np.random.default_rng(0).standard_normal((batch, T, hidden)).astype("f")
    model, clock = model_of(hidden), Clock()

    def fit(epochs):
        clock.times.clear()
        model.fit(
            x, x[..., :1], batch, epochs, 0, clock, seed=0, distributed=comm
        )  # fmt: skip

    fit(3)
    once = statistics.median(clock.times)
    n = max(3, int(seconds / once))
    fit(n if comm is None else comm.bcast(n))
    return clock.times


def exchanges(hidden, comm):
    """Seconds of each reduction of a buffer as large as the model's gradients."""
    import numpy as np

    from fastrnn.distributed.exchange import Exchange

    grads = np.ones(model_of(hidden).flat_grads.size, "f")
    exchange, times = Exchange(comm, grads.size, 5, grads.dtype), []
    for _ in range(30):
        comm.barrier()
        begun = time.perf_counter()
        exchange([grads], [1.0] * 5, lambda heads: heads[:, 0] / comm.size)
        times.append(time.perf_counter() - begun)
    return times


def work(hidden, seconds):
    """One process of a round: prints what rank 0 measured."""
    from fastrnn.distributed import world

    comm = world()
    found = {"step": statistics.median(steps(hidden, BATCH, seconds, comm))}
    found["exchange"] = statistics.median(exchanges(hidden, comm))
    if comm.rank == 0:
        found["bytes"] = model_of(hidden).flat_grads.nbytes
        print(json.dumps(found))


def alone(hidden, seconds, batch):
    """A process without MPI: its step on so many rows."""
    print(json.dumps({"step": statistics.median(steps(hidden, batch, seconds))}))


def started(words, threads):
    own = {k: v for k, v in os.environ.items() if not k.startswith("OMP")}
    done = subprocess.run(
        [*words], capture_output=True, text=True, check=True,
        env=own | {"OMP_NUM_THREADS": str(threads)},
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def measured(hidden, ranks, rounds, seconds):
    """By number of processes, and of threads, what each round found."""
    mpiexec = shutil.which("mpiexec")
    if mpiexec is None:
        sys.exit("bench.distributed: there is no mpiexec")
    python = [sys.executable, "-m", "bench.distributed", "--worker"]
    own = [*python, str(hidden), str(seconds)]
    options = ["--oversubscribe", "--allow-run-as-root"]
    found = {}
    for _ in range(rounds):
        for n in ranks:
            one = started([mpiexec, "-n", str(n), *options, *own], 1)
            one["share"] = started([*own, str(BATCH // n)], 1)["step"]
            found.setdefault((n, 1), []).append(one)
        threads = min(max(ranks), os.cpu_count() or 1)
        if threads > 1:
            one = started([*own, str(BATCH)], threads)
            found.setdefault((1, threads), []).append(one)
    return found


def rows(hidden, found):
    """Lines of the table."""
    alone = statistics.median(one["step"] for one in found[1, 1])
    for (n, threads), several in found.items():
        step = [1e3 * one["step"] for one in several]
        middle = statistics.median(step)
        line = [hidden, n, threads]
        line += [f"{middle:.2f} ({min(step):.2f} to {max(step):.2f})"]
        line += [f"{1e3 * alone / middle:.2f}x"]
        if "share" in several[0]:
            share, exchange = (
                1e3 * statistics.median(one[name] for one in several)
                for name in ("share", "exchange")
            )
            exchange = exchange if n > 1 else 0.0
            line += [f"{share:.2f}", f"{exchange:.2f}", f"{share + exchange:.2f}"]
            line += [f"{several[0]['bytes'] / 1e3:.0f}"]
        yield [*map(str, line), *["-"] * (len(HEAD) - len(line))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 128, 512])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each round")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        hidden, seconds, *batch = args.worker
        if batch:
            alone(int(hidden), float(seconds), int(batch[0]))
        else:
            work(int(hidden), float(seconds))
        return
    print(f"batch {BATCH}, {T} steps, float32, SGD")
    for line in (HEAD, ["---"] * len(HEAD)):
        print("|", " | ".join(line), "|")
    for hidden in args.hidden:
        ranks = sorted({1, *args.ranks})
        for line in rows(hidden, measured(hidden, ranks, args.rounds, args.seconds)):
            print("|", " | ".join(line), "|", flush=True)


if __name__ == "__main__":
    main()
