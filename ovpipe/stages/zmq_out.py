"""Zmq-out: frames to foreign processes, by the protocol of `ovpipe.stages.zmq_wire`.

Law: a frame is delivered when the socket has taken it; one that nobody takes in time is failed as
`link_lost`, and the next one is tried anew. A publisher waits for nobody. The end of a stream is
said behind its last frame.
"""

from __future__ import annotations

import time
from dataclasses import field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Len

from ovpipe.errors import FrameError, WireError
from ovpipe.frame import Frame
from ovpipe.options import Duration
from ovpipe.stages.base import Consumer
from ovpipe.stages.zmq_socket import Link, Socket
from ovpipe.stages.zmq_wire import encode, encode_end

_LINGER_S = 1.0
_TICK_S = 0.1


class ZmqOut(Consumer):
    """Sends frames, and what was found in them, to processes of yours over ZeroMQ."""

    address: Annotated[str, Len(1), "tcp://127.0.0.1:5555 or ipc:///run/me/frames"]
    mode: Annotated[
        Literal["push", "pub"], "push: each frame to one who pulls; pub: to all who listen"
    ] = "push"
    listen: Annotated[
        bool | None, "bind the address and wait for others; default: no to push, yes to pub"
    ] = None
    timeout: Annotated[Duration, Ge(0), "how long to wait for somebody to take a frame"] = 1.0
    allow_remote: Annotated[bool, "listen beyond this machine without keys"] = False
    secret_key: Annotated[str, "CURVE: one's own secret key; use a variable"] = ""
    server_key: Annotated[str, "CURVE, to connect: the public key of the other side"] = ""
    allow: Annotated[list[str], "CURVE, to listen: the public keys of those who may connect"] = (
        field(default_factory=list)
    )

    _socket: Socket | None = None

    def open(self) -> None:
        """Check the address, and open the socket."""
        bind = self.mode == "pub" if self.listen is None else self.listen
        link = Link(
            self.address, self.mode, bind, self.allow_remote, self.secret_key, self.server_key,
            self.allow,
        )  # fmt: skip
        link.check()
        self._socket = Socket(link)

    def consume(self, frame: Frame) -> None:
        """Send it, or fail it."""
        try:
            parts = encode(frame)
        except WireError as error:
            raise FrameError(str(error), "malformed") from None
        if not self._sent(parts):
            raise FrameError(f"nobody takes frames at {self.address}", "link_lost")

    def end_of_stream(self, stream: str) -> None:
        """Say so to whoever listens."""
        self._sent(encode_end(stream))

    def _sent(self, parts: list[Any]) -> bool:
        """Whether somebody took it in time; meanwhile it is seen that the stage waits."""
        assert self._socket is not None, "the stage is not open"
        until_s = time.monotonic() + self.timeout
        while not self._socket.send(parts, min(self.timeout, _TICK_S)):
            if time.monotonic() >= until_s:
                return False
            self.context.waiting()
        return True

    def close(self) -> None:
        """What was sent may still leave."""
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close(_LINGER_S)
