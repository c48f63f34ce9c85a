"""The desk: the run's socket, at which others of the same user ask for things while it runs.

A SOCK_SEQPACKET socket in the run's folder; a request is one JSON object of at most MAX_REQUEST
bytes, and so is each answer:

    {"ask": "drain"}, {"ask": "kill"}         {}
    {"ask": "restart", "stage": NAME}         {}
    {"ask": "peek", "edge": EDGE,             {"length", "slots", "slot_bytes", "stream", "source"}
        "stream": NAME, "timeout_s": 5}         with a memfd (transport/look.py)
    {"ask": "logs", "follow": false}          {"lines": [[number, at_s, worker, text], ...],
                                                "missed": 0, "more": true}, again and again
    what cannot be done                       {"error": TEXT, "kind": "wrong" | "none"}

Law: nobody who asks stops or slows the run. Nothing here waits; whoever does not read what it is
sent, says what is no request, asks too often or is of another user is hung up on. There are at
most MAX_VISITORS, and of a new one too many the one that was silent longest goes. What is owed to
a follower of the log is only the number of the next line.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import selectors
import socket
import struct
import termios
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from ovpipe.errors import ConfigError, OvpipeError
from ovpipe.supervisor.launch import Plan
from ovpipe.supervisor.logbook import LogBook
from ovpipe.supervisor.post import Post
from ovpipe.supervisor.viewing import Viewing, Wish

SOCKET = "control"
MAX_REQUEST = 4096
MAX_VISITORS = 32
MAX_PEEK_S = 3600.0
_MAX_TEXT = 1024
_REQUESTS_PER_TICK = 200
_VISITORS_PER_TICK = 200
_LINES = 100
_LINE_BYTES = 1 << 14  # six times that as JSON, at worst: a message has a place in any buffer
_BACKLOG = 64


class Orders(Protocol):
    """What can be asked of a supervisor."""

    def drain(self) -> None:
        """Finish what is in flight, and end."""

    def kill(self) -> None:
        """End at once."""

    def restart(self, stage: str) -> None:
        """Give a stage new processes. Raises ConfigError, OvpipeError."""


class _HangUp(Exception):
    """This visitor is not to be served any longer."""


class _Visitor:
    """One connection. `next_line`: of the log, while it is sent; `wish`: until it is answered."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.heard_s = time.monotonic()
        self.requests = 0
        self.wish: Wish | None = None
        self.next_line: int | None = None
        self.follows = False
        self.writes = False

    @property
    def busy(self) -> bool:
        return self.wish is not None or self.next_line is not None

    def send(self, message: dict[str, Any], fd: int | None = None) -> None:
        """Send an answer now. Raises BlockingIOError where there is no room for it."""
        data = json.dumps(message, separators=(",", ":")).encode()
        fds = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        self.channel.sendmsg([data], fds, socket.MSG_DONTWAIT)

    def has_read_all(self) -> bool:
        """Whether nothing that was sent is still on its way: a copy of a frame may be large."""
        unread = array.array("i", [0])
        fcntl.ioctl(self.channel, termios.TIOCOUTQ, unread)
        return not unread[0]


