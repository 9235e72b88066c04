# SPDX-License-Identifier: BSD-3-Clause
"""Writing and claiming files where the system has no `flock`, as on Windows.

There a file that somebody has open can neither be removed nor replaced. So a temporary
file that can be removed belongs to nobody any more, a file takes its name after it was
closed, and who claims a file holds a second one beside it, ``NAME.lock``, which Windows
removes when the process ends, however that ends.
"""

import contextlib
import errno
import os
import time

# For a file that goes with the process that made it.
_OWN = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_TEMPORARY", 0)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)

# Seconds to wait for those who read a file that is to be replaced, and between tries.
_PATIENCE, _PAUSE = 2.0, 0.01
# Times that another writer may take our temporary file for an abandoned one.
_MOST_TIMES = 100


class LockFile:
    """The right to write a file, which one process has at a time.

    Parameters
    ----------
    path : str
        The file to write.

    Raises
    ------
    FileExistsError
        If somebody else has the right.
    """

    def __init__(self, path):
        self.path = f"{os.path.realpath(path)}.lock"
        try:
            self._descriptor = os.open(self.path, _OWN)
        except PermissionError as error:
            # Windows says so of a file that is about to be removed.
            if not os.path.exists(self.path):
                raise
            raise FileExistsError(errno.EEXIST, "exists", self.path) from error

    def close(self):
        """Give the right back."""
        os.close(self._descriptor)
        with contextlib.suppress(FileNotFoundError):  # Windows has removed it
            os.remove(self.path)


def write(target, data, new, is_temporary):
    """Write a file in one step.

    Parameters
    ----------
    target : str
        Its path, without symbolic links.
    data : bytes
    new : bool
        Whether it must not exist.
    is_temporary : callable
        Whether a file of this name is one that a writer makes before it takes its name.

    Raises
    ------
    OSError
        If the file cannot be written; it is then as it was.
    """
    folder = os.path.dirname(target)
    for _ in range(_MOST_TIMES):
        _remove_abandoned(folder, is_temporary)
        temporary = os.path.join(folder, f".fastrnn-{os.urandom(8).hex()}.tmp")
        try:
            with open(os.open(temporary, _NEW, 0o666), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _name(temporary, target, new)
            return
        except FileNotFoundError:
            # Another writer may have removed it between close and its new name.
            if not os.path.isdir(folder):
                raise
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.remove(temporary)
            raise
    raise OSError(errno.EBUSY, "other writers remove what is being written", target)


def _name(temporary, target, new):
    if new:
        if os.path.exists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        os.rename(temporary, target)  # which Windows refuses where the name is taken
        return
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            os.replace(temporary, target)
            return
        except PermissionError:  # somebody reads the file, or it is not ours to write
            if time.monotonic() > until:
                raise
        time.sleep(_PAUSE)


def _remove_abandoned(folder, is_temporary):
    try:
        names = [name for name in os.listdir(folder) if is_temporary(name)]
    except PermissionError:
        return  # a folder may be written to by those who may not list it
    for name in names:
        with contextlib.suppress(OSError):  # it is being written, or somebody else's
            os.remove(os.path.join(folder, name))
