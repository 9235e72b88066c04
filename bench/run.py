# SPDX-License-Identifier: BSD-3-Clause
"""``python -m bench``: check every case against every peer, then time it."""

import argparse
import datetime
import json
import statistics
import sys
from pathlib import Path

from tqdm import tqdm

import fastrnn
from bench import (
    adapters,
    cases,
    data,
    deepbench,
    machine,
    peers,
    report,
    timing,
    verify,
)
from bench.result import FORMAT, FormatError, best_peer, load

ROUNDS = {
    "standard": 11,
    "summary": 11,
    "one-line": 11,
    "bf16": 5,
    "int8": 7,
    "deepbench": 5,
    "quick": 3,
    "check": 0,
}
SUITES = {
    "standard": cases.standard,
    "summary": cases.summary,
    "one-line": cases.one_line,
    "bf16": cases.bf16,
    "int8": cases.int8,
    "deepbench": deepbench.suite,
    "quick": cases.quick,
    "check": cases.check,
}
# Those of narrow numbers, whose results are compared with the equations in float64.
NARROW = ("bf16", "int8")


def prepare(case, workers, dtype):
    """Make a case in every worker, and compare the results.

    Returns
    -------
    dict
        The case as plain values. ``libraries`` has, by name, the variant and the error
        of each library that may be timed, or the errors beside the equations in float64
        where these are among the workers; ``unsupported`` has, by name, the reason why
        a library cannot run the case.

    Raises
    ------
    ArithmeticError
        If a peer's results differ from fastrnn's, or those of a program that runs on
        fastrnn from those of the program without it, or any from the equations.
    """
    record = case.describe()
    libraries, unsupported, results = {}, {}, {}
    for name, worker in workers.items():
        answer = worker.ask("prepare", case.id)
        if "unsupported" in answer:
            unsupported[name] = answer["unsupported"]
            continue
        results[name] = answer.pop("results")
        libraries[name] = answer
    if adapters.EXACT in unsupported:  # nothing can be verified
        return {**record, "libraries": {}, "unsupported": unsupported}
    exact = results.pop(adapters.EXACT, None)
    libraries.pop(adapters.EXACT, None)
    for name, entry in libraries.items():
        if exact is not None:
            is_narrow = name in adapters.FLOAT32_OF
            entry["errors"] = verify.distances(
                results[name], name, exact, case, is_narrow
            )
        elif name != "fastrnn":
            entry["error"] = verify.compare(
                results[name], name, results["fastrnn"], case, dtype
            )
    for name, plain in adapters.PLAIN_OF.items():
        if name in results and plain in results:
            verify.compare(results[plain], plain, results[name], case, dtype, name)
    return {**record, "libraries": libraries, "unsupported": unsupported}


def measure(record, workers, rounds, block):
    """Time the libraries of a case that `prepare` made; add the figures to `record`.

    A ratio is of two times of the same round; a gain is that of a program without and
    with the line that lets it run on fastrnn, or that of a library's float32 and its
    narrow numbers. Each block of fastrnn is followed at once by a block of FMAs alone,
    which measures the peak.
    """
    libraries = record["libraries"]
    blocks = {name: [] for name in libraries}
    for name in timing.turns(libraries, rounds):
        blocks[name].append(workers[name].ask("time", block))
    times = {name: [b["seconds"] for b in found] for name, found in blocks.items()}
    ours = times["fastrnn"]
    for name, seconds in times.items():
        entry = libraries[name]
        entry["ms"] = timing.quartiles([1e3 * s for s in seconds])
        entry["gflops"] = record["flops"] / statistics.median(seconds) / 1e9
        entry["cores"] = statistics.median(b["cores"] for b in blocks[name])
        if name != "fastrnn":
            pairs = zip(seconds, ours, strict=True)
            entry["ratio"] = timing.quartiles([theirs / mine for theirs, mine in pairs])
        plain = adapters.GAINS.get(name)
        if plain in times:
            pairs = zip(times[plain], seconds, strict=True)
            entry["gain"] = timing.quartiles([before / now for before, now in pairs])
    record["best"] = best_peer(record)
    peak = timing.quartiles([b["peak"] for b in blocks["fastrnn"]])
    record["peak_gflops"] = peak
    record["share"] = libraries["fastrnn"]["gflops"] / peak["median"]


