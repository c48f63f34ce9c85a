"""The ways in which a stage can go wrong, by name."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from typing import Literal, NoReturn

from ovpipe.errors import FrameError, PreflightError

How = Literal[
    "crash",
    "frame_error",
    "preflight",
    "memory",
    "sys_exit",
    "exit",
    "kill",
    "abort",
    "segfault",
    "hang",
]


def misbehave(how: How, argument: str | int | float = "") -> NoReturn:
    """Go wrong, never to return.

    crash        raise ValueError(argument)
    frame_error  raise FrameError, its reason the argument (default: infer_error)
    preflight    raise PreflightError(argument)
    memory       raise MemoryError
    sys_exit     sys.exit(argument)
    exit         os._exit(argument): no handler runs
    kill         SIGKILL to this process
    abort        SIGABRT
    segfault     read address 0: SIGSEGV
    hang         say so on stderr and wait for ever; signals are still handled
    Raises ValueError for another word.
    """
    code = int(argument or 0) if how in ("exit", "sys_exit") else 0
    match how:
        case "crash":
            raise ValueError(argument or "on purpose")
        case "frame_error":
            raise FrameError("on purpose", str(argument or "infer_error"))
        case "preflight":
            raise PreflightError(str(argument) or "on purpose")
        case "memory":
            raise MemoryError
        case "sys_exit":
            sys.exit(code)
        case "exit":
            os._exit(code)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "abort":
            os.abort()
        case "segfault":
            ctypes.string_at(0)
        case "hang":
            print("hangs, as it was told to", file=sys.stderr, flush=True)
            while True:
                threading.Event().wait()
    raise ValueError(f"'{how}' is no way to misbehave")
