"""Publish: a stream sent to an RTSP or RTMP server, as long as there is one.

Law: no call waits for the network: a process of its own does (`ovpipe.stages.relay`), fed through
a pipe that is never waited for, but for GRACE_S at the end of the stream. A server that is away,
that hangs or refuses us is tried again for ever, as a camera is (`ovpipe.stages.camera`); frames
that cannot be sent meanwhile, or for which there is no room because it is slow, fail with
`link_lost`. Each connection begins with a key frame. Each change is one line in the log, without
name, password, query or, of an RTMP address, the key at its end.
"""

from __future__ import annotations

import io
import json
import logging
import os
import random
import select
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlsplit

from ovpipe.errors import FrameError, PreflightError
from ovpipe.frame import Frame
from ovpipe.stages.address import Address, Transport, address
from ovpipe.stages.camera import Camera, Timing
from ovpipe.stages.child import launched
from ovpipe.stages.paths import STREAM, safe_name
from ovpipe.stages.recording import Hook, Output

FORMATS = {"rtmp": "flv", "rtmps": "flv", "rtsp": "rtsp", "rtsps": "rtsp"}
GRACE_S = 2.0
_FIRST_SIGN_S = 10.0
_MAX_WAITING_BYTES = 4 * 2**20


class Relay(io.RawIOBase):
    """One connection: a process, and what waits to be written to it. Never waits, but in close."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._request = request
        self._introduced = False
        self.name = "the connection"
        self.connected = False
        self.over = ""
        """Why it is over, as the process said it; "" while it is not."""
        self._said = b""
        self._waiting: deque[memoryview] = deque()
        self._waiting_bytes = 0
        self._process = subprocess.Popen(
            launched([sys.executable, "-P", "-m", "ovpipe.stages.relay"]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            process_group=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)

    def introduce(self, header: bytes) -> None:
        """What the video is; goes before all that was written."""
        line = json.dumps({**self._request, "header": len(header)})
        written, self._waiting = self._waiting, deque()
        self._introduced = True
        self._put(f"{line}\n".encode() + header)
        self._waiting.extend(written)

    @property
    def full(self) -> bool:
        """Whether a frame more would only wait."""
        return self._waiting_bytes > _MAX_WAITING_BYTES

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: Any) -> int:
        """Take a block; what the pipe has no room for waits here."""
        self._put(bytes(data))
        return len(data)

    def pump(self) -> bool:
        """Write what can be, hear what was said; whether something moved, or nothing waits."""
        moved = not self._waiting
        while self._waiting and self._introduced:
            try:
                count = os.write(self._in, self._waiting[0])
            except BlockingIOError:
                break
            except OSError:  # it ended; it has said why
                break
            moved = True
            self._waiting_bytes -= count
            if count == len(self._waiting[0]):
                self._waiting.popleft()
            else:
                self._waiting[0] = self._waiting[0][count:]
        self._hear()
        return moved

    def close(self) -> None:
        """Send what waits, for a moment; then nothing is left of it."""
        if self.closed:
            return
        super().close()
        deadline_s = time.monotonic() + (GRACE_S if self.connected and not self.over else 0.0)
        ready = select.poll()
        ready.register(self._in, select.POLLOUT)
        ready.register(self._out, select.POLLIN)
        while self._waiting and not self.over and time.monotonic() < deadline_s:
            ready.poll(max(0.0, deadline_s - time.monotonic()) * 1000)
            self.pump()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline_s - time.monotonic()))
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def _put(self, data: bytes) -> None:
        self._waiting.append(memoryview(data))
        self._waiting_bytes += len(data)

    def _hear(self) -> None:
        with suppress(BlockingIOError):
            while data := os.read(self._out, 4096):
                self._said += data
            if not self.over:
                self._lines()
                self.over = self.over or "lost the process that sends has ended"
            return
        self._lines()

    def _lines(self) -> None:
        *lines, self._said = self._said.split(b"\n")
        for line in lines:
            if line == b"connected":
                self.connected = True
            else:
                self.over = line.decode(errors="replace")


class Peer:
    """The server of one stream, through all its absences."""

    def __init__(
        self, stage: str, where: Address, form: str, options: dict[str, str], timeout_s: float
    ) -> None:
        self._log = logging.getLogger(f"ovpipe.{stage}")
        self._shown = _discreet(where)
        self._request = {"url": where.opened, "format": form, "options": options}
        timing = Timing(timeout_s, timeout_s + _FIRST_SIGN_S)
        self.camera = Camera(time.monotonic(), random.random, timing)
        self.relay: Relay | None = None
        self._told: tuple[str, str] | None = None

    def due(self) -> bool:
        """Whether another attempt to connect is."""
        at_s = self.camera.connect_at_s
        return at_s is not None and time.monotonic() >= at_s

    def begin(self) -> Relay:
        """The attempt; FrameError where none is due."""
        if not self.due():
            self.tell()
            raise FrameError(f"no connection: {self.camera.why}", "link_lost")
        self.camera.begin(time.monotonic())
        self.relay = Relay(self._request)
        return self.relay

    def look(self) -> bool:
        """Bring everything up to date; False where the connection is over, and to be closed."""
        relay, camera, now_s = self.relay, self.camera, time.monotonic()
        if relay is None:
            return False
        moved = relay.pump()
        if relay.over:
            word, _, why = relay.over.partition(" ")
            if word == "denied":
                camera.denied(now_s, why)
            else:
                camera.lost(now_s, why or "the server ended the connection")
            self.relay = None
        elif relay.connected and moved:
            camera.frame(now_s)
        else:
            camera.look(now_s)
            if camera.state == "stalled":
                self.tell()
                camera.lost(now_s, camera.why.replace("frame", "answer"))
                relay.over = "lost no answer"  # nothing is waited for when it is closed
                self.relay = None
        self.tell()
        return self.relay is not None

    def end(self) -> None:
        """No more."""
        if self.camera.state != "ended":
            self.camera.end(time.monotonic(), "the stream has ended")
        self.relay = None

    def tell(self) -> None:
        """What has changed, in one line."""
        camera = self.camera
        told = camera.state, camera.why
        if told == self._told:
            return
        self._told = told
        word = "publishing" if camera.state == "streaming" else camera.state
        why = "connected" if camera.state == "streaming" else camera.why
        wait = ""
        if camera.connect_at_s is not None:
            wait = f"; next attempt in {max(0.0, camera.connect_at_s - time.monotonic()):.1f} s"
        self._log.warning("%s: %s (%s)%s", self._shown, word, why, wait)


class Publish:
    """Servers, one address a stream."""

    container = "nut"
    eager = True

    def __init__(
        self,
        stage: str,
        url: str,
        username: str,
        password: str,
        transport: Transport,
        timeout_s: float,
        streams: tuple[str, ...],
    ) -> None:
        self._stage, self._url = stage, url
        self._username, self._password = username, password
        self._transport, self._timeout_s = transport, timeout_s
        self._streams = streams
        self._peers: dict[str, Peer] = {}

    def open(self) -> None:
        """Whether the address means anything; nothing is connected to yet."""
        self._where("stream")
        if len(set(self._streams)) > 1 and STREAM not in self._url:
            raise PreflightError(
                f"path: {len(set(self._streams))} streams cannot be published at one address; "
                "put {stream} into it"
            )

    def begin(self, frame: Frame) -> io.RawIOBase:
        """The beginning of a connection; FrameError where it is not yet time for another one."""
        return self._peer(frame.stream).begin()

    def begun(self, recording: Output) -> None:
        """Say what will come before anything does: to connect takes a while."""
        recording.start()
        assert isinstance(recording.file, Relay)
        recording.file.introduce(recording.header)

    def admit(self, stream: str, file: io.RawIOBase) -> bool:
        """Look at the connection; False where it is over.

        FrameError where it takes no frame now.
        """
        peer = self._peer(stream)
        if not peer.look():
            return False
        assert isinstance(file, Relay)
        if not file.connected:
            raise FrameError(f"{peer.camera.state} to the server", "link_lost")
        if file.full:
            raise FrameError("the server is slower than the stream", "link_lost")
        return True

    def lost(self, file: io.RawIOBase) -> bool:
        """Never: there is no file."""
        return False

    def hook(self, file: io.RawIOBase) -> Hook | None:
        """Nothing."""
        return None

    def ended(self, file: io.RawIOBase) -> None:
        """Nothing: it is closed."""

    def end_of_stream(self, stream: str) -> None:
        """No more of this one."""
        peer = self._peers.pop(stream, None)
        if peer is not None:
            peer.end()

    def make_room(self, error: OSError) -> bool:
        """There is no disk."""
        return False

    def close(self) -> None:
        """Nothing: streams end."""

    def _peer(self, stream: str) -> Peer:
        if stream not in self._peers:
            where, form, options = self._where(stream)
            self._peers[stream] = Peer(self._stage, where, form, options, self._timeout_s)
        return self._peers[stream]

    def _where(self, stream: str) -> tuple[Address, str, dict[str, str]]:
        url = self._url.replace(STREAM, quote(safe_name(stream), safe=""))
        where = address(url, self._username, self._password)
        options: dict[str, str] = {}
        if where.scheme in ("rtsp", "rtsps"):
            options = {"rtsp_transport": self._transport}
        return where, FORMATS[where.scheme], options


def scheme_of(path: str) -> str:
    """The scheme of an address to publish at; "" for a path."""
    scheme, found, _ = path.partition("://")
    if not found:
        return ""
    if scheme.lower() not in FORMATS:
        raise PreflightError(
            f"path '{scheme}://...': a stream is published at rtsp://, rtsps://, rtmp:// or "
            "rtmps://; or give the path of a file"
        )
    return scheme.lower()


def _discreet(where: Address) -> str:
    """The address as it may be shown: what ends an RTMP address is often a secret key."""
    if FORMATS.get(where.scheme) != "flv":
        return where.shown
    parts = urlsplit(where.shown)
    app, _, key = parts.path.rpartition("/")
    return f"{where.scheme}://{parts.netloc}{app}/{'...' if key else ''}"
