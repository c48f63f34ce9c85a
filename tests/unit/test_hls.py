"""The playlist of a live stream: what it shows, what it says of breaks, how it goes on."""

from __future__ import annotations

import re

import pytest

from ovpipe.stages.hls import Playlist, Segment


def filled(count: int, window: float = 10.0, breaks: tuple[int, ...] = ()) -> tuple[Playlist, str]:
    made, left = Playlist(window, 2.0), ""
    for i in range(count):
        gone = made.add(Segment(f"s{i}.m4s", 2.0, "i0.mp4", "", i in breaks))
        left += "".join(one.name[1:-4] for one in gone)
    return made, left


def test_the_window_moves_and_numbers_rise() -> None:
    made, left = filled(8)
    assert left == "012"
    text = made.text()
    assert "#EXT-X-MEDIA-SEQUENCE:3\n" in text
    assert re.findall(r"^s\d", text, re.M) == ["s3", "s4", "s5", "s6", "s7"]
    assert text.count("#EXT-X-MAP") == 1
    assert "ENDLIST" not in text


def test_three_segments_stay_however_small_the_window() -> None:
    made, left = filled(5, window=0.1)
    assert left == "01"
    assert len(made.segments) == 3


def test_breaks_are_told_and_counted_when_they_leave() -> None:
    made, _ = filled(8, breaks=(1, 5))
    assert made.text().count("#EXT-X-DISCONTINUITY\n") == 1
    assert "#EXT-X-DISCONTINUITY-SEQUENCE:1\n" in made.text()


def test_a_longer_segment_raises_the_target() -> None:
    made, _ = filled(2)
    assert "#EXT-X-TARGETDURATION:2\n" in made.text()
    made.add(Segment("x.m4s", 7.6, "i0.mp4"))
    assert "#EXT-X-TARGETDURATION:8\n" in made.text()


def test_another_header_is_named() -> None:
    made, _ = filled(2)
    made.add(Segment("x.m4s", 2.0, "i9.mp4", "2026-01-02T03:04:05.678Z", True))
    lines = made.text().splitlines()
    at = lines.index("x.m4s")
    assert lines[at - 4 : at] == [
        "#EXT-X-DISCONTINUITY",
        '#EXT-X-MAP:URI="i9.mp4"',
        "#EXT-X-PROGRAM-DATE-TIME:2026-01-02T03:04:05.678Z",
        "#EXTINF:2.00000,",
    ]


def test_what_was_written_is_read_back() -> None:
    made, _ = filled(9, breaks=(2, 6))
    again = Playlist(10.0, 2.0)
    again.read(made.text())
    assert again.text() == made.text()
    made.ended = True
    again = Playlist(10.0, 2.0)
    again.read(made.text())
    assert again.ended


@pytest.mark.parametrize(
    "text",
    ["", "hello", "#EXTM3U\n../x.m4s\n", "#EXTM3U\nx.m4s\n", "#EXTM3U\n#EXTINF:x,\na\n",
     "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:\n", '#EXTM3U\n#EXT-X-MAP:URI="/etc/passwd"\n'],
)  # fmt: skip
def test_what_is_none_of_ours(text: str) -> None:
    with pytest.raises(ValueError):
        Playlist(10.0, 2.0).read(text)
