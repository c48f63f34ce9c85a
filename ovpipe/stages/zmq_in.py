"""Zmq-in: frames from a foreign process, by the protocol of `ovpipe.stages.zmq_wire`.

Law: what is no message of the protocol is counted `malformed`, and the next one is read. Pixels are
copied once, into shared memory. A live one takes silence, and a peer that says the end, as a
camera's, and tells its state (`ovpipe.stages.watch`); its socket stays open through all that, since
ZeroMQ connects anew by itself, and what has been sent meanwhile is not to be lost. One that is not
live ends with the end that the peer says.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import field
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Gt, Len
from numpy.typing import NDArray

from ovpipe.errors import WireError
from ovpipe.frame import Frame, Image
from ovpipe.options import Duration
from ovpipe.stages.base import Producer
from ovpipe.stages.camera import Timing
from ovpipe.stages.feed import Disconnected, Over
from ovpipe.stages.timeline import Timeline
from ovpipe.stages.watch import Watch
from ovpipe.stages.zmq_socket import Link, Socket
from ovpipe.stages.zmq_wire import Packet, decode

_TICK_S = 0.1


class ZmqIn(Producer):
    """Frames that a process of yours sends over ZeroMQ."""

    address: Annotated[str, Len(1), "tcp://127.0.0.1:5555 or ipc:///run/me/frames"]
    mode: Annotated[
        Literal["pull", "sub"], "pull: from all who push; sub: what a publisher sends"
    ] = "pull"
    listen: Annotated[
        bool | None, "bind the address and wait for others; default: yes to pull, no to sub"
    ] = None
    stream: Annotated[str, "take only what is sent under this name; empty: all, as one"] = ""
    live: Annotated[bool, "frames come by the clock; no: each counts, to the end"] = True
    timeout: Annotated[Duration, Gt(0), "silence after which a live one is taken for stalled"] = 5.0
    allow_remote: Annotated[bool, "listen beyond this machine without keys"] = False
    secret_key: Annotated[str, "CURVE: one's own secret key; use a variable"] = ""
    server_key: Annotated[str, "CURVE, to connect: the public key of the other side"] = ""
    allow: Annotated[list[str], "CURVE, to listen: the public keys of those who may connect"] = (
        field(default_factory=list)
    )

    _socket: Socket | None = None

    def _link(self) -> Link:
        bind = self.mode == "pull" if self.listen is None else self.listen
        return Link(
            self.address, self.mode, bind, self.allow_remote, self.secret_key, self.server_key,
            self.allow,
        )  # fmt: skip

    def open(self) -> None:
        """Check the address, and open the socket."""
        link = self._link()
        link.check()
        self._socket = Socket(link, self.stream)

    def close(self) -> None:
        """Close the socket."""
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close()

    def frames(self) -> Iterator[Frame]:
        """Whole frames, in the order in which they came."""
        # Who has not come yet is waited for.
        timing = Timing(self.timeout, math.inf, 0.1, 0.1, spread_s=0.0)
        line = Timeline()
        watch: Watch[Packet] = Watch(
            self.context, self.address, self._connect, timing, line.restart
        )
        for packet in watch.frames() if self.live else self._all():
            now = time.monotonic_ns()
            frame = self._frame(packet)
            if self.live:
                frame = frame.stamped("", frame.seq, now, line.place(packet.pts_ns, now))
            yield frame
            del frame, packet

    def _all(self) -> Iterator[Packet]:
        """Packets until the peer says the end."""
        connection = self._connect()
        counted = 0
        try:
            while not self.context.stopping:
                packet = connection.read(_TICK_S)
                if connection.errors > counted:
                    self.context.count_failed("malformed", connection.errors - counted)
                    counted = connection.errors
                if packet is None:
                    self.context.waiting()
                else:
                    yield packet
                    del packet
        except Over:
            return
        finally:
            connection.close()

    def _connect(self) -> _Connection:
        assert self._socket is not None, "the stage is not open"
        return _Connection(self._socket, self.stream, self.live)

    def _frame(self, packet: Packet) -> Frame:
        image = packet.image
        if image is not None:
            image = Image(self._loaned(image.data), image.format, image.matrix, image.full_range)
        arrays = {name: self._loaned(array) for name, array in packet.arrays.items()}
        meta = {**packet.meta, "remote_seq": packet.seq, "remote_stream": packet.stream}
        return Frame(image=image, arrays=arrays, pts_ns=packet.pts_ns, meta=meta)

    def _loaned(self, array: NDArray[Any]) -> NDArray[Any]:
        data: NDArray[Any] = self.loan(array.shape, array.dtype)
        np.copyto(data, array)
        return data


class _Connection:
    """The socket from one silence to the next, as `Watch` wants it."""

    error_reason = "malformed"

    def __init__(self, socket: Socket, stream: str, live: bool) -> None:
        self.errors = 0
        self._socket, self._stream, self._live = socket, stream, live

    def read(self, timeout_s: float) -> Packet | None:
        """The next frame; None after a time of silence, or of nothing but rubbish."""
        parts = self._socket.receive(timeout_s)
        if parts is None:
            return None
        try:
            packet = decode(parts)
        except WireError:
            self.errors += 1
            return None
        if self._stream and packet.stream != self._stream:
            return None  # SUB filters by what a name begins with, PULL not at all
        if packet.end:
            raise Disconnected("the peer ended the stream") if self._live else Over("the end")
        return packet

    def close(self, wait: bool = True) -> None:
        """The socket is the stage's."""
