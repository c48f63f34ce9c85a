"""A look: one frame as it is published, copied once for somebody who wants to see it.

    supervisor -> member   look {stream, or -1 for any}
    member -> supervisor   seen {answers, stream, length, slots, slot_bytes} + a memfd, or seen
                           {answers, error}

The memfd is cut into slots as a pool is: slot 0 holds the frame's FRAME message of `length` bytes,
in which an array's slot is one of the others. It is sealed against shrinking, so that whoever maps
it is never hurt by who made it; what is not used of a slot has no pages.

Law: whoever publishes pays for one test while nobody looks, and for one copy when somebody does;
it never waits. Each wish is answered once, by the next frame that it fits. `rebuild` gives a
Frame or raises WireError, whatever it is given, and keeps no descriptor.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovpipe.errors import WireError
from ovpipe.frame import Frame
from ovpipe.transport.ledger import MAX_REFS
from ovpipe.transport.pool import DTYPE_CODE, PAGE, Pool, slot_size
from ovpipe.transport.unpack import frame_of
from ovpipe.transport.wire import (
    FRAME,
    MAX_MESSAGE,
    ArrayRef,
    decode,
    encode_body,
    encode_frame,
)

ANY = -1
_MAX_BYTES = 1 << 40
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL

Say = Callable[[dict[str, Any], tuple[int, ...]], object]
"""Sends one message with descriptors to the supervisor."""


def _unheard(message: dict[str, Any], fds: tuple[int, ...]) -> None:
    """For a sender that nobody can ask."""


class Looks:
    """Who wants to see the next frame of a worker. `wanted` is true where somebody does."""

    def __init__(self, say: Say = _unheard) -> None:
        self.wanted: dict[int, None] = {}
        self._say = say

    def ask(self, stream: int) -> None:
        """Show the next frame of `stream`, or of ANY. From any thread."""
        self.wanted[stream] = None

    def show(
        self, frame: Frame, stream: int, named: dict[str, NDArray[Any]], meta: dict[str, Any]
    ) -> None:
        """This frame is published: copy it for those that it fits, if there are any."""
        answers = [key for key in (stream, ANY) if key in self.wanted]
        if not answers:
            return
        for key in answers:
            del self.wanted[key]
        try:
            fd, how = _copy(frame, stream, named, meta)
        except OSError as error:
            why = f"no memory for a copy of the frame: {error.strerror}"
            self._say({"t": "seen", "answers": answers, "error": why}, ())
            return
        try:
            self._say({"t": "seen", "answers": answers, "stream": stream, **how}, (fd,))
        finally:
            os.close(fd)


def _copy(
    frame: Frame, stream: int, named: dict[str, NDArray[Any]], meta: dict[str, Any]
) -> tuple[int, dict[str, int]]:
    refs = [
        ArrayRef(name, 0, slot, DTYPE_CODE[array.dtype], array.shape)
        for slot, (name, array) in enumerate(named.items(), 1)
    ]
    message = encode_frame(
        encode_body(refs, meta), len(refs), link=0, epoch=0, record=0, stream=stream,
        generation=0, seq=frame.seq, pts_ns=frame.pts_ns, captured_ns=frame.captured_ns,
    )  # fmt: skip
    slot_bytes = slot_size(max([len(message), *(array.nbytes for array in named.values())]))
    slots = 1 + len(refs)
    fd = os.memfd_create("ovpipe-look", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, slots * slot_bytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        # Written, not mapped: where there is no memory for it, that is an error and no signal.
        _write(fd, memoryview(message), 0)
        for slot, array in enumerate(named.values(), 1):
            if array.nbytes:
                flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
                _write(fd, flat.data, slot * slot_bytes)
    except BaseException:
        os.close(fd)
        raise
    return fd, {"length": len(message), "slots": slots, "slot_bytes": slot_bytes}


def _write(fd: int, data: memoryview, at: int) -> None:
    while data:
        count = os.pwrite(fd, data, at)
        data, at = data[count:], at + count


def rebuild(fd: int, said: dict[str, Any], stream: str, source: str) -> Frame:
    """The frame in the memfd `fd` (closed here), described by what was said of it.

    Its arrays are read-only views of the memfd. Raises WireError.
    """
    try:
        length, slots, slot_bytes = (said.get(k) for k in ("length", "slots", "slot_bytes"))
        if not (
            type(length) is int and type(slots) is int and type(slot_bytes) is int
            and 1 <= slots <= 1 + MAX_REFS and 0 < slot_bytes <= _MAX_BYTES
            and slot_bytes % PAGE == 0 and 0 < length <= min(MAX_MESSAGE, slot_bytes)
        ):  # fmt: skip
            raise WireError("look", f"{slots} slots of {slot_bytes} bytes, message of {length}")
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_size != slots * slot_bytes:
            raise WireError("look", f"{info.st_size} bytes, not {slots} slots of {slot_bytes}")
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK == 0:
            raise WireError("look", "its memory could be taken away")
        pool = Pool(0, 0, fd, slots, slot_bytes, writable=False)
    except OSError as error:
        raise WireError("look", str(error)) from None
    finally:
        os.close(fd)
    message = decode(pool.view(0, DTYPE_CODE[np.dtype(np.uint8)], (length,)).tobytes())
    if message.kind != FRAME:
        raise WireError("kind", str(message.kind))
    arrays: dict[str, NDArray[Any]] = {}
    for ref in message.arrays:
        if ref.pool != 0 or ref.slot == 0:
            raise WireError("slot", f"slot {ref.slot} of pool {ref.pool}")
        view = pool.view(ref.slot, ref.dtype, ref.shape)
        view.flags.writeable = False
        arrays[ref.name] = view.reshape(ref.shape)
    try:
        return frame_of(message, arrays, stream, source)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise WireError("frame", str(error)) from None
