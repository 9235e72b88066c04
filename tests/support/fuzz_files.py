# SPDX-License-Identifier: BSD-3-Clause
"""Files that a fuzzer makes, guided by which lines of the package they reach.

``python tests/support/fuzz_files.py --format onnx --seconds 60`` needs Atheris, which
the extra `fuzz` brings; `damaged_files` has the formats, what writes the first files,
and the rules: a file is read, or refused by a ValueError that names it, in ten times
its size and 64 MiB of memory. The fuzzer ends at the first file that breaks them, and
writes it into the folder that it is run in; ``--file crash-...`` reads that one alone.

Where contents have checksums, every other file gets right ones: a fuzzer cannot guess
them, and what lies behind them would not be reached.
"""

import argparse
import importlib
import json
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

import atheris
import safetensors

with atheris.instrument_imports(include=["fastrnn"], enable_loader_override=False):
    import damaged_files

    for name in ("fastrnn.keras", "fastrnn.onnx"):  # else imported when first used
        importlib.import_module(name)

SEEDS = 40  # damaged copies that the fuzzer begins with, beside the whole file
RIGHT, AS_IT_IS = b"\1", b"\0"  # the first byte: whether to make checksums right


def with_checksums(data, path):
    """Write a file's bytes, its checksums made right; False where it has none."""
    try:
        if data[:2] == b"PK":
            _write_zip(data, path)
        else:
            path.write_bytes(data)
            damaged_files.packed(path, *damaged_files.unpacked(path))
    except (
        *(ArithmeticError, AttributeError, LookupError, MemoryError, OSError),
        *(RuntimeError, TypeError, ValueError),
        *(safetensors.SafetensorError, zipfile.BadZipFile, json.JSONDecodeError),
    ):
        return False
    return True


def _write_zip(data, path):
    """The members of a stored archive, as far as local headers can be found."""
    with zipfile.ZipFile(path, "w") as archive:
        at = data.find(b"PK\3\4")
        while at >= 0:
            end = data.find(b"PK\3\4", at + 4)
            last = data.find(b"PK\1\2", at + 4)
            stop = min(k for k in (end, last, len(data)) if k >= 0)
            n, extra = (int.from_bytes(data[at + k :][:2], "little") for k in (26, 28))
            name = data[at + 30 : at + 30 + n].decode("latin-1")
            body = data[at + 30 + n + extra : stop]
            archive.writestr(zipfile.ZipInfo(name or "x"), body)
            at = end


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--format", choices=damaged_files.FORMATS, required=True)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--file", type=Path, help="read this one and end")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    write, read = damaged_files.FORMATS[given.format]
    folder = Path(tempfile.mkdtemp())
    whole, path = folder / "whole", folder / "file"
    write(whole)
    read(whole)  # what is imported late is imported before memory is limited

    def one(data):
        if data[:1] != RIGHT or not with_checksums(data[1:], path):
            path.write_bytes(data[1:])
        damaged_files.is_refused(read, path)

    if given.file:
        one(given.file.read_bytes())
        return
    corpus = folder / "corpus"
    corpus.mkdir()
    for number in range(SEEDS):
        damaged_files.write_damaged(number, given.format, whole, path)
        (corpus / f"{number}").write_bytes(AS_IT_IS + path.read_bytes())
    for name, first in (("right", RIGHT), ("as it is", AS_IT_IS)):
        (corpus / name).write_bytes(first + whole.read_bytes())
    options = {
        "max_total_time": given.seconds,
        "seed": given.seed,
        "timeout": 3 * damaged_files.SECONDS,  # by the clock of a busy machine
        "rss_limit_mb": 0,  # each file has its own limit
        "len_control": 0,  # no shorter than the files that it begins with
        "max_len": 4 * whole.stat().st_size + 1,
        "print_final_stats": 1,
    }
    atheris.Setup(
        [sys.argv[0], *(f"-{k}={v}" for k, v in options.items()), str(corpus)], one
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
