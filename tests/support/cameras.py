"""A consumer that writes down which frames of a clip came: `stream index` a line, at once."""

from __future__ import annotations

import ovpipe


class Register(ovpipe.Consumer):
    """Appends to `path`."""

    path: str

    def open(self) -> None:
        self.file = open(self.path, "a", buffering=1)  # noqa: SIM115

    def consume(self, frame: ovpipe.Frame) -> None:
        from tests.support.clips import index

        assert frame.image is not None
        print(frame.stream, index(frame.image), file=self.file)

    def close(self) -> None:
        self.file.close()
