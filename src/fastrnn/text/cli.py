# SPDX-License-Identifier: BSD-3-Clause
"""The command line: ``fastrnn train``, ``generate`` and ``info``."""

import argparse
import contextlib
import errno
import io
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import fields

from fastrnn.distributed.launch import launched
from fastrnn.native.config import VERSION, show_config
from fastrnn.native.threads import get_num_threads, set_num_threads
from fastrnn.text import checkpoint, streams, team
from fastrnn.text.model import CELLS
from fastrnn.text.settings import Settings
from fastrnn.text.training import Trainer, train
from fastrnn.train.progress import Reporter
from fastrnn.util.printable import printable
from fastrnn.util.writing import Claim

DEFAULT_OUT = "charmodel.safetensors"

# Defaults of the model's shape; those of training are `Settings`' own.
_SHAPE = {
    "cell": "lstm",
    "hidden_size": 256,
    "num_layers": 1,
    "compute": "float32",
}

_ERROR, _INTERRUPTED = 2, 130


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message):
        _print_error(message)
        sys.exit(_ERROR)


def _print_error(message):
    # What is in a file, or its name, may be part of it: nothing of that may act.
    print(f"fastrnn: error: {printable(str(message))}", file=sys.stderr)


def _number(kind, fits, rule):
    """An argparse type: a number that `fits`, or an error that states the rule."""

    def parse(given):
        try:
            value = kind(given)
        except ValueError:
            value = None
        if value is None or not fits(value):
            raise argparse.ArgumentTypeError(f"must be {rule}, got {given!r}")
        return value

    return parse


_positive_int = _number(int, lambda n: n >= 1, "a positive integer")
_count = _number(int, lambda n: n >= 0, "an integer of at least 0")
_positive = _number(float, lambda x: 0 < x < math.inf, "a positive number")
_temperature = _number(
    float,
    lambda x: 0 <= x < math.inf,
    "a number of at least 0 (0 takes the likeliest character every time)",
)


