# SPDX-License-Identifier: BSD-3-Clause
"""Files written in one step: a reader sees the old one or the whole new one.

The new contents are written to a temporary file beside the target, which then takes the
target's name. Its writer holds a lock on the temporary file (`flock`, which ends with
the process however that ends), so a temporary file without a lock belongs to nobody any
more: whoever next writes in the folder removes it. The lock stays with the file when
it is renamed, which is how `Claim` keeps others from a file through a whole run. Where
there is no `flock`, as on Windows, `lock_files` does the same in another way.
"""

import contextlib
import errno
import os
import re
import stat

from fastrnn.util import lock_files
from fastrnn.util.files import open_regular

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None

# Python's files are closed in a child that runs another program, without O_CLOEXEC.
_APPEND = os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0)
_TEMPORARY = re.compile(r"\.fastrnn-[0-9a-f]{16}\.tmp")

# What flock says on file systems that know no locks: these are then done without.
# (EBADF is a network's for a file that may only be read.)
_NO_LOCKS = (
    errno.EBADF,
    errno.EINVAL,
    errno.ENOLCK,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
)
# What link says on file systems that know no second names.
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)


def write_atomically(path, data):
    """Write bytes to `path` so that a reader sees the old file or the whole new one.

    Parameters
    ----------
    path : path-like
        File to write. A symbolic link is followed, not replaced. A file that exists
        keeps its permissions; a new one has those that the umask leaves.
    data : bytes
        What to write.

    Raises
    ------
    OSError
        If the file cannot be written, and it names `path`; the file is then as it was.
    """
    descriptor = _written(path, data, new=False)
    if descriptor is not None:
        os.close(descriptor)


def append_whole(path, data):
    """Add bytes to the end of a file, which exists: all of them, or none.

    Parameters
    ----------
    path : path-like
    data : bytes

    Raises
    ------
    OSError
        If they cannot be written, and it names `path`; the file is then as it was.
    """
    descriptor = os.open(path, _APPEND)
    try:
        before = os.fstat(descriptor)
        try:
            _write_all(descriptor, data)
        except BaseException:
            if stat.S_ISREG(before.st_mode):
                os.ftruncate(descriptor, before.st_size)
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    finally:
        os.close(descriptor)


class Claim:
    """A file that this process alone writes, again and again, until it is closed.

    Parameters
    ----------
    path : path-like
    new : bool
        Whether the file must not exist before the first `write`, which then makes it
        in one step: of several processes that try, one succeeds. If not, it must exist.

    Raises
    ------
    FileExistsError
        If `new` and it exists.
    OSError
        If it must exist and cannot be opened.
    ValueError
        If another process has claimed it.
    """

    def __init__(self, path, new):
        self.path, self._new, self._held = os.fspath(path), new, None
        self._lock_file = None
        if new and os.path.exists(self.path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.path)
        if fcntl is None:
            if not new:
                os.close(open_regular(self.path))
            self._lock_file = self._made_lock_file()
        elif not new:
            self._held = self._taken()

    def _made_lock_file(self):
        try:
            return lock_files.LockFile(self.path)
        except FileExistsError as error:
            raise ValueError(
                f"{self.path}: must not be in use, got one that another run is "
                f"writing now, or left {error.filename} when the machine lost power"
            ) from error

    def _taken(self):
        """The descriptor of the file under this name, locked."""
        while True:
            descriptor = open_regular(self.path)
            if not _lock(descriptor):
                os.close(descriptor)
                raise ValueError(
                    f"{self.path}: must not be in use, got one that another run is "
                    "writing now"
                )
            # Between open and lock its writer may have put a new file in its place.
            if _same_file(descriptor, self.path):
                return descriptor
            os.close(descriptor)

    def write(self, path, data):
        """Write the whole file, as `write_atomically` does, and keep it claimed.

        Parameters
        ----------
        path : path-like
            That of the claim.
        data : bytes

        Raises
        ------
        FileExistsError
            If the file had to be new, and another process has made it meanwhile.
        OSError
            If the file cannot be written.
        """
        if os.fspath(path) != self.path:
            raise ValueError(f"Claim.write: path must be {self.path}, got {path}")
        descriptor = _written(path, data, self._new)
        self._new = False
        if self._held is not None:
            os.close(self._held)
        self._held = descriptor

    def close(self):
        """Let others write the file."""
        if self._held is not None:
            os.close(self._held)
            self._held = None
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def _written(path, data, new):
    """Write the file at `path`; the descriptor of what is there now, locked.

    It is None where there are no such locks.
    """
    target = os.path.realpath(path)
    try:
        status = _status(target)
        if fcntl is None:
            lock_files.write(target, data, new, _TEMPORARY.fullmatch)
            return None
        _remove_abandoned(os.path.dirname(target))
        descriptor, temporary = _new_temporary(target, status)
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
            if new:
                _name_new(temporary, target)
            else:
                os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.remove(temporary)
            os.close(descriptor)
            raise
    except OSError as error:
        # The system's message is about the temporary file, which nobody asked for.
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    return descriptor


def _status(target):
    """What is known of the file to replace; None where there is none."""
    try:
        status = os.stat(target)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
    if not stat.S_ISREG(status.st_mode):
        # A device would be gone, and a plain file be in its place.
        raise OSError(errno.EINVAL, "must be a regular file to be replaced", target)
    return status


def _new_temporary(target, status):
    """An empty file beside `target`, locked, with the permissions that it is to have.

    It is the owner's alone until those of the file that it replaces are known to fit.
    """
    folder = os.path.dirname(target)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        temporary = os.path.join(folder, f".fastrnn-{os.urandom(8).hex()}.tmp")
        descriptor = os.open(temporary, flags, 0o666 if status is None else 0o600)
        try:
            # Until here it looks abandoned; if somebody removed it, another is made.
            if _lock(descriptor) and _same_file(descriptor, temporary):
                if status is not None:
                    os.fchmod(descriptor, _mode_for(descriptor, status))
                return descriptor, temporary
        except BaseException:
            os.close(descriptor)
            os.remove(temporary)
            raise
        os.close(descriptor)


def _mode_for(descriptor, status):
    """Permissions of the file to replace; its group's only if that stays its group."""
    mode = stat.S_IMODE(status.st_mode) & 0o777
    if os.fstat(descriptor).st_gid != status.st_gid:
        try:
            os.fchown(descriptor, -1, status.st_gid)
        except PermissionError:  # for others than its members
            mode &= ~0o070
    return mode


def _write_all(descriptor, data):
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _name_new(temporary, target):
    """Give a file its name, unless one of that name exists."""
    try:
        os.link(temporary, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Next best: the name is taken by an empty file first.
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.replace(temporary, target)
    else:
        os.remove(temporary)


def _lock(descriptor):
    """Whether nobody else has the file locked; from now on this process has."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _same_file(descriptor, path):
    """Whether `path` is still the name of an open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _remove_abandoned(folder):
    """Remove what writers that were killed have left in a folder."""
    try:
        names = [name for name in os.listdir(folder) if _TEMPORARY.fullmatch(name)]
    except PermissionError:
        return  # a folder may be written to by those who may not list it
    for name in names:
        path = os.path.join(folder, name)
        try:
            # For writing, since a lock over the network wants that.
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue  # somebody else's, or gone: not ours to remove
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _same_file(descriptor, path):
                os.remove(path)
        except OSError:
            continue  # being written, or on a file system that cannot tell
        finally:
            os.close(descriptor)
