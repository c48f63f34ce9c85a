"""The folder of a run: where its sockets are. And the mark of a run that may be only once.

Law: readable by its owner only, whatever the umask. Locked as long as its owner lives, by a
lock that the kernel drops when it dies. Whoever makes a new one first removes those whose
owners are dead, so that nothing of a run that was killed stays longer than until the next.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ovpipe.errors import PreflightError

_MAX_SOCKET_PATH = 107  # what Linux allows for a Unix socket, without the final zero
LOCK = "lock"
_LONGEST_NAME = len("/4194304-ffffffff/w65535e9999999")


def base_folder() -> Path:
    """The folder that holds all runs of this user; made where it is missing.

    Raises PreflightError where it is not ours or cannot be made.
    """
    wanted = [os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp"]
    problem = "no folder for sockets"
    for parent in filter(None, wanted):
        base = Path(parent) / f"ovpipe-{os.getuid()}"
        if len(os.fsencode(base)) + _LONGEST_NAME > _MAX_SOCKET_PATH:
            problem = f"{base}: too long for the path of a socket ({_MAX_SOCKET_PATH} bytes)"
            continue
        try:
            str(base).encode()
        except UnicodeEncodeError:
            problem = f"{str(base)!r}: not UTF-8, which the path of a socket must be"
            continue
        try:
            with suppress(FileExistsError):
                base.mkdir(mode=0o700)
            info = base.lstat()
            if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
                problem = f"{base} belongs to somebody else"
                continue
            base.chmod(0o700)
        except OSError as error:
            problem = f"{base}: {error.strerror}"
            continue
        return base
    raise PreflightError(f"cannot make the run directory: {problem}; set XDG_RUNTIME_DIR")


@contextmanager
def _guarded(base: Path) -> Iterator[None]:
    """One process of this user at a time."""
    fd = _open_private(base / LOCK)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _open_private(path: Path) -> int:
    """A file to be locked, for its owner whatever the umask: it must open once more, too."""
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    os.fchmod(fd, 0o600)
    return fd


class RunDir:
    """The folder of this run; `path` is ready and locked."""

    def __init__(self) -> None:
        base = base_folder()
        with _guarded(base):  # a folder is never seen before its lock is held
            sweep(base)
            self.path = base / f"{os.getpid()}-{secrets.token_hex(4)}"
            self.path.mkdir(mode=0o700)
            self.path.chmod(0o700)
            self._lock = _open_private(self.path / LOCK)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            os.write(self._lock, f"{os.getpid()}\n".encode())

    def endpoint(self, worker: int, epoch: int) -> str:
        """The ZeroMQ address of the inbox of a worker's process; no two have the same."""
        return f"ipc://{self.path}/w{worker}e{epoch}"

    def close(self) -> None:
        """Remove the folder. Idempotent."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


class OnlyOnce:
    """While it is open, no other run of this user has the same `what` (a file and a name, say).

    Raises PreflightError, which names the process that has.
    """

    def __init__(self, *what: str) -> None:
        base = base_folder()
        digest = hashlib.sha256("\0".join(what).encode(errors="surrogateescape")).hexdigest()
        self._path = base / f"only-{digest[:32]}"
        with _guarded(base):  # nobody removes the file while we look at it
            self._lock = _open_private(self._path)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.read(self._lock, 200).decode(errors="replace").strip()
                os.close(self._lock)
                raise PreflightError(f"it runs already: {owner}") from None
            os.ftruncate(self._lock, 0)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            os.write(self._lock, f"process {os.getpid()} since {since}\n".encode())

    def close(self) -> None:
        """Let others run. Idempotent."""
        if self._lock >= 0:
            with _guarded(self._path.parent):
                self._path.unlink(missing_ok=True)
                os.close(self._lock)
            self._lock = -1


def sweep(base: Path) -> list[Path]:
    """Remove the folders of runs whose owners are dead; returns them. Needs the base's lock."""
    swept = []
    for folder in base.iterdir():
        if not folder.is_dir() or folder.is_symlink():
            continue
        try:
            fd = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            fd = -1  # died between making the folder and its lock
        try:
            if fd >= 0:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
            swept.append(folder)
        except BlockingIOError:
            pass  # its owner lives
        finally:
            if fd >= 0:
                os.close(fd)
    return swept
