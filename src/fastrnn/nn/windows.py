# SPDX-License-Identifier: BSD-3-Clause
"""`Windows`: where the windows of a pooling layer or a convolution are."""

import numpy as np

from fastrnn.util import budget

PADDINGS = ("valid", "same", "causal")


class Windows:
    """Windows over an axis of T steps.

    Parameters
    ----------
    who : str
        The layer, for errors.
    T : int
    size : int
        Steps in a window.
    stride : int
        Steps from one window to the next.
    padding : {"valid", "same", "causal"}
        "valid": windows are within the sequence. "same": ``ceil(T / stride)`` windows,
        with what they need beyond the sequence shared between both sides, the larger
        half at the end. "causal": as many, each ending at a step.
    dilation : int
        Steps from one step of a window to its next.

    Attributes
    ----------
    n : int
        How many windows there are.
    length : int
        T, and the steps beyond both ends that windows reach.

    Raises
    ------
    ValueError
        If not one window fits.
    """

    def __init__(self, who, T, size, stride, padding, dilation=1):
        self.T, self.size, self.stride, self.dilation = T, size, stride, dilation
        span = (size - 1) * dilation + 1
        before = after = 0
        if padding == "causal":
            before = span - 1
        elif padding == "same":
            more = max((-(-T // stride) - 1) * stride + span - T, 0)
            before, after = more // 2, more - more // 2
        self.before, self.length = before, T + before + after
        self.n = (self.length - span) // stride + 1
        if T == 0 or self.n < 1:
            raise ValueError(
                f"{who}: x must have as many steps as a window, {span}, got {T}"
            )

    def of(self, x, axis, fill):
        """The windows of `x`, in a new last axis; `fill` is what is beyond it."""
        if self.length > self.T:
            budget.check_data("padding", x.size // self.T * self.length)
            shape = list(x.shape)
            shape[axis] = self.length
            padded = np.full(shape, fill, x.dtype)
            self._inner(padded, axis)[...] = x
            x = padded
        span = (self.size - 1) * self.dilation + 1
        seen = np.lib.stride_tricks.sliding_window_view(x, span, axis)
        seen = seen[..., :: self.dilation]
        return seen[(slice(None),) * axis + (slice(None, None, self.stride),)]

    def _inner(self, padded, axis):
        place = slice(self.before, self.before + self.T)
        return padded[(slice(None),) * axis + (place,)]

    def back(self, axis, parts, into=None):
        """Gradient of `x` from those of the windows' steps.

        Parameters
        ----------
        axis : int
        parts : iterable of ndarray
            For the first step of all windows, for the second, and so on: arrays like
            `x` with n windows in place of T steps.
        into : ndarray, optional
            Memory for it, like `x` with `length` steps, what is beyond both ends of the
            sequence being some of them.

        Returns
        -------
        ndarray
            Like `x`.
        """
        padded = into
        if into is not None:
            into.fill(0)
        for k, part in enumerate(parts):
            if padded is None:
                shape = list(part.shape)
                shape[axis] = self.length
                padded = np.zeros(shape, part.dtype)
            first = k * self.dilation
            stop = first + (self.n - 1) * self.stride + 1
            place = slice(first, stop, self.stride)
            padded[(slice(None),) * axis + (place,)] += part
        return np.ascontiguousarray(self._inner(padded, axis))
