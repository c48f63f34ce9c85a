"""Frames to be recorded, and recordings read back by FFmpeg alone: nothing of ours is asked."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import av
import numpy as np

from ovpipe.frame import Frame, Image
from tests.support.clips import level

NS = 10**9


def frame(i: int, stream: str = "cam", size: tuple[int, int] = (64, 48), **parts: Any) -> Frame:
    """An I420 picture as bright as `level` says, with its time at 25 frames per second."""
    width, height = size
    data = np.full((height * 3 // 2, width), 128, np.uint8)
    data[:height] = level(i)
    data.setflags(write=False)
    given = {"image": Image(data, "i420"), "stream": stream, "seq": i, "pts_ns": i * NS // 25}
    return Frame(**given | parts)


def indices(path: Path) -> list[int]:
    """Which frames of the clips these are (`tests.support.clips.level`)."""
    found = []
    with av.open(str(path)) as container:
        for picture in container.decode(video=0):
            gray = picture.reformat(format="yuv420p").to_ndarray()[: picture.height]
            found.append(round((float(gray.mean()) - 20) / 5))
    return found


def sums(path: Path) -> list[str]:
    """A checksum of the pixels of each frame, as decoded."""
    with av.open(str(path)) as container:
        return [
            hashlib.md5(picture.to_ndarray().tobytes()).hexdigest()
            for picture in container.decode(video=0)
        ]


def keys(path: Path) -> list[float]:
    """When the key frames are, in seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        start = stream.start_time or 0
        return [
            float((p.pts - start) * p.time_base)
            for p in container.demux(stream)
            if p.is_keyframe and p.size
        ]


def shown(playlist: Path) -> list[str]:
    """The segments that a playlist names; all of its files are there, and nothing is half done."""
    text = playlist.read_text()
    assert text.startswith("#EXTM3U\n")
    for name in re.findall(r'URI="(.*)"', text):
        assert (playlist.parent / name).stat().st_size
    found = re.findall(r"^[^#].*$", text, re.M)
    for name in found:
        assert (playlist.parent / name).stat().st_size
    return found
