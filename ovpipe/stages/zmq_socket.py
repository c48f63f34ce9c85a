"""Zmq socket: the sockets of zmq-in and zmq-out, and who may reach them.

Law: nobody but processes of this machine reaches a socket that is bound here, unless the user says
`allow_remote`, or gives keys: then a peer needs a key of its own that is on the list `allow`, since
CURVE alone would let every stranger in. What waits in a socket is bounded, in messages and in the
bytes of a part, and so is what is taken out of it; but ZeroMQ holds all parts of a message until
the last has come, be they ever so many. No key is ever shown. An ipc socket is its owner's alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import zmq
import zmq.auth.thread

from ovpipe.errors import PreflightError
from ovpipe.stages.zmq_wire import MAGIC, MAX_BYTES, MAX_PARTS

Mode = Literal["pull", "sub", "push", "pub"]

_TCP = re.compile(r"tcp://(\[[0-9A-Fa-f:]+\]|[^\s:/\[\]]+):(\d{1,5})")
_IPC = re.compile(r"ipc://(/[^\0]+)")
_LOOPBACK = re.compile(r"localhost|127\.\d+\.\d+\.\d+|\[::1\]")
_KEY = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_DOMAIN = "ovpipe"  # of who asks whether a key may come in: the name must be the same for both
_MAX_IPC = 100
_HEARTBEAT_MS = 5000
_WAITING = 8
"""Messages that may wait on each side of a socket."""


@dataclass(frozen=True)
class Link:
    """What the options say of a socket; `mode` is this side's."""

    address: str
    mode: Mode
    bind: bool
    allow_remote: bool = False
    secret_key: str = field(default="", repr=False)
    server_key: str = ""
    allow: Sequence[str] = ()

    def check(self) -> None:
        """PreflightError for what cannot be, or is not safe."""
        address = self.address
        tcp, ipc = _TCP.fullmatch(address), _IPC.fullmatch(address)
        if not tcp and not ipc:
            raise PreflightError(
                f"address '{address}': write tcp://127.0.0.1:5555 or ipc:///run/me/frames"
            )
        if tcp and not 0 < int(tcp[2]) < 65536:
            raise PreflightError(f"address '{address}': a port is 1 to 65535")
        if ipc and len(os.fsencode(ipc[1])) > _MAX_IPC:
            raise PreflightError(f"address '{address}': longer than {_MAX_IPC} bytes")
        for name, keys in (
            ("secret_key", [self.secret_key]),
            ("server_key", [self.server_key]),
            ("allow", self.allow),
        ):
            if any(key and not _KEY.fullmatch(key) for key in keys):
                raise PreflightError(f"{name}: a key is 40 characters, as zmq.curve_keypair() says")
        if self.bind:
            self._check_bind(bool(tcp and not _LOOPBACK.fullmatch(tcp[1])))
        elif bool(self.secret_key) != bool(self.server_key):
            raise PreflightError(
                "who connects with keys needs both: `secret_key`, its own, and `server_key`, the "
                "public one of whom it connects to"
            )

    def _check_bind(self, beyond: bool) -> None:
        if bool(self.secret_key) != bool(self.allow):
            raise PreflightError(
                "who binds with keys needs both: `secret_key`, its own, and `allow`, the public "
                "keys of all that may connect; without the list every stranger could"
            )
        if beyond and not self.secret_key and not self.allow_remote:
            raise PreflightError(
                f"address '{self.address}' is reached from other machines: give `secret_key` and "
                "`allow`, or say `allow_remote: true` where all of that network may send or read"
            )


class Socket:
    """An open socket. One thread only. Raises PreflightError where it cannot be opened."""

    def __init__(self, link: Link, stream: str = "") -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._guard: Any = None
        self._socket = self._context.socket(getattr(zmq, link.mode.upper()))
        try:
            self._open(link, stream)
        except (zmq.ZMQError, OSError) as error:
            self.close()
            what = "bind" if link.bind else "connect to"
            told = getattr(error, "strerror", None) or str(error)
            raise PreflightError(f"cannot {what} '{link.address}': {told}") from None

    def _open(self, link: Link, stream: str) -> None:
        socket = self._socket
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.RCVHWM, _WAITING)
        socket.set(zmq.SNDHWM, _WAITING)
        socket.set(zmq.MAXMSGSIZE, MAX_BYTES)
        socket.set(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)  # a peer whose machine is gone is noticed
        socket.set(zmq.HEARTBEAT_TIMEOUT, 2 * _HEARTBEAT_MS)
        if link.mode == "push":
            socket.set(zmq.IMMEDIATE, 1)  # what nobody is there to take is not kept
        if link.mode == "sub":
            socket.set(zmq.SUBSCRIBE, MAGIC + stream.encode())
        if link.secret_key:
            self._lock(link)
        if not link.bind:
            socket.connect(link.address)
            return
        before = os.umask(0o177)
        try:
            socket.bind(link.address)
        finally:
            os.umask(before)

    def _lock(self, link: Link) -> None:
        secret = link.secret_key.encode()
        self._socket.curve_secretkey = secret
        self._socket.curve_publickey = zmq.curve_public(secret)
        if not link.bind:
            self._socket.curve_serverkey = link.server_key.encode()
            return
        self._guard = zmq.auth.thread.ThreadAuthenticator(self._context)
        self._guard.start()
        self._guard.configure_curve_callback(_DOMAIN, _Allowed(link.allow))
        self._socket.zap_domain = _DOMAIN.encode()
        self._socket.curve_server = True

    def receive(self, timeout_s: float) -> list[bytes] | None:
        """The parts of a message; None after `timeout_s`.

        Of a message with more than MAX_PARTS one more than that: the others go as they are read.
        """
        if not self._socket.poll(round(timeout_s * 1000)):
            return None
        parts = [self._socket.recv()]
        while self._socket.get(zmq.RCVMORE):
            part = self._socket.recv()
            if len(parts) <= MAX_PARTS:
                parts.append(part)
        return parts

    def send(self, parts: list[Any], timeout_s: float) -> bool:
        """False where nobody took it in time; PUB always finds somebody, or needs nobody."""
        if not self._socket.poll(round(timeout_s * 1000), zmq.POLLOUT):
            return False
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def close(self, linger_s: float = 0.0) -> None:
        """Close; with `linger_s` what was sent may still leave for so long."""
        self._socket.close(linger=round(linger_s * 1000))
        if self._guard is not None:
            self._guard.stop()
        self._context.term()


class _Allowed:
    """The list of keys, as pyzmq asks it."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = frozenset(key.encode() for key in keys)

    def callback(self, domain: str, key: bytes) -> bool:
        return key in self._keys