def _parser():
    parser = _Parser(
        prog="fastrnn",
        description="Recurrent networks on the CPU: a model of text in one command.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fastrnn {VERSION}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_train(commands)
    _add_generate(commands)
    _add_info(commands)
    return parser


def _command(commands, name, run, help_text, description):
    parser = commands.add_parser(
        name, help=help_text, description=description, allow_abbrev=False
    )
    parser.set_defaults(run=run)
    return parser


def _add_train(commands):
    parser = _command(
        commands,
        "train",
        _train,
        "train a character model on a text",
        "Train a character model on a text, its last tenth held out. The checkpoint is "
        "whole at any moment; a run that was stopped goes on with --resume, with the "
        "numbers of one that was not. Processes that mpiexec starts train one model "
        "together (needs mpi4py).",
    )
    default = {field.name: field.default for field in fields(Settings)}

    # Without a default here, so that --resume can tell what was asked for.
    def add(name, kind, help_text, **rest):
        shown = {**_SHAPE, **default}.get(name.lstrip("-").replace("-", "_"))
        shown = "" if shown is None else f" (default: {shown})"
        parser.add_argument(name, type=kind, help=f"{help_text}{shown}", **rest)

    add(
        "--text",
        str,
        "UTF-8 text to learn (default: Python's help topics, about 380,000 characters)",
        metavar="FILE",
    )
    add("--cell", str, "kind of recurrent layer", choices=tuple(CELLS))
    add("--hidden-size", _positive_int, "units of each layer", metavar="N")
    add("--num-layers", _positive_int, "recurrent layers", metavar="N")
    add(
        "--compute",
        str,
        "what numbers are multiplied as; sums and weights stay float32",
        choices=("float32", "bfloat16", "bfloat16-fast"),
    )
    add("--seq-length", _positive_int, "steps gradients go back through", metavar="N")
    add("--batch-size", _positive_int, "streams the text is cut into", metavar="N")
    add("--epochs", _positive_int, "passes over the text", metavar="N")
    add("--lr", _positive, "Adam's learning rate, falling to 0", metavar="RATE")
    add("--clip-norm", _positive, "largest norm of the gradients", metavar="NORM")
    add("--threads", _positive_int, "threads (default: all CPUs allowed)", metavar="N")
    add("--seed", _count, "for initial weights and samples", metavar="N")
    parser.add_argument(
        "--out",
        default=DEFAULT_OUT,
        metavar="FILE",
        help=f"checkpoint to write; must not exist (default: {DEFAULT_OUT})",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the checkpoint --out with its text and settings; "
        "only --threads, which changes no number, and --epochs may be new",
    )


def _add_generate(commands):
    parser = _command(
        commands,
        "generate",
        _generate,
        "write text with a trained model",
        "Write text with a trained model, character by character.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument(
        "--prompt", default="", help="text to go on from (default: a line break)"
    )
    parser.add_argument(
        "--length",
        type=_count,
        default=500,
        metavar="N",
        help="characters to write (default: 500)",
    )
    parser.add_argument(
        "--temperature",
        type=_temperature,
        default=0.8,
        metavar="T",
        help="below 1 likelier, above 1 wilder, 0 the likeliest character every time "
        "(default: 0.8)",
    )
    parser.add_argument(
        "--seed", type=_count, metavar="N", help="write the same text every time"
    )


def _add_info(commands):
    parser = _command(
        commands,
        "info",
        _info,
        "show this build, and what a checkpoint holds",
        "Show what this build can do and, given a checkpoint, what it holds.",
    )
    parser.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT")


def _train(args):
    if args.threads is not None:
        set_num_threads(args.threads)
    crew = team.of_this_process()
    with contextlib.ExitStack() as held:
        claims = []

        def prepare():
            claims.append(held.enter_context(_claimed(args)))
            found = _resumed(args) if args.resume else _started(args)
            crew.check(_trainer(args, found).settings)
            return found

        trainer = _trainer(args, crew.from_main(prepare))
        if trainer.step == trainer.total_steps:
            if crew.main:
                print(
                    f"{args.out} has been trained for all of its "
                    f"{trainer.settings.epochs} epochs; a larger --epochs goes on"
                )
            return 0
        with crew.of_run():
            trainer.join(crew)
            if crew.main:
                return _run(args, trainer, claims[0].write)
            try:
                train(trainer, args.out, _Silent())
            except FloatingPointError as error:
                raise team.ElsewhereError from error
            return 0


def _run(args, trainer, write):
    """Train, and show how it gets on."""
    print(_run_description(trainer), flush=True)
    reporter = Reporter(trainer)
    try:
        train(trainer, args.out, reporter, write)
    except FileExistsError as error:
        raise _exists(args) from error
    except KeyboardInterrupt:
        if trainer.team.size > 1:
            raise
        reporter.close()
        print(
            f"stopped after {trainer.epoch:.1f} epochs; {args.out} is at most a "
            "few seconds behind; go on with: fastrnn train --resume --out "
            f"{args.out}",
            file=sys.stderr,
        )
        return _INTERRUPTED
    finally:
        reporter.close()
    bits = trainer.evaluations[-1][2]
    print(
        f"{bits:.3f} bits/char held out after {reporter.elapsed} "
        f"({reporter.speed:,.0f} chars/s); "
        f"try: fastrnn generate {args.out}"
    )
    return 0


class _Silent:
    """The reporter of a process that prints nothing."""

    def window(self, trainer, n_characters):
        """Pass over a window."""

    def evaluation(self, trainer, found):
        """Pass over an evaluation."""


def _claimed(args):
    """The checkpoint, which no other run may write at the same time."""
    try:
        return Claim(args.out, new=not args.resume)
    except FileExistsError as error:
        raise _exists(args) from error


def _exists(args):
    return ValueError(
        f"{args.out}: already exists; go on with it by --resume, or name another "
        "file with --out"
    )


def _trainer(args, found):
    """The trainer of a run, from what `_started` or `_resumed` found in files."""
    words, source, contents = found
    if contents is not None:
        return Trainer.resume(args.out, contents, words, epochs=args.epochs)
    given = {name: value for name, value in vars(args).items() if value is not None}
    shape = {name: given.get(name, value) for name, value in _SHAPE.items()}
    settings = Settings(
        **{f.name: given[f.name] for f in fields(Settings) if f.name in given}
    )
    return Trainer.start(words, settings, source=source, **shape)


def _started(args):
    """The text of a new run, and where it is."""
    if args.text is None:
        return streams.default_text(), None, None
    # Absolute: --resume may be given in another folder.
    return streams.read_text(args.text), os.path.abspath(args.text), None


def _resumed(args):
    """The text of a run that goes on, where it is, and its checkpoint."""
    contents = checkpoint.read(args.out)
    meta = contents[1]
    for name, value in {**meta["model"], **meta["settings"]}.items():
        asked = getattr(args, name, None)
        if name != "epochs" and asked is not None and asked != value:
            raise ValueError(
                f"argument --{name.replace('_', '-')}: must stay {value} to resume "
                f"{args.out}, got {asked}"
            )
    source = meta["text"]["source"]
    if args.text is not None:
        words = streams.read_text(args.text)
    elif source is not None:
        # The file says what to read: no more than the text that it was made from.
        words = streams.read_text(source, meta["text"]["characters"])
    else:
        words = streams.default_text()
    return words, source, contents


def _run_description(trainer):
    model, characters = trainer.model, trainer.text["characters"]
    config, n = model.config, trainer.team.size
    processes = f" in each of {n} processes" if n > 1 else ""
    return (
        f"text: {characters:,} characters, {trainer.n_held_out:,} held out, "
        f"{len(model.vocabulary.characters)} different\n"
        f"model: {config['cell']}, {config['num_layers']} x {config['hidden_size']} "
        f"units, {model.flat_parameters.size:,} parameters; "
        f"{get_num_threads()} threads{processes}"
    )


def _generate(args):
    model = checkpoint.load_model(args.checkpoint)
    try:
        characters = model.generate(
            args.prompt, args.length, args.temperature, args.seed
        )
    except ValueError as error:
        raise ValueError(f"argument --prompt: {error}") from error
    sys.stdout.write(printable(args.prompt, keep="\n\t"))
    for character in characters:
        sys.stdout.write(printable(character, keep="\n\t"))
        sys.stdout.flush()
    sys.stdout.write("\n")
    return 0


def _info(args):
    if args.checkpoint is None:
        show_config()
        return 0
    arrays, meta = checkpoint.read(args.checkpoint)
    model = checkpoint.model_of(args.checkpoint, arrays, meta)
    show_config()
    batch = meta["settings"]
    source = meta["text"]["source"] or "pydoc_data.topics"
    rows = {
        "checkpoint": args.checkpoint,
        "text": f"{source}, {meta['text']['characters']:,} characters",
        "vocabulary": f"{len(model.vocabulary.characters)} characters",
        "model": " ".join(f"{name}={value}" for name, value in model.config.items()),
        "parameters": f"{model.flat_parameters.size:,}",
        "settings": " ".join(f"{name}={value}" for name, value in batch.items()),
        "windows trained": f"{meta['progress']['step']:,}",
    }
    for step, train_bits, held_out_bits in meta["progress"]["evaluations"][-1:]:
        rows["evaluation"] = (
            f"{held_out_bits:.3f} bits/char held out, {train_bits:.3f} in training, "
            f"after window {step:,}"
        )
    print()
    for name, value in rows.items():
        print(f"{name:<15} {printable(value)}")
    return 0


def _is_broken_pipe(error):
    """Whether nobody reads our output any more."""
    if isinstance(error, BrokenPipeError):
        return True
    # What Windows says then, and of no file that has a name.
    return os.name == "nt" and error.errno == errno.EINVAL and error.filename is None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : list of str, optional
        Arguments without the program's name; none print the help. Default: those of
        the process.

    Returns
    -------
    int
        Exit code: 0, 2 after an error of the user's, told in one line on standard
        error, 130 after Ctrl-C.

    Raises
    ------
    SystemExit
        From argparse, after ``--help``, ``--version`` and wrong arguments.

    Examples
    --------
    >>> main(["info"])
    fastrnn ...
    0
    """
    parser = _parser()
    argv = sys.argv[1:] if argv is None else argv
    if not argv:  # somebody has a first look
        parser.print_help()
        return 0
    args = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Generated characters may be more than the terminal's encoding has.
        sys.stdout.reconfigure(errors="replace")
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return _INTERRUPTED
    except OSError as error:
        if _is_broken_pipe(error):
            # Whoever read our output has enough; let the flush at exit find no pipe.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        named = error.filename is not None and error.strerror is not None
        _print_error(f"{error.filename}: {error.strerror}" if named else error)
    except (ValueError, FloatingPointError) as error:
        _print_error(error)
    except (ModuleNotFoundError, RuntimeError) as error:
        if launched() == 1:
            raise
        _print_error(error)
    except team.ElsewhereError:
        pass  # the process that failed has printed why
    except MemoryError as error:
        _print_error(f"not enough memory: {error}")
    return _ERROR
