# SPDX-License-Identifier: BSD-3-Clause
"""Calls of everything public with drawn arguments: results or clear errors.

``python tests/support/argument_fuzz.py --cases 1000000 [--seed 0] [--all]`` calls what
`fastrnn` and its public modules have, and then some methods of what came of it. Which
arguments there are, signatures say, and annotations what may fit, so a new function is
called without being listed here. Some arguments are drawn from `ODD`, without regard
to what they should be. ``--cases 1 --first N`` makes case N alone; ``--all`` goes on
after a fault, and shows one of each kind at the end.

A call returns, or raises one of `ALLOWED` with a message; it changes no array that it
is given, unless its name ends in an underscore, and neither the number of threads nor
NumPy's ways with errors.
"""

import argparse
import collections
import contextlib
import datetime
import decimal
import fractions
import inspect
import io
import os
import random
import resource
import signal
import sys
import tempfile
import time
import types
import warnings
from pathlib import Path

import numpy as np

import fastrnn

MODULES = (
    fastrnn,
    fastrnn.callbacks,
    fastrnn.init,
    fastrnn.metrics,
    fastrnn.objectives,
    fastrnn.schedules,
)
# FloatingPointError: training diverged. ImportError: no matplotlib to draw with.
ALLOWED = (
    *(ValueError, TypeError, RuntimeError, MemoryError, OSError),
    *(FloatingPointError, ImportError),
)
SECONDS = 3  # for a call: longer ones were asked to do much, and are ended
ROOM = 2 << 30  # bytes that a call may ask for: more is not there
SHARE_OF_ODD = 0.12  # of the arguments

# What sets the number of threads.
SETTERS = {"set_num_threads", "set_seed"}

# Whose methods `fit` calls, with what it has checked; users define and make them.
PARTS_OF_FIT = (fastrnn.callbacks.Callback, fastrnn.objectives.Loss)
PARTS_OF_FIT += (fastrnn.metrics.Metric, fastrnn.callbacks.History)
# What this package returns and nobody else makes.
RESULTS = (fastrnn.Diagnosis, fastrnn.Generated, fastrnn.Window)


class TooLong(BaseException):
    """A call was ended by the clock."""


class Subclass(np.ndarray):
    """An array of a class of the caller's own."""


class Lying:
    """What says that it is an array, and is none."""

    shape, dtype, ndim, size = (2, 3), np.dtype("f"), 2, 6

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("not now")


def unaligned(array):
    raw = np.zeros(array.nbytes + 1, np.uint8)[1:]
    found = raw.view(array.dtype).reshape(array.shape)
    found[...] = array
    return found


def read_only(array):
    array.flags.writeable = False
    return array


# Values without regard to what is asked for; each is made anew.
ODD = [
    lambda: None, lambda: True, lambda: -1, lambda: 0, lambda: 2**31, lambda: 2**63,
    lambda: 2**64, lambda: 10**30, lambda: -(2**63), lambda: 0.5, lambda: float("nan"),
    lambda: float("inf"), lambda: -float("inf"), lambda: 1e308, lambda: -0.0,
    lambda: 1j, lambda: "", lambda: "x", lambda: "é\0\n", lambda: "a" * 3000,
    lambda: b"x", list, dict, tuple, set, object, lambda: [None], lambda: [[1], [1, 2]],
    lambda: {"x": 1}, lambda: range(3), lambda: (k for k in range(3)),
    lambda: lambda *a, **k: None, lambda: int, lambda: types, lambda: np.float32("nan"),
    lambda: np.int64(3), lambda: np.bool_(True), lambda: np.str_("x"), lambda: Ellipsis,
    lambda: fractions.Fraction(1, 3), lambda: decimal.Decimal("0.1"),
    lambda: datetime.date(2020, 1, 1), lambda: slice(None), lambda: Lying(),
    lambda: memoryview(b"abcd"), lambda: Path("none") / "none",
    lambda: np.zeros((0,)), lambda: np.zeros((2, 0, 3)), lambda: np.array(1.5),
    lambda: np.full((2, 3, 4), np.nan, "f"), lambda: np.full((2, 3, 4), 1e38, "f"),
    lambda: np.zeros((2, 3, 4), complex), lambda: np.full((2, 3), None),
    lambda: np.array(["a", "b"]), lambda: np.zeros(3, "datetime64[s]"),
    lambda: np.zeros(2, [("a", "f4")]), lambda: np.ones((2, 3, 4), bool),
    lambda: np.broadcast_to(np.float32(1), (2**20, 2**20)),
    lambda: np.ma.masked_array([1.0, 2.0], [True, False]),
    lambda: np.ones((1,) * 30), lambda: np.full((2, 3), 2**63, np.uint64),
    lambda: np.full((2, 3), -1), lambda: np.arange(6, dtype=np.longdouble),
]  # fmt: skip

