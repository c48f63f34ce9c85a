"""Paths that stages write to: `rec/{stream}.mp4` is one file a stream.

Law: whatever a stream is called, its file lies in the folder that the pattern names. A key is
made one plain file name: no separators, no leading dot, not too long.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from ovpipe.errors import PreflightError

STREAM = "{stream}"
Made = TypeVar("Made")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where a file finds no more room: on the disk, in the quota, in one file."""
GONE = (FileNotFoundError, NotADirectoryError)
"""What is raised where a file, or a folder above it, is not there."""
_MAX_NAME_BYTES = 150
_TRIES = 10


def cache_folder(cache: str) -> Path:
    """Where compiled models are kept: `cache`, or the default where it is "".

    RuntimeError where that is below a home that there is not.
    """
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache or f"{base}/ovpipe/models").expanduser()


def expanded(written: str) -> Path:
    """The path that somebody wrote, `~` replaced. PreflightError where there can be none."""
    try:
        if "\0" in written:
            raise ValueError("a NUL byte is in it")
        path = Path(written).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            path.lstat()
        return path
    except (RuntimeError, ValueError) as error:  # RuntimeError: no such home
        raise PreflightError(f"path {written!r}: {error}; write another path") from None
    except OSError as error:  # too long; a loop of links
        raise PreflightError(f"path '{written}': {error.strerror}; write another path") from None


def for_stream(pattern: str, stream: str) -> Path:
    """The path of one stream's file."""
    return Path(pattern.replace(STREAM, safe_name(stream))).expanduser()


def safe_name(stream: str) -> str:
    """`cam/gate` -> `cam_gate`; never empty, never hidden, never a way out of the folder."""
    name = re.sub(r"[^\w.-]", "_", stream).lstrip(".")
    return name.encode("utf-8")[:_MAX_NAME_BYTES].decode("utf-8", "ignore") or "stream"


def astray(path: Path, opened: os.stat_result) -> bool:
    """Whether the file that was opened is at its path no more: it was moved, or deleted.

    False where that cannot be looked at.
    """
    try:
        return not os.path.samestat(os.stat(path), opened)
    except GONE:
        return True
    except OSError:
        return False


def in_folder(path: Path, make: Callable[[], Made]) -> Made:
    """What `make` gives, in the folder of `path`, which is made; again where it is being deleted.

    Raises OSError.
    """
    for _ in range(_TRIES):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return make()
        except FileNotFoundError:
            if path.parent.exists():
                raise
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def prepare(pattern: str) -> None:
    """Create the folder of the files; PreflightError where nothing can be written in it.

    Of a folder whose own name depends on the stream, the part above it.
    """
    if not pattern or pattern.endswith("/"):
        raise PreflightError(f"path '{pattern}' names no file; add its name")
    path = expanded(pattern)
    folder = path.parent
    while STREAM in str(folder):
        folder = folder.parent
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            return  # /dev/stderr, a named pipe: nothing is created
    except OSError as error:
        raise unwritable(path, error) from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The one way to know: permissions say nothing of a read-only file system, or to root.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise unwritable(folder, error) from None
    if path.is_dir():
        raise PreflightError(f"path '{pattern}' is a folder; add the name of a file")


def unwritable(path: Path, error: OSError) -> PreflightError:
    """One line for a path that cannot be written."""
    reason = error.strerror or os.strerror(error.errno or 0)
    return PreflightError(
        f"cannot write to '{path}': {reason}; give a path in a folder that can be written"
    )
