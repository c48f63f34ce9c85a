"""Reading recordings back, by FFmpeg alone: nothing of ours is asked."""

from __future__ import annotations

import hashlib
from pathlib import Path

import av


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