class Desk:
    """Serves visitors on the supervisor's own thread, by its selector.

    `viewing`: those who want to see a frame.
    """

    def __init__(
        self,
        folder: Path,
        selector: selectors.BaseSelector,
        plan: Plan,
        posts: Sequence[Post],
        orders: Orders,
    ) -> None:
        self._path = folder / SOCKET
        self._selector = selector
        self._book = LogBook()
        self.viewing = Viewing(plan, posts)
        self._orders = orders
        self._tell: Callable[[str], None] = lambda text: None
        self._listener: socket.socket | None = None
        self._listens = False
        self._came = 0
        self._visitors: list[_Visitor] = []

    def open(self, tell: Callable[[str], None]) -> None:
        """Listen; where that cannot be, say so: the run goes on without.

        `tell`: also told who asks for the end, since nobody at the run's terminal did.
        """
        self._tell = tell
        try:
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._listener.setblocking(False)
            self._listener.bind(os.fspath(self._path))
            self._path.chmod(0o600)
            self._listener.listen(_BACKLOG)
            self._listen(True)
        except OSError as error:
            tell(f"nobody can ask this run for anything: {error}")

    def _listen(self, wanted: bool) -> None:
        if self._listener is None or wanted == self._listens:
            return
        self._listens = wanted
        if wanted:
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        else:
            self._selector.unregister(self._listener)

    def close(self) -> None:
        """Hang up on everybody. Idempotent."""
        for visitor in list(self._visitors):
            self._part(visitor)
        if self._listener is not None:
            self._listen(False)
            self._listener.close()
            self._listener = None

    def tick(self, now_s: float) -> None:
        """A new period, in which everybody may ask again."""
        self.viewing.tick(now_s)
        self._came = 0
        self._listen(True)
        for visitor in self._visitors:
            visitor.requests = 0

    def note(self, worker: str, text: str) -> None:
        """A new line for the log."""
        self._book.add(worker, text)
        for visitor in self._visitors:
            if visitor.follows:
                self._watch(visitor, writes=True)

    # -- who comes and goes -----------------------------------------------------------------

    def _accept(self) -> None:
        assert self._listener is not None
        self._came += 1
        if self._came > _VISITORS_PER_TICK:
            self._listen(False)
            return
        try:
            channel, _ = self._listener.accept()
        except OSError:  # it is gone again, or there is no descriptor to be had
            return
        channel.setblocking(False)
        credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        _, uid, _ = struct.unpack("iII", credentials)
        if uid != os.getuid():
            channel.close()
            return
        if len(self._visitors) >= MAX_VISITORS:
            self._part(min(self._visitors, key=lambda visitor: (visitor.busy, visitor.heard_s)))
        visitor = _Visitor(channel)
        self._visitors.append(visitor)
        self._selector.register(channel, selectors.EVENT_READ, lambda: self._serve(visitor))

    def _part(self, visitor: _Visitor) -> None:
        if visitor not in self._visitors:
            return
        self._visitors.remove(visitor)
        if visitor.wish is not None:
            self.viewing.forget(visitor.wish)
        with suppress(KeyError, ValueError):
            self._selector.unregister(visitor.channel)
        visitor.channel.close()

    def _watch(self, visitor: _Visitor, *, writes: bool) -> None:
        if visitor.writes != writes:
            visitor.writes = writes
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writes else 0)
            self._selector.modify(visitor.channel, events, lambda: self._serve(visitor))

    # -- what they ask ----------------------------------------------------------------------

    def _serve(self, visitor: _Visitor) -> None:
        """Something can be read, or written."""
        try:
            with suppress(BlockingIOError):
                self._hear(visitor)
            if visitor.next_line is not None:
                self._send_lines(visitor, visitor.next_line)
        except (_HangUp, OSError):
            self._part(visitor)

    def _hear(self, visitor: _Visitor) -> None:
        # Room for no descriptor: the kernel closes those that came along.
        data, _, flags, _ = visitor.channel.recvmsg(MAX_REQUEST, 0, socket.MSG_DONTWAIT)
        visitor.heard_s = time.monotonic()
        visitor.requests += 1
        if not data or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise _HangUp
        if visitor.requests > _REQUESTS_PER_TICK or visitor.busy or not visitor.has_read_all():
            raise _HangUp
        try:
            asked = json.loads(data)
        except (ValueError, RecursionError):
            raise _HangUp from None
        if type(asked) is not dict:
            raise _HangUp
        try:
            self._do(visitor, asked)
        except ConfigError as error:
            self._say(visitor, {"error": str(error), "kind": "wrong"})
        except OvpipeError as error:
            self._say(visitor, {"error": str(error), "kind": "none"})

    def _say(self, visitor: _Visitor, message: dict[str, Any], fd: int | None = None) -> None:
        """Answer; who has no room for the answer is hung up on."""
        try:
            visitor.send(message, fd)
        except OSError:
            raise _HangUp from None

    def _do(self, visitor: _Visitor, asked: dict[str, Any]) -> None:
        match asked:
            case {"ask": "drain"}:
                self._say(visitor, {})
                self._tell("draining, as asked for: what is in flight is finished")
                self._orders.drain()
            case {"ask": "kill"}:
                self._say(visitor, {})
                self._tell("ending at once, as asked for")
                self._orders.kill()
            case {"ask": "restart", "stage": str(stage)} if len(stage) <= _MAX_TEXT:
                self._orders.restart(stage)
                self._say(visitor, {})
            case {"ask": "peek", "edge": str(edge), "timeout_s": int() | float() as timeout_s} if (
                len(edge) <= _MAX_TEXT and 0 <= timeout_s <= MAX_PEEK_S
            ):
                stream = asked.get("stream")
                if stream is not None and not isinstance(stream, str):
                    raise _HangUp
                self._peek(visitor, edge, stream, timeout_s)
            case {"ask": "logs", "follow": bool(follows)}:
                visitor.next_line, visitor.follows = 0, follows
                self._watch(visitor, writes=True)
            case _:
                raise _HangUp

    def _peek(self, visitor: _Visitor, edge: str, stream: str | None, timeout_s: float) -> None:
        def answer(message: dict[str, Any], fd: int | None) -> None:
            visitor.wish = None
            try:
                self._say(visitor, message, fd)
            except _HangUp:
                self._part(visitor)

        visitor.wish = self.viewing.want(edge, stream, time.monotonic(), timeout_s, answer)

    def _send_lines(self, visitor: _Visitor, number: int) -> None:
        """As many lines as there is room for in one message."""
        lines, missed = self._book.since(number, _LINES, _LINE_BYTES)
        after = lines[-1].number + 1 if lines else self._book.next
        more = visitor.follows or after < self._book.next
        if lines or not visitor.follows:
            rows = [[line.number, line.at_s, line.worker, line.text] for line in lines]
            # What comes before the first line in the book was said before anybody asked.
            missed = missed if number else 0
            try:
                visitor.send({"lines": rows, "missed": missed, "more": more})
            except BlockingIOError:
                return  # again when there is room; the book forgets meanwhile, and that is counted
        visitor.next_line = after if more else None
        self._watch(visitor, writes=after < self._book.next)
