"""The control channel: small JSON messages and file descriptors, one socket pair per worker.

The supervisor keeps one end, the worker the other; nobody else can reach it, since it has no
name. End-of-file on it means that the other side is dead.

Law: a message arrives whole or not at all. A message that is no JSON object raises WireError.
What may be too large for one message (a graph, a reading) is told in parts, in order, by one
thread at a time on each side.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import socket
from typing import Any

from ovpipe.errors import WireError

MAX_MESSAGE = 1 << 18
_MAX_FDS = 4
_PART = MAX_MESSAGE // 8  # of text, which as JSON within JSON may become longer
_STDERR = 2


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a new channel."""
    ours, theirs = map(_not_standard, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MAX_MESSAGE)
    return ours, theirs


def _not_standard(end: socket.socket) -> socket.socket:
    """The socket, above the standard descriptors: the host may have closed its own."""
    if end.fileno() > _STDERR:
        return end
    with end:
        return socket.socket(fileno=fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, _STDERR + 1))


def send(channel: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> bool:
    """Send one message; False where the other side is gone. Raises WireError where too large."""
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) > MAX_MESSAGE:
        raise WireError("size", f"control message of {len(data)} bytes")
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        channel.sendmsg([data], ancillary)
    except (BrokenPipeError, ConnectionError):
        return False
    return True


def tell(channel: socket.socket, message: dict[str, Any]) -> None:
    """Send a message of any size. Nothing happens where the other side is gone."""
    text = json.dumps(message, separators=(",", ":"))
    parts = [text[at : at + _PART] for at in range(0, len(text), _PART)]
    for part in parts[:-1]:
        send(channel, {"part": part})
    send(channel, {"last": parts[-1]})


def hear(channel: socket.socket) -> dict[str, Any] | None:
    """The next message that was told, or sent; None at end-of-file."""
    parts = []
    while (received := receive(channel)) is not None:
        message, _ = received
        if "part" in message:
            parts.append(message["part"])
        elif "last" in message:
            return _object("".join(parts) + message["last"])
        else:
            return message
    return None


def receive(channel: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and its descriptors (now ours); None at end-of-file."""
    space = socket.CMSG_LEN(_MAX_FDS * array.array("i").itemsize)
    for _ in range(2):
        try:
            data, ancillary, _, _ = channel.recvmsg(MAX_MESSAGE, space, socket.MSG_CMSG_CLOEXEC)
            break
        except ConnectionError:
            # Said once, where the other side closed with messages of ours unread: what it had
            # sent itself is still there.
            continue
    else:
        return None
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if not data:
        return None
    try:
        return _object(data), list(fds)
    except WireError:
        for fd in fds:
            os.close(fd)
        raise


def _object(data: str | bytes) -> dict[str, Any]:
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WireError("control", str(error)) from None
    if type(message) is not dict:
        raise WireError("control", "not an object")
    return message