# What all cases of a file have in common, besides the machine.
_ABOUT = ("libraries", "absent", "settings")


def _start(options, workers, absent, todo):
    """The result of a run in which no case has been measured yet."""
    return {
        "format": FORMAT,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "libraries": {name: worker.about for name, worker in workers.items()},
        "absent": absent,
        "settings": {
            "suite": options.suite,
            "dtype": options.dtype,
            "threads": options.threads,
            "rounds": options.rounds,
            "block_s": options.block,
            "seed": data.SEED,
            "cases": len(todo),
        },
        "cases": [],
        "not_reported": [],
    }


def goes_on(before, now):
    """The result `before`, to which the cases of a run that starts `now` are added.

    Raises
    ------
    bench.result.FormatError
        If the two differ in anything that figures depend on: the machine (but for its
        load), the libraries' versions, or the settings.
    """

    def about(result):
        machine = {k: v for k, v in result["machine"].items() if k != "load_average"}
        return {"machine": machine, **{k: result[k] for k in _ABOUT}}

    # As a file has it: with lists in place of tuples.
    was, is_now = about(before), json.loads(json.dumps(about(now)))
    for what in was:
        if was[what] != is_now[what]:
            raise FormatError(
                f"bench: --go-on: {what} must be that of the file, {was[what]}, got "
                f"{is_now[what]}"
            )
    return before


def run(todo, options, log):
    """Measure a list of cases; return the whole result as plain values.

    The result is written to ``options.json`` after every case, so that the cases of a
    long run that fails are not lost.
    """
    with peers.team(
        options.peers, options.threads, options.dtype, dict(options.python)
    ) as (workers, absent):
        for name, reason in absent.items():
            log(f"{adapters.NAMES[name]} is absent: {reason}")
        if not set(workers) - adapters.OWN:
            raise peers.WorkerError(
                "bench: no peer is there, so nothing can be verified: "
                'pip install ".[bench]"'
            )
        result = _start(options, workers, absent, todo)
        if options.go_on and options.json.exists():
            result = goes_on(load(options.json), result)
            done = {record["id"] for record in result["cases"]}
            todo = [case for case in todo if case.id not in done]
        for case in tqdm(todo, desc="bench", unit="case", disable=None, leave=False):
            record = prepare(case, workers, options.dtype)
            verified_by = set(record["libraries"])
            if adapters.EXACT not in workers:
                verified_by -= adapters.OWN
            if not verified_by:
                reasons = record["unsupported"]
                result["not_reported"].append({"id": case.id, "reasons": reasons})
                log(f"{case.id}: not verified by any peer, so not reported: {reasons}")
            else:
                if options.rounds:
                    measure(record, workers, options.rounds, options.block)
                if case.id in options.names:
                    record["published_name"] = options.names[case.id]
                result["cases"].append(record)
                log(report.case_line(record))
            if options.json:
                _write(options.json, result)
    return result


def _write(path, result):
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(result, indent=1) + "\n")
    part.replace(path)


# -- command line ---------------------------------------------------------------------


def _list_of(choices):
    def parse(text):
        names = text.split(",")
        if unknown := sorted(set(names) - set(choices)):
            raise argparse.ArgumentTypeError(
                f"{', '.join(unknown)}: not among {', '.join(choices)}"
            )
        return names

    return parse


def _each(make):
    def parse(text):
        try:
            return [make(name) for name in text.split(",")]
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def _positive(text):
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text!r}")
    return int(text)


def _python(text):
    name, _, path = text.partition("=")
    if name not in adapters.NAMES or not path:
        raise argparse.ArgumentTypeError(
            f"must look like keras=/path/to/python, got {text!r}"
        )
    return name, path


