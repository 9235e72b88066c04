# SPDX-License-Identifier: BSD-3-Clause
"""``python -m bench``: check every case against PyTorch, then time it."""

import argparse
import datetime
import json
import statistics
import sys
from pathlib import Path

import torch
from tqdm import tqdm

import fastrnn
from bench import cases, charmodel, layers, machine, report, timing

ROUNDS = 11
QUICK_ROUNDS = 3
FORMAT = 1


def measure(case, dtype, rounds):
    """Check one case and time it; a dict of plain values for the JSON file.

    The ratio is the median over rounds of PyTorch's time by ours in the same round.
    """
    sides = layers.pair(case, dtype)
    results = {name: side.results() for name, side in sides.items()}
    error = layers.check(results["fastrnn"], results["torch"], dtype, case.id)
    record = {
        "id": case.id,
        "cell": case.cell,
        "pass": case.direction,
        **case.shape._asdict(),
        "flops": case.flops,
        "error": error,
    }
    if rounds:
        times = timing.interleave({k: side.run for k, side in sides.items()}, rounds)
        for name, seconds in times.items():
            record[f"{name}_ms"] = timing.quartiles([1e3 * s for s in seconds])
            median = statistics.median(seconds)
            record[f"{name}_gflops"] = case.flops / median / 1e9
        pairs = zip(times["torch"], times["fastrnn"], strict=True)
        record["ratio"] = timing.quartiles([theirs / ours for theirs, ours in pairs])
    return record


def run(todo, dtype, n_threads, rounds, with_charmodel, log):
    """Measure a list of cases; returns the whole result as plain values.

    The FMA peak is measured before, between and after the cases, and the highest figure
    counts: a share of peak then never profits from a slow moment.
    """
    before = fastrnn.get_num_threads(), torch.get_num_threads()
    fastrnn.set_num_threads(n_threads)
    torch.set_num_threads(n_threads)
    try:
        peak = machine.fma_peak(dtype, n_threads)
        records = []
        for case in tqdm(todo, desc="bench", unit="case", disable=None, leave=False):
            records.append(measure(case, dtype, rounds))
            peak = max(peak, machine.fma_peak(dtype, n_threads))
            log(report.case_line(records[-1], peak))
        result = {
            "format": FORMAT,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": machine.describe(),
            "settings": {
                "dtype": dtype,
                "threads": n_threads,
                "rounds": rounds,
                "pause_s": timing.PAUSE,
                "block_s": timing.BLOCK,
                "seed": layers.SEED,
            },
            "peak_gflops": peak,
            "cases": records,
        }
        if with_charmodel:
            result["charmodel"] = charmodel.measure(rounds)
            log(charmodel.line(result["charmodel"]))
    finally:
        fastrnn.set_num_threads(before[0])
        torch.set_num_threads(before[1])
    return result


def _list_of(choices):
    def parse(text):
        names = text.split(",")
        if unknown := sorted(set(names) - set(choices)):
            raise argparse.ArgumentTypeError(
                f"{', '.join(unknown)}: not among {', '.join(choices)}"
            )
        return names

    return parse


def _shapes(text):
    try:
        return [cases.Shape.parse(name) for name in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(text):
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text!r}")
    return int(text)


def parser():
    """The command line."""
    p = argparse.ArgumentParser("python -m bench", description=__doc__)
    p.add_argument("--quick", action="store_true", help="few shapes, few rounds")
    p.add_argument("--check", action="store_true", help="compare results, time nothing")
    p.add_argument("--cells", type=_list_of(cases.CELLS), help="such as lstm,gru")
    p.add_argument("--passes", type=_list_of(cases.PASSES), help="forward,train")
    p.add_argument("--shapes", type=_shapes, help="such as T100-B64-I512-H512,...")
    p.add_argument("--threads", type=_positive, help="threads on both sides")
    p.add_argument("--dtype", choices=tuple(layers.TOLERANCE), default="float32")
    p.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    p.add_argument("--table", action="store_true", help="print the README's tables")
    return p


def main(arguments=None):
    """Run the command line; returns the exit status."""
    options = parser().parse_args(arguments)
    shapes = cases.QUICK_SHAPES if options.quick else cases.SHAPES
    if options.check:
        shapes = cases.CHECK_SHAPES
    todo = cases.cases(
        cells=options.cells or cases.CELLS,
        directions=options.passes or cases.PASSES,
        shapes=options.shapes or shapes,
    )
    is_whole_grid = not (options.cells or options.passes or options.shapes)
    result = run(
        todo,
        options.dtype,
        options.threads or fastrnn.get_num_threads(),
        0 if options.check else QUICK_ROUNDS if options.quick else ROUNDS,
        with_charmodel=is_whole_grid and options.dtype == "float32",
        # With --table, standard output holds the table and nothing else.
        log=lambda text: tqdm.write(
            text, file=sys.stderr if options.table else sys.stdout
        ),
    )
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if not options.check:
        print(report.tables(result) if options.table else report.summary(result))
    return 0
