"""Lines: what all stages have in common that write text, line by line.

Law: each line is whole. What a frame gives is handed to the system at once, not buffered, so
nothing waits to be flushed; where only a part of it finds room, that part is taken back and the
frame fails with `disk_full`, and the next frame tries again. When the reader of standard output
has gone (`| head`), the frames that follow fail quietly with `link_lost`.

Law: a frame's lines go where the path leads at that moment. A file that was moved or deleted is
left as it is, and opened anew at its path, its folder made again; the log says so. One that was
emptied begins anew. What a stage has written in this run, also before it was restarted, it never
empties itself.
"""

from __future__ import annotations

import io
import logging
import os
import stat
from abc import abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar

from ovpipe.errors import FrameError
from ovpipe.frame import Frame
from ovpipe.stages.base import Consumer
from ovpipe.stages.paths import FULL, STREAM, astray, for_stream, in_folder, prepare, unwritable

_STDOUT = 1


class LineWriter(Consumer):
    """Writes some lines for each frame to a file, a file per stream, or standard output."""

    one_process: ClassVar[bool] = True
    head: ClassVar[str] = ""
    """What a file begins with: no line, or some."""

    path: Annotated[str, "the file; - is standard output; {stream} in it makes a file per stream"]
    append: Annotated[bool, "keep what the file holds and go on behind it"] = False

    _outputs: Any = None
    _known: Any = None
    _deaf: bool = False

    @abstractmethod
    def lines(self, frame: Frame) -> str:
        """Whole lines, or nothing, for a frame."""

    def open(self) -> None:
        """Create the folder and, where there is one file only, the file."""
        self._outputs, self._known = {}, set()
        if self.path == "-":
            return
        prepare(self.path)
        if STREAM not in self.path:
            path = for_stream(self.path, "")
            try:
                self._outputs[path] = self._opened(path)
            except OSError as error:
                raise unwritable(path, error) from None

    def consume(self, frame: Frame) -> None:
        """Write the frame's lines, all or none."""
        text = self.lines(frame)
        if not text:
            return
        try:
            output = self._output(frame.stream)
            if self.head and output.empty:
                text = self.head + text
            output.write(text.encode("utf-8", "backslashreplace"))
        except BrokenPipeError as error:
            if self.path == "-" and not self._deaf:
                self._deaf = True
                self.context.end_run("nobody reads its output any more")
            raise FrameError("nobody reads the output any more", "link_lost") from error
        except OSError as error:
            if error.errno in FULL:
                raise FrameError(f"no space for '{self.path}'", "disk_full") from error
            raise

    def end_of_stream(self, stream: str) -> None:
        """Close the stream's own file."""
        if STREAM in self.path:
            output = self._outputs.pop(for_stream(self.path, stream), None)
            if output is not None:
                output.close()

    def close(self) -> None:
        """Close all files."""
        outputs, self._outputs = self._outputs or {}, {}
        for output in outputs.values():
            output.close()

    def _output(self, stream: str) -> _File:
        path = Path("-") if self.path == "-" else for_stream(self.path, stream)
        output: _File | None = self._outputs.get(path)
        if output is not None and output.astray():
            del self._outputs[path]
            output.close()
            output = None
            logging.getLogger(f"ovpipe.{self.context.stage}").warning(
                "%s: '%s' was moved or deleted; it is opened anew", self.context.stage, path
            )
        if output is None:
            if self.path == "-":
                output = _File(io.FileIO(_STDOUT, "w", closefd=False))
            else:
                try:
                    output = self._opened(path)
                except OSError as error:
                    if error.errno in FULL:
                        raise
                    raise unwritable(path, error) from None
            self._outputs[path] = output
        return output

    def _opened(self, path: Path) -> _File:
        append = self.append or self.context.restarted or path in self._known
        output = in_folder(path, lambda: _File.to(path, append))
        self._known.add(path)
        return output


class _File:
    """A file of whole lines, written through. What is no file on the disk is never astray."""

    def __init__(self, file: io.FileIO, path: Path | None = None) -> None:
        self._file = file
        self._state = os.fstat(file.fileno())
        self._path = path if stat.S_ISREG(self._state.st_mode) else None
        self._begun = False

    @classmethod
    def to(cls, path: Path, append: bool) -> _File:
        """Open `path`, empty or behind what it holds. Raises OSError."""
        file = io.FileIO(path, "r+" if append and path.exists() else "w", opener=_appending)
        if append and file.seekable() and file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a writer was killed in the middle of a line
                file.write(b"\n")
        return cls(file, path)

    @property
    def empty(self) -> bool:
        """Whether nothing is in it yet, or any more: somebody may have emptied it."""
        if self._path is None:
            return not self._begun
        return not os.fstat(self._file.fileno()).st_size

    def astray(self) -> bool:
        """Whether it was moved or deleted."""
        return self._path is not None and astray(self._path, self._state)

    def write(self, lines: bytes) -> None:
        """All of the lines, or none of them and OSError."""
        written = 0
        try:
            while written < len(lines):
                written += self._file.write(lines[written:]) or 0
        except OSError:
            if written:
                with suppress(OSError):  # a pipe keeps what it took
                    self._file.seek(-written, os.SEEK_CUR)
                    self._file.truncate()
            raise
        self._begun = True

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _appending(path: str, flags: int) -> int:
    """Behind what is there at each write, also where somebody else has emptied it."""
    return os.open(path, flags | os.O_APPEND, 0o666)