def parser():
    """The command line."""
    p = argparse.ArgumentParser("python -m bench", description=__doc__)
    which = p.add_mutually_exclusive_group()
    which.add_argument(
        "--suite",
        choices=[*SUITES, "cells"],
        default="standard",
        help="which cases (%(default)s)",
    )
    for name, text in (
        ("quick", "a few small cases, three minutes at most"),
        ("check", "compare the results of tiny cases, time nothing"),
    ):
        which.add_argument(
            f"--{name}", dest="suite", action="store_const", const=name, help=text
        )
    which.add_argument(
        "--cases", type=_each(cases.find), metavar="ID,...", help="these cases"
    )
    p.add_argument("--cells", type=_list_of(cases.KNOWN), help="a grid: lstm,gru")
    p.add_argument("--passes", type=_list_of(cases.PASSES), help="a grid: train")
    p.add_argument(
        "--shapes", type=_each(cases.Shape.parse), help="a grid: T100-B64-I512-H512,..."
    )
    p.add_argument(
        "--peers",
        type=_list_of([name for name in adapters.NAMES if name != "fastrnn"]),
        help="against which libraries: torch,jax; keras_torch,keras_torch+fastrnn. "
        f"By default {','.join(adapters.PEERS)}"
        + "".join(f"; in {k}: {','.join(v)}" for k, v in adapters.OF_SUITE.items()),
    )
    p.add_argument(
        "--python",
        type=_python,
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="run a library with another interpreter: keras=/path/to/python",
    )
    p.add_argument("--threads", type=_positive, help="threads of every library")
    p.add_argument("--rounds", type=_positive, help="timed blocks of each")
    p.add_argument("--dtype", choices=tuple(verify.TOLERANCE), default="float32")
    p.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    p.add_argument(
        "--go-on",
        action="store_true",
        help="leave out the cases that FILE has already, and keep those",
    )
    p.add_argument("--table", action="store_true", help="print Markdown tables")
    return p


def _todo(options):
    """The list of cases that the options ask for."""
    if options.cases:
        return options.cases
    if options.suite in NARROW:
        suite = SUITES[options.suite]
        return suite(options.cells, options.passes, options.shapes)
    if options.cells or options.passes or options.shapes:
        return cases.grid(
            options.cells or cases.CELLS,
            options.passes or ("train", "forward"),
            options.shapes or cases.SHAPES,
        )
    todo = SUITES[options.suite]()
    if options.dtype != "float32":  # models are trained in float32
        todo = [case for case in todo if isinstance(case, cases.LayerCase)]
    return todo


def _run_cells(options):
    """The suite whose peers are loops in PyTorch, all in this process."""
    from bench import cells

    shapes = options.shapes or cells.SHAPES
    rounds, block = options.rounds or 5, timing.BLOCK
    threads = options.threads or fastrnn.get_num_threads()
    cells.run(cells.CASES, shapes, ["eager", "script"], rounds, block, threads)
    return 0


def main(arguments=None):
    """Run the command line; returns the exit status."""
    p = parser()
    options = p.parse_args(arguments)
    if options.suite == "cells":
        return _run_cells(options)
    todo = _todo(options)
    if options.peers is None:
        options.peers = list(adapters.OF_SUITE.get(options.suite, adapters.PEERS))
    if options.suite in NARROW or set(options.peers) & set(adapters.FLOAT32_OF):
        if options.dtype != "float32":
            p.error("--dtype must be float32 beside narrower numbers")
        options.peers = [name for name in options.peers if name != adapters.EXACT]
        options.peers.append(adapters.EXACT)
    if not todo:
        p.error("no case: pass step needs a shape with T1")
    if options.go_on and options.json is None:
        p.error("--go-on needs --json FILE")
    options.threads = options.threads or fastrnn.get_num_threads()
    if options.threads > machine.cpus_allowed():
        p.error(
            f"--threads must be at most the CPUs that may be used, "
            f"{machine.cpus_allowed()}, got {options.threads}"
        )
    is_check = options.suite == "check"
    options.rounds = 0 if is_check else options.rounds or ROUNDS[options.suite]
    options.block = timing.BLOCK
    options.names = {}
    if options.suite == "deepbench":
        options.names = {case.id: deepbench.published_name(case) for case in todo}

    def log(text):
        # With --table, standard output holds the tables and nothing else.
        tqdm.write(text, file=sys.stderr if options.table else sys.stdout)

    try:
        result = run(todo, options, log)
    except (peers.WorkerError, ArithmeticError, FormatError) as error:
        print(error, file=sys.stderr)
        return 1
    if not is_check:
        print(report.tables(result) if options.table else report.summary(result))
    return 0
