"""Lines: what all stages have in common that write text, line by line.

Law: each line is whole. What a frame gives is handed to the system at once, not buffered, so
nothing waits to be flushed; where only a part of it finds room, that part is taken back and the
frame fails with `disk_full`, and the next frame tries again. When the reader of standard output
has gone (`| head`), the frames that follow fail quietly with `link_lost`.
"""

from __future__ import annotations

import io
import os
from abc import abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar

from ovpipe.errors import FrameError
from ovpipe.frame import Frame
from ovpipe.stages.base import Consumer
from ovpipe.stages.paths import FULL, STREAM, for_stream, prepare, unwritable

_STDOUT = 1


class LineWriter(Consumer):
    """Writes some lines for each frame to a file, a file per stream, or standard output."""

    one_process: ClassVar[bool] = True
    head: ClassVar[str] = ""
    """What a file begins with: no line, or some."""

    path: Annotated[str, "the file; - is standard output; {stream} in it makes a file per stream"]
    append: Annotated[bool, "keep what the file holds and go on behind it"] = False

    _outputs: Any = None
    _deaf: bool = False

    @abstractmethod
    def lines(self, frame: Frame) -> str:
        """Whole lines, or nothing, for a frame."""

    def open(self) -> None:
        """Create the folder and, where there is one file only, the file."""
        self._outputs = {}
        if self.path == "-":
            return
        prepare(self.path)
        if STREAM not in self.path:
            path = for_stream(self.path, "")
            try:
                self._outputs[path] = _File.to(path, self.append)
            except OSError as error:
                raise unwritable(path, error) from None

    def consume(self, frame: Frame) -> None:
        """Write the frame's lines, all or none."""
        text = self.lines(frame)
        if not text:
            return
        try:
            output = self._output(frame.stream)
            if output.empty:
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
        if output is None:
            if self.path == "-":
                output = _File(io.FileIO(_STDOUT, "w", closefd=False))
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                output = _File.to(path, self.append)
            self._outputs[path] = output
        return output


class _File:
    """A file of whole lines, written through. `empty`: nothing is in it yet."""

    def __init__(self, file: io.FileIO, empty: bool = True) -> None:
        self._file = file
        self.empty = empty

    @classmethod
    def to(cls, path: Path, append: bool) -> _File:
        """Open `path`, empty or behind what it holds. Raises OSError."""
        file = io.FileIO(path, "r+" if append and path.exists() else "w")
        empty = True
        if append and file.seekable() and file.seek(0, os.SEEK_END):
            empty = False
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a writer was killed in the middle of a line
                file.write(b"\n")
        return cls(file, empty)

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
        self.empty = False

    def close(self) -> None:
        """Close the file."""
        self._file.close()