# Ways in which the same numbers may lie in memory.
LAYOUTS = [
    lambda a: a,
    lambda a: a,
    lambda a: a.astype("f8"),
    np.asfortranarray,
    lambda a: np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a,
    lambda a: a[::-1] if a.ndim else a,
    lambda a: a.astype(a.dtype.newbyteorder(">")),
    lambda a: a.view(Subclass),
    lambda a: a.tolist(),
    unaligned,
    read_only,
]
WORDS = [
    *("tanh", "relu", "sigmoid", "mse", "adam", "accuracy", "sum", "mean", "concat"),
    *("float32", "float64", "auto", "min", "valid", "same", "causal", "residual"),
    *("sparse_categorical_crossentropy", "loss", "keras", "torch", "pre", "post"),
    *("glorot_uniform", "orthogonal", "zeros", "highway", "none", "binary", "macro"),
]


def small_model():
    model = fastrnn.Sequential(
        fastrnn.GRU(4, 3, seed=1), fastrnn.Dropout(0.1, seed=2), fastrnn.Linear(3, 2)
    )
    model.compile("mse", "sgd")
    return model


class Fuzz:
    """Draws arguments, makes calls, and judges them.

    Parameters
    ----------
    folder : path-like
        Where paths lead to.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.count = collections.Counter()
        self.things = {
            f"{module.__name__}.{name}": thing
            for module in MODULES
            for name in getattr(module, "__all__", None) or dir(module)
            if not name.startswith("_")
            and callable(thing := getattr(module, name))
            and getattr(thing, "__module__", "").startswith("fastrnn")
            and thing not in RESULTS
        }
        self.names = sorted(self.things)

    # -- arguments ---------------------------------------------------------------------

    def array(self, text):
        rank = self.random.choice((1, 2, 2, 3, 3, 3))
        shape = [self.random.choice((2, 3, 4)) for _ in range(rank)]
        if self.random.random() < 0.5:
            shape = {1: [4], 2: [2, 4], 3: [2, 3, 4]}[rank]
        numbers = np.random.default_rng(self.random.getrandbits(32))
        if "int" in text or self.random.random() < 0.2:
            made = numbers.integers(0, 3, shape)
        elif "bool" in text or self.random.random() < 0.1:
            return numbers.random(shape) < 0.5
        else:
            made = numbers.standard_normal(shape).astype("f")
        return self.random.choice(LAYOUTS)(made)

    def fitting(self, name, text):
        """A value that an annotation allows, as far as it can be told from its text."""
        options = []
        if "Array" in text or "Mask" in text or "State" in text or "Data" in text:
            options += [lambda: self.array(text)] * 3
        if "Literal[" in text:
            words = text.partition("Literal[")[2].partition("]")[0].split(", ")
            options.append(lambda: self.random.choice(words).strip("'\""))
        if "bool" in text:
            options.append(lambda: self.random.random() < 0.5)
        if "int" in text or "Seed" in text:
            options.append(lambda: self.random.choice((1, 2, 3, 4, 4)))
        if "float" in text:
            options.append(lambda: self.random.choice((0.0, 0.1, 0.5, 1.0, 2)))
        if "Path" in text:
            options.append(lambda: self.folder / self.random.choice("abc"))
        if "str" in text or "Like" in text or "Init" in text:
            options.append(lambda: self.random.choice(WORDS))
        if "Module" in text or "Model" in text or "Layer" in text:
            options.append(small_model)
            options.append(lambda: fastrnn.GRU(4, 3, seed=1))
        if "Callable" in text:
            options.append(lambda: lambda *arguments: arguments[0])
        if "Sequence" in text or "Iterable" in text or "list" in text:
            options.append(lambda: [self.value(name, "int float str")] * 2)
            options.append(lambda: self.array(text))
        if "Mapping" in text or "dict" in text:
            options.append(lambda: {0: 1.0, 1: 2.0})
        if "Optimizer" in text:
            options.append(lambda: fastrnn.Adam(0.01))
        if "Generator" in text:
            options.append(lambda: np.random.default_rng(1))
        if not options:
            options = [lambda: self.array(""), lambda: self.random.choice((1, 2, 4))]
        return self.random.choice(options)()

    def value(self, name, text):
        if self.random.random() < SHARE_OF_ODD:
            return self.random.choice(ODD)()
        return self.fitting(name, text)

    def arguments(self, signature):
        """Positional and named arguments for a signature."""
        given, named = [], {}
        skipped = False
        for parameter in signature.parameters.values():
            text = str(parameter.annotation)
            kind = parameter.kind
            if kind is parameter.VAR_POSITIONAL:
                if not skipped:
                    n = self.random.randrange(3)
                    given += [self.value(parameter.name, text) for _ in range(n)]
                continue
            if kind is parameter.VAR_KEYWORD:
                continue
            has_default = parameter.default is not parameter.empty
            if self.random.random() < (0.7 if has_default else 0.02):
                skipped = True
                continue
            value = self.value(parameter.name, text)
            if kind is parameter.POSITIONAL_ONLY or (
                kind is parameter.POSITIONAL_OR_KEYWORD
                and not skipped
                and self.random.random() < 0.7
            ):
                given.append(value)
            else:
                skipped = True
                named[parameter.name] = value
        return given, named

    # -- calls -------------------------------------------------------------------------

    def call(self, name, thing):
        """One call; what it returned, or None."""
        try:
            signature = inspect.signature(thing)
        except ValueError:  # of a type written in C
            return None
        given, named = self.arguments(signature)
        self.shown = f"{name}({', '.join(shown(given, named))})"
        arrays = [a for a in [*given, *named.values()] if type(a) is np.ndarray]
        arrays = [(a, a.copy()) for a in arrays if a.nbytes < 10**6]
        threads, errors = fastrnn.get_num_threads(), np.geterr()
        short = name.rpartition(".")[2]
        try:
            result = thing(*given, **named)
            self.count["results"] += 1
        except ALLOWED as error:
            self.count[type(error).__name__] += 1
            if not (str(error) or isinstance(error, MemoryError)):
                raise AssertionError(f"{error!r} without a message") from error
            result = None
        if not short.endswith("_") and short not in SETTERS:
            for array, before in arrays:
                np.testing.assert_array_equal(array, before)
        if short in SETTERS:
            fastrnn.set_num_threads(1)
        else:
            assert fastrnn.get_num_threads() == threads
        assert np.geterr() == errors
        return result

    def case(self, number, seed):
        """A call of something public, and of methods of what it returns."""
        self.random = random.Random(f"{seed} {number}")
        name = self.random.choice(self.names)
        made = self.call(name, self.things[name])
        own = type(made).__module__.startswith("fastrnn")
        if not own or isinstance(made, PARTS_OF_FIT) or self.random.random() < 0.3:
            return
        methods = [
            method
            for method in dir(type(made))
            if method[0] != "_"
            and inspect.isfunction(getattr(type(made), method, None))
        ]
        for _ in range(self.random.randrange(4) if methods else 0):
            method = self.random.choice([*methods, "__call__"])
            if hasattr(made, method):
                self.call(f"{type(made).__name__}.{method}", getattr(made, method))


def shown(given, named):
    """Arguments as an error message has them."""
    for name, value in [*((None, v) for v in given), *named.items()]:
        if isinstance(value, np.ndarray):
            text = f"<{type(value).__name__} {value.dtype} {value.shape}>"
        else:
            try:
                text = repr(value)[:80]
            except Exception as error:
                text = f"<{type(value).__name__}: {error!r}>"
        yield text if name is None else f"{name}={text}"


@contextlib.contextmanager
def limits():
    """Memory and time for a call; nothing it prints is shown."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(
        resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, hard)
    )
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def too_long(*_):
    raise TooLong


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all", action="store_true")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    fastrnn.set_num_threads(1)
    signal.signal(signal.SIGALRM, too_long)
    stop, faults = time.monotonic() + asked.seconds, {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        fuzz, number = Fuzz(folder), asked.first
        while number < asked.first + asked.cases and time.monotonic() < stop:
            try:
                with limits():
                    fuzz.case(number, asked.seed)
            except TooLong:
                fuzz.count["ended by the clock"] += 1
            except Exception as error:
                print(f"case {number}: {fuzz.shown}: {error!r:.300}", flush=True)
                if not asked.all:
                    raise
                trace = error.__traceback__
                while trace.tb_next:
                    trace = trace.tb_next
                code = trace.tb_frame.f_code
                place = f"{Path(code.co_filename).name}:{trace.tb_lineno}"
                faults.setdefault((type(error).__name__, place), fuzz.shown)
            number += 1
        os.chdir("/")
    for (kind, place), call in faults.items():
        print(f"{kind} at {place}: {call}")
    total = ", ".join(f"{n} {what}" for what, n in fuzz.count.most_common())
    print(f"{number - asked.first} cases, {len(fuzz.names)} public names: {total}")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
