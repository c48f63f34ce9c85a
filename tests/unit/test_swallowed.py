"""The balance of a decoder: packets of which nothing came."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ovpipe.stages.swallowed import Swallowed


def packet(pts: int | None, key: bool = False, discard: bool = False) -> Any:
    return SimpleNamespace(pts=pts, is_keyframe=key, is_discard=discard)


def picture(pts: int | None) -> Any:
    return SimpleNamespace(pts=pts)


def feed(balance: Swallowed, packets: list[Any], pictures: list[Any]) -> None:
    """All go in, one picture comes out for each while there are any."""
    out = iter(pictures)
    for each in packets:
        balance.packet(each)
        for one in [next(out, None)]:
            if one is not None:
                balance.picture(one)


def run(count: int) -> list[Any]:
    return [packet(i, key=i == 0) for i in range(count)]


def test_what_did_not_come_out_was_swallowed() -> None:
    balance = Swallowed("h264", 4)
    feed(balance, run(40), [picture(i) for i in range(37)])
    balance.ending()
    assert balance.count == 3
    balance.error()
    assert balance.count == 2
    balance.picture(picture(39))
    assert balance.count == 1


def test_after_an_error_it_is_all_that_does_not_come() -> None:
    balance = Swallowed("hevc", 1)
    packets = run(200)
    feed(balance, packets[:50], [picture(i) for i in range(50)])
    balance.packet(packets[50])
    balance.error()
    feed(balance, packets[51:], [picture(i) for i in range(150, 200)])
    balance.ending()
    assert balance.count == 99


@pytest.mark.parametrize("decoder", ["vp8", "vp9", "mpeg4", "theora", ""])
def test_formats_with_packets_that_are_no_pictures_have_none(decoder: str) -> None:
    balance = Swallowed(decoder, 4)
    feed(balance, run(40), [picture(i) for i in range(30)])
    balance.ending()
    assert balance.count == 0


def test_nor_have_half_pictures_in_packets_of_their_own() -> None:
    balance = Swallowed("h264", 4)
    feed(balance, run(200), [picture(2 * i) for i in range(100)])
    balance.ending()
    assert balance.count == 0


def test_nor_packets_without_times() -> None:
    balance = Swallowed("h264", 4)
    feed(balance, [packet(0, key=True), packet(None), packet(2)], [picture(0)])
    balance.ending()
    assert balance.count == 0


def test_what_comes_before_the_first_key_frame_is_none() -> None:
    balance = Swallowed("h264", 4)
    before = [packet(i) for i in range(10)]
    leading = [packet(12, key=True), packet(10), packet(11)]
    feed(balance, before, [])
    balance.error()
    feed(balance, [*leading, packet(13), packet(14, discard=True)], [picture(12), picture(13)])
    balance.ending()
    assert balance.count == 0


def test_leading_pictures_that_come_out_make_up_for_nothing() -> None:
    balance = Swallowed("hevc", 4)
    feed(balance, [packet(2, key=True), packet(1), packet(3)], [picture(1), picture(2)])
    balance.ending()
    assert balance.count == 1
