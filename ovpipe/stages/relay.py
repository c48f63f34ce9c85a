"""Relay: `python -P -m ovpipe.stages.relay`: sends on what comes in on its standard input.

In:  a line of JSON: {"url", "format", "options", "header"}, where "header" is the number of bytes
     of a NUT file that stand behind it and say what the video is; then, once we have said that we
     are connected, a NUT stream of it, until the end.
Out: `connected`, and at last `ended`, or `denied REASON`, or `lost REASON`; a line each.

FFmpeg opens an output with calls that cannot be interrupted, and PyAV holds the interpreter's lock
meanwhile. So they are made in this process, which can be killed, and whoever waits for it cannot
be held up. The address, with its password, comes on the input: it stands in no list of processes.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from ovpipe.stages.media import library, reason
from ovpipe.stages.packets import template

_MAX_HEADER_BYTES = 1 << 20


class _Refused(Exception):
    """The format cannot carry such a video."""


class _Input:
    """Standard input for FFmpeg: what is there, as soon as it is there."""

    def read(self, size: int) -> bytes:
        """At least one byte, b"" at the end."""
        return os.read(0, size)


def _exactly(size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        line += _exactly(1)
    return line


def _say(text: str) -> None:
    os.write(1, f"{text}\n".encode(errors="replace"))


def _relay(request: dict[str, Any], header: bytes) -> None:
    av = library()
    like = template(header)
    output = av.open(
        request["url"], "w", format=request["format"], container_options=request["options"]
    )
    try:
        made = output.add_stream_from_template(like.streams.video[0], opaque=True)
    except ValueError as error:  # names the format and the codec, and nothing else
        raise _Refused(str(error)) from None
    output.start_encoding()
    _say("connected")
    options = {"probesize": "32", "analyzeduration": "0", "fpsprobesize": "0"}
    try:
        source = av.open(_Input(), format="nut", options=options)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = made
                output.mux(packet)
    finally:
        output.close()


def main() -> int:
    """Until the end of the input, or of the connection."""
    error = library().error
    try:
        request = json.loads(_line())
        _relay(request, _exactly(min(request["header"], _MAX_HEADER_BYTES)))
    except EOFError:
        return 0
    except _Refused as failure:
        _say(f"lost {failure}")
        return 1
    except (error.HTTPUnauthorizedError, error.HTTPForbiddenError) as failure:
        _say(f"denied {reason(failure)}")
        return 1
    except (error.FFmpegError, OSError, ValueError) as failure:
        _say(f"lost {reason(failure)}")
        return 1
    _say("ended")
    return 0


if __name__ == "__main__":
    sys.exit(main())
