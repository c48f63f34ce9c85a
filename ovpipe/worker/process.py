"""A worker process: the stages that live in it, from open to close, and its last words.

One stage, or several of which each but the first reads one of the others: they work on one thread,
the first by itself and the others when they are called with a frame.

Law: all are open before any is said to be ready, and all are ready for frames before the first
takes or makes one. What one of them raises ends the process, and is told as that one's failure.
Each of them is closed, whatever happened to the others.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from ovpipe.errors import PipelineClosed, PreflightError
from ovpipe.transport.member import Member
from ovpipe.worker.blame import Blamed, blaming
from ovpipe.worker.guest import Guest
from ovpipe.worker.run import Left, SourceEnded, Worker

_MAX_TRACEBACK = 16_000


def assemble(members: Sequence[Member]) -> list[Worker]:
    """A worker for each member, the host first; each guest at the one that it reads."""
    workers: dict[int, Worker] = {}
    for member in members:
        neighbour = member.assignment["neighbour"]
        if neighbour is None:
            workers[member.index] = Worker(member)
        else:
            workers[member.index] = guest = Guest(member)
            workers[neighbour].guests.append(guest)
    return list(workers.values())


def live(workers: Sequence[Worker]) -> None:
    """The whole life of the stages of one process. Raises Blamed, with what ended it early."""
    with ExitStack() as closing:
        try:
            for worker in workers:
                closing.callback(blaming, worker.member, worker.close)
                blaming(worker.member, worker.open)
            for worker in reversed(workers):
                worker.ready()
            host = workers[0]
            host.join(None)
            for guest in workers[1:]:
                guest.join(host.mail)
            for worker in reversed(workers):
                blaming(worker.member, worker.begin)
            blaming(host.member, host.work)
            for worker in workers:
                blaming(worker.member, worker.leave)
        except BaseException:
            with suppress(BaseException):  # the first cause is the one to tell
                closing.close()
            raise
    for worker in workers:
        worker.end()


def run(members: Sequence[Member]) -> int:
    """Run the stages; tell the supervisor how it ended. The exit code of the process."""
    try:
        live(assemble(members))
    except PipelineClosed:
        return 1
    except Blamed as blamed:
        if isinstance(blamed.cause, Left):
            return 0
        _tell(blamed.member, blamed.cause)
        return 1
    except BaseException as error:  # noqa: BLE001 - of no stage in particular
        _tell(members[0], error)
        return 1
    for member in members:
        member.say("finished")
    return 0


def _tell(member: Member, error: BaseException) -> None:
    if isinstance(error, PipelineClosed):
        return
    if isinstance(error, SourceEnded):
        member.say("failed", what="ended", cause=str(error), traceback="")
    elif isinstance(error, PreflightError):
        member.say("failed", what="preflight", cause=str(error), traceback="")
    else:  # SystemExit too: an early exit is a failure
        text = "".join(traceback.format_exception(error))[-_MAX_TRACEBACK:]
        cause = f"{type(error).__name__}: {error}".strip().removesuffix(":")
        member.say("failed", what="crash", cause=cause[:2000], traceback=text)


def main(fds: Sequence[int]) -> None:
    """Join the run whose control channels are these descriptors; does not return."""
    members = [Member.join(socket.socket(fileno=fds[0]))]
    members += [Member.join(socket.socket(fileno=fd), members[0].inbox) for fd in fds[1:]]
    for member in members:
        member.listen(on_lost=lambda: os._exit(1))
    code = run(members)
    with suppress(ValueError, OSError):
        sys.stdout.flush()
    for member in reversed(members):  # the first has the inbox of all
        member.close()
    # Not a normal exit: threads of native libraries may still run, and a crash of theirs while
    # the interpreter is taken down would turn a clean end into a failure.
    sys.stderr.flush()
    os._exit(code)
