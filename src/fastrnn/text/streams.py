# SPDX-License-Identifier: BSD-3-Clause
"""Text for a character model: finding and reading it, cutting windows."""

import importlib
import os
import re
import stat

import numpy as np

from fastrnn.util import checks, files

# Paragraphs of the default text that are shorter may come again: "Example:".
_SHORT_PARAGRAPH = 60


def default_text():
    """English text that every CPython carries: the help topics of `pydoc`.

    Topics come in the order of their names. Many repeat paragraphs of others; each
    paragraph of 60 characters or more is taken once, so that text held out for
    evaluation is not found word for word in the rest.

    Returns
    -------
    str
        About 380,000 characters; other versions of Python have other topics.

    Raises
    ------
    OSError
        If this Python came without the module `pydoc_data.topics`.

    Examples
    --------
    >>> text = default_text()
    >>> "The \\"assert\\" statement" in text
    True
    """
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ModuleNotFoundError as error:
        raise OSError(
            "this Python has no pydoc_data.topics to train on; give a text of your own"
        ) from error
    seen = set()
    paragraphs = []
    for name in sorted(topics):
        for paragraph in re.split(r"\n\n+", topics[name].strip("\n")):
            if len(paragraph) < _SHORT_PARAGRAPH or paragraph not in seen:
                paragraphs.append(paragraph)
                seen.add(paragraph)
    return "\n\n".join(paragraphs)


def read_text(path, characters=None):
    """The characters of a UTF-8 file, as they are but for a byte order mark.

    Parameters
    ----------
    path : path-like
        A regular file, or a pipe that ends.
    characters : int, optional
        How many the text is known to have, where a file says so and names `path`: then
        `path` must be a regular file, and one that is too large for a text of so many
        characters is not read.

    Returns
    -------
    str

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is empty or not text: a NUL byte, or bytes that are not UTF-8; or if it is
        neither a regular file nor a pipe, or too large.
    """
    if characters is not None:
        # At most four bytes a character, and a byte order mark.
        data = files.read_bytes(path, most=4 * characters + 3)
    elif stat.S_ISFIFO(os.stat(path).st_mode):
        with open(path, "rb") as file:
            data = file.read()
    else:
        data = files.read_bytes(path)
    nul = data.find(b"\0")
    if nul >= 0:
        raise ValueError(
            f"{path}: must be UTF-8 text, got a NUL byte at offset {nul}: a binary file"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # A byte order mark, which the decoder does not count, is part of the file.
        at = error.start + len(data) - len(error.object)
        raise ValueError(
            f"{path}: must be UTF-8 text, got byte 0x{data[at]:02x} at offset {at}"
        ) from error
    if not text:
        raise ValueError(f"{path}: must be text with characters, got an empty file")
    return text


def split_held_out(text):
    """The text to train on, and its last tenth (at least 2 characters) held out.

    Parameters
    ----------
    text : str

    Returns
    -------
    train, held_out : str

    Examples
    --------
    >>> split_held_out("abcdefghijklmnopqrstuvwxyz")
    ('abcdefghijklmnopqrstuvwx', 'yz')
    """
    border = len(text) - max(2, len(text) // 10)
    return text[: max(0, border)], text[max(0, border) :]


def check_length(who, text, batch_size, seq_length):
    """Refuse a text whose first nine tenths do not fill one batch of sequences."""
    need = batch_size * seq_length + 1
    if len(split_held_out(text)[0]) >= need:
        return
    # The shortest text to hold out a tenth of; the loop ends after a few rounds.
    whole = max(need + 2, need + need // 9 - 2)
    while whole - max(2, whole // 10) < need:
        whole += 1
    raise ValueError(
        f"{who}: text must have at least {whole} characters for batch_size = "
        f"{batch_size} and seq_length = {seq_length} (a tenth is held out), "
        f"got {len(text)}"
    )


class StreamBatches:
    """A text cut into parallel streams, and these into windows one after the other.

    Stream b is the b-th of `batch_size` equal pieces of the text, and window w of a
    stream goes on where window w - 1 ended, so that a recurrent state carried from one
    window to the next sees unbroken text. Up to ``batch_size - 1`` characters at the
    end are left out. The last window is shorter where lengths do not divide.

    Parameters
    ----------
    tokens : ndarray of int, shape (N,)
        N > batch_size.
    batch_size : int
        Streams.
    seq_length : int
        Steps in a window.

    Attributes
    ----------
    n_characters : int
        Targets in one pass over all windows.

    Raises
    ------
    ValueError
        If there are too few tokens for one target in every stream.

    Examples
    --------
    >>> batches = StreamBatches(np.arange(11), batch_size=2, seq_length=3)
    >>> len(batches)
    2
    >>> inputs, targets = batches[0]
    >>> inputs.T.tolist(), targets.T.tolist()
    ([[0, 1, 2], [5, 6, 7]], [[1, 2, 3], [6, 7, 8]])
    >>> batches[1][0].T.tolist()
    [[3, 4], [8, 9]]
    """

    def __init__(self, tokens, batch_size, seq_length):
        who = type(self).__name__
        batch_size = checks.positive_int(who, "batch_size", batch_size)
        self.seq_length = checks.positive_int(who, "seq_length", seq_length)
        if len(tokens) <= batch_size:
            raise ValueError(
                f"{who}: tokens must be more than batch_size = {batch_size}, "
                f"got {len(tokens)}"
            )
        steps = (len(tokens) - 1) // batch_size
        starts = np.arange(batch_size) * steps
        # (steps + 1, B): the last row has the targets of the last step.
        self._streams = tokens[np.arange(steps + 1)[:, None] + starts]
        self.n_characters = steps * batch_size

    def __len__(self):
        return -(-(len(self._streams) - 1) // self.seq_length)

    def __getitem__(self, window):
        """Inputs and targets of a window.

        Returns
        -------
        inputs, targets : ndarray, shape (T, B)
            Views; targets are the inputs one step later.
        """
        if not 0 <= window < len(self):
            raise IndexError(f"window must be in [0, {len(self)}), got {window}")
        start = window * self.seq_length
        stop = min(start + self.seq_length, len(self._streams) - 1)
        return self._streams[start:stop], self._streams[start + 1 : stop + 1]
