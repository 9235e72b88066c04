# SPDX-License-Identifier: BSD-3-Clause
"""Calls with drawn arguments, and memory that tells when something outside was written.

`Fuzz.call` makes a call of which some arguments may have been spoilt: sizes that are
off by one, negative or wrap around, arrays that are too short, of another type or
nowhere, objects of another call.  A call has to return or to raise one of `ALLOWED`,
and to leave the bytes around every array as they were.  `native_calls` says which calls
there are.
"""

import collections
import random

import numpy as np

ALLOWED = (ValueError, TypeError, OverflowError, MemoryError)
GUARD = 64  # bytes before and after an array
PATTERN = 0xA5
WILD = (0, -1, -7, 2**31 - 1, 2**31, 2**32, 2**40, 2**61, 2**62, 2**63 - 1, -(2**63))
_MOST = 10**6  # elements of an array
_OTHER_TYPES = {"f": "d", "d": "f", "q": "i", "B": "f", "b": "f", "H": "f"}


def _kind_of(array):
    """The letter of an array's type; int64 has two, of which some systems use one."""
    kind = "q" if array.dtype == np.int64 else array.dtype.char
    return kind if kind in _OTHER_TYPES else "f"


class Tensor:
    """A NumPy array as `_views` asks for tensors of other libraries."""

    def __init__(self, array, is_cpu=True):
        self.array, self.is_cpu = array, is_cpu
        self.shape, self.dtype = array.shape, array.dtype
        self._address = array.ctypes.data if array.size else 0

    def data_ptr(self):
        return self._address

    def stride(self):
        return tuple(n // self.array.itemsize for n in self.array.strides)


class Fuzz:
    """What is drawn, called and counted.

    Parameters
    ----------
    seed : int
    guarded : bool
        Put a pattern around arrays, and look at it after each call. Without, arrays are
        exactly as large as they have to be, so that the address sanitizer sees the
        first byte that is read outside.

    Attributes
    ----------
    results, exceptions : Counter
        Calls that returned and that raised, by name.
    """

    def __init__(self, seed, guarded=True):
        self.random, self.guarded = random.Random(seed), guarded
        self.results, self.exceptions = collections.Counter(), collections.Counter()
        self.raised = collections.Counter()
        self._guards, self._seen = [], {}

    @property
    def n_calls(self):
        return self.results.total() + self.exceptions.total()

    # -- drawing ----------------------------------------------------------------------

    def chance(self, p):
        return self.random.random() < p

    def size(self, most=9):
        """A size of an array: small, and now and then more than a vector."""
        if self.chance(0.08):
            return self.random.choice((15, 16, 17, 33, 70))
        return self.random.randint(1, most)

    def room(self, n_bytes):
        """Bytes whose surroundings are looked at after the next call."""
        if not self.guarded:
            return np.empty(n_bytes, np.uint8)
        whole = np.full(n_bytes + 2 * GUARD + 64, PATTERN, np.uint8)
        begin = GUARD + -(whole.ctypes.data + GUARD) % 64
        self._guards.append((whole, begin, begin + n_bytes))
        return whole[begin : begin + n_bytes]

    def array(self, shape, kind="f", fill="normal"):
        """An array of the kernels' type `kind`; `fill` is "nan", "normal" or a number.

        Integers are what `fill` says, a number or all values in turn.
        """
        n = int(np.prod(shape))
        result = self.room(n * np.dtype(kind).itemsize).view(kind)
        if isinstance(fill, str) and fill == "nan":
            fill = np.nan
        elif isinstance(fill, str):
            # The same numbers, not zero, turned round: drawing them takes longer.
            fill = _NORMAL[self.random.randint(0, 40) :]
        result[...] = np.resize(fill, n)
        return result.reshape(shape)

    # -- spoiling ---------------------------------------------------------------------

    def spoilt(self, value):
        """Something else in place of an argument."""
        if isinstance(value, (bool, np.bool_)):
            return self.random.choice((not value, None, 3))
        if isinstance(value, int):
            near = (value - 1, value + 1, 2 * value)
            return self.random.choice((*near, *near, *WILD))
        if isinstance(value, float):
            return self.random.choice((-1.0, 2.0, float("nan"), float("inf"), None))
        if isinstance(value, np.ndarray):
            return self._spoilt_array(value)
        if isinstance(value, Tensor):
            return self._spoilt_tensor(value)
        if isinstance(value, (list, tuple)):
            return self._spoilt_list(value)
        if isinstance(value, str):
            return self.random.choice(("", "lstm", "x", None))
        if value is None:
            other = self.array(self.size(), self.random.choice("fdl"), 1)
            return self.random.choice((0, other, Tensor(other)))
        others = self._seen.get(type(value), [value])
        return self.random.choice((None, 1, *others))

    def _spoilt_array(self, array):
        kind = _kind_of(array)
        n, how = array.size, self.random.randint(0, 9)
        if how == 0:
            return None
        if how == 1:
            return self.array(array.shape, _OTHER_TYPES[kind], 1)
        if how == 2:
            array = array.view()
            array.flags.writeable = False
            return array
        if how == 3:
            return self.array(2 * n, kind, 1)[::2]
        if how == 4:  # not at a multiple of its elements' size
            bytes_ = bytearray(array.itemsize * n + 1)
            return memoryview(bytes_)[1:].cast(kind)
        if how == 5 and kind == "q" and n:
            array = self.array(array.shape, kind, array.ravel())
            array.flat[self.random.randrange(n)] = self.random.choice(WILD)
            return array
        if how == 6:
            return array.tolist()
        sizes = (n - 1, n + 1, 0, n // 2, 2 * n, n - 1, n + 1)
        return self.array(max(0, self.random.choice(sizes)), kind, 1)

    def _spoilt_tensor(self, tensor):
        array, how = tensor.array, self.random.randint(0, 9)
        if how == 0 or array.size > _MOST:  # a view: what is like it would be large
            return None
        if how == 1:
            return Tensor(self.array(array.shape, _OTHER_TYPES[_kind_of(array)], 1))
        if how == 2:
            return Tensor(array, is_cpu=False)
        if how == 3:
            return Tensor(array[::-1])
        if how == 4:
            return Tensor(array.T)
        if how == 5:
            return Tensor(np.broadcast_to(array[:1], (2**20, *array.shape)))
        if how == 6:
            bytes_ = self.array(array.nbytes + 1, "B", 0)
            return Tensor(bytes_[1:].view(array.dtype).reshape(array.shape))
        shape = list(array.shape)
        at = self.random.randrange(len(shape))
        shape[at] = max(0, shape[at] + self.random.choice((-1, 1, 2)))
        return Tensor(self.array(shape, array.dtype.char, 1))

    def _spoilt_list(self, values):
        how = self.random.randint(0, 3)
        if how == 0:
            return None
        values = list(values)
        if how == 1 and values:
            values.pop()
        elif how == 2:
            values.append(values[-1] if values else None)
        elif values:
            at = self.random.randrange(len(values))
            values[at] = self.spoilt(values[at])
        return values

    # -- calling ----------------------------------------------------------------------

    def call(self, name, function, *args, p=0.5, **options):
        """The call as it should be, or, with probability `p`, with spoilt arguments.

        Returns
        -------
        returned : bool
        result
        """
        args, names = list(args), [*range(len(args)), *options]
        spoil = bool(names) and self.chance(p)
        for _ in range(self.random.choice((1, 1, 1, 2)) if spoil else 0):
            at = self.random.choice(names)
            where = options if isinstance(at, str) else args
            where[at] = self.spoilt(where[at])
        try:
            result = function(*args, **options)
        except ALLOWED as error:
            if not spoil:
                raise AssertionError(f"{name}: refused what should fit") from error
            self.exceptions[name] += 1
            self.raised[type(error).__name__] += 1
            self.look(name)
            return False, None
        self.results[name] += 1
        self.look(name)
        return not spoil, result

    def make(self, name, function, *args, **options):
        """What a call gives as it should be; now and then a spoilt one goes before."""
        if self.chance(0.6):
            _, result = self.call(name, function, *args, p=1.0, **options)
            self._keep(result)
        return self._keep(self.call(name, function, *args, p=0.0, **options)[1])

    def _keep(self, value):
        """Others may get it instead of theirs."""
        if value is not None:
            seen = self._seen.setdefault(type(value), collections.deque(maxlen=6))
            seen.append(value)
        return value

    def look(self, name):
        """Whether all is as it was around every array."""
        for whole, begin, end in self._guards:
            before, after = whole[begin - GUARD : begin], whole[end : end + GUARD]
            if not ((before == PATTERN).all() and (after == PATTERN).all()):
                raise AssertionError(f"{name} wrote outside an array")

    def written(self, name, returned, *arrays):
        """After a call as it should be, no element of these is what it was: NaN."""
        for array in arrays:
            if returned and np.isnan(array).any():
                raise AssertionError(f"{name} left elements that it should write")

    def forget(self):
        """Arrays go; what was seen may keep some of them."""
        self._guards.clear()


_NORMAL = np.random.default_rng(0).normal(scale=0.05, size=997)
