"""The folder of a run: where its sockets are.

Law: readable by its owner only, whatever the umask. Locked as long as its owner lives, by a
lock that the kernel drops when it dies. Whoever makes a new one first removes those whose
owners are dead, so that nothing of a run that was killed stays longer than until the next.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from ovpipe.errors import PreflightError

_MAX_SOCKET_PATH = 107  # what Linux allows for a Unix socket, without the final zero
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


class RunDir:
    """The folder of this run; `path` is ready and locked."""

    def __init__(self) -> None:
        base = base_folder()
        # One lock around sweeping and making: a folder is never seen before its lock is held.
        with open(base / "lock", "a") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            sweep(base)
            self.path = base / f"{os.getpid()}-{secrets.token_hex(4)}"
            self.path.mkdir(mode=0o700)
            self.path.chmod(0o700)
            self._lock = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
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


def sweep(base: Path) -> list[Path]:
    """Remove the folders of runs whose owners are dead; returns them. Needs the base's lock."""
    swept = []
    for folder in base.iterdir():
        if not folder.is_dir() or folder.is_symlink():
            continue
        try:
            fd = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
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
