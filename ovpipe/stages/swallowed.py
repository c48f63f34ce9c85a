"""Swallowed: packets of which a decoder gave neither a picture nor an error.

FFmpeg drops without a word what refers to a picture that is damaged, up to the next one that stands
for itself; and of three or more threads that decode a frame each, it keeps errors in the last
packets of a file to itself. Packets that go in and pictures that come out tell.

Law: only of formats in which each packet is a picture, and only where that was so up to the first
error: interlaced video whose packets are half-pictures, and packets that are not to be shown, are
no losses. Nor is what comes before the first key frame, in the file or on the screen. Pure.
"""

from __future__ import annotations

from typing import Any

ONE_EACH = frozenset(
    {"h264", "hevc", "mjpeg", "prores", "dnxhd", "ffv1", "huffyuv", "ffvhuff", "utvideo", "png"}
)
"""Decoders of formats in which each packet is a picture, by FFmpeg's names."""
_MOST_UNDER_WAY = 16  # pictures that a decoder may keep back to put them in order
_NEVER = 1 << 63


class Swallowed:
    """The balance of one decoder, from open to end. `threads`: that decode a frame each."""

    def __init__(self, decoder: str, threads: int) -> None:
        self._holds = decoder in ONE_EACH
        self._most = threads + _MOST_UNDER_WAY
        self._first_pts = _NEVER  # of the first key frame
        self._under_way = 0
        self._failed = False

    def packet(self, packet: Any) -> None:
        """One goes in that is not empty. `packet`: av.Packet."""
        pts = packet.pts
        if self._first_pts == _NEVER:
            if pts is None or not packet.is_keyframe:
                return
            self._first_pts = pts
        if pts is None:
            self._holds = False
        elif pts >= self._first_pts and not packet.is_discard:
            self._under_way += 1

    def picture(self, picture: Any) -> None:
        """One came out. `picture`: av.VideoFrame."""
        pts = picture.pts
        if pts is not None and pts >= self._first_pts:
            self._under_way -= 1

    def error(self) -> None:
        """One could not be decoded, and the decoder said so."""
        if not self._failed:
            self._look()
            self._failed = True
        if self._first_pts != _NEVER:
            self._under_way -= 1

    def ending(self) -> None:
        """All packets have gone in; what is under way comes out now."""
        if not self._failed:
            self._look()

    @property
    def count(self) -> int:
        """How many were swallowed, once all has come out."""
        return max(0, self._under_way) if self._holds else 0

    def _look(self) -> None:
        """Whether each packet has been a picture until now."""
        self._holds = self._holds and self._under_way <= self._most
