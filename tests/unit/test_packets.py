"""Packets beside frames: how they travel, and which of them can be written."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovpipe.errors import FrameError
from ovpipe.frame import Frame
from ovpipe.stages import packets as module
from ovpipe.stages.packets import NAME, Origin, Packet, Parcel, Pending, packed, parcel_of
from ovpipe.stages.remux import Follow

ORIGIN = Origin(b"header", Fraction(1, 90_000), 3)


def packet(
    number: int, key: bool = False, pts: int | None = None, dts: int | None = None
) -> Packet:
    at = number if pts is None else pts
    return Packet(number, bytes([number % 256]) * number, at, at if dts is None else dts, 1, key)


def sent(parcel: Parcel) -> Parcel:
    """As it is on the other side."""
    array = packed(parcel, lambda shape, dtype: np.empty(shape, dtype))
    array.setflags(write=False)
    got = parcel_of(Frame(arrays={NAME: array}))
    assert got is not None
    return got


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**40),
            st.binary(max_size=50),
            st.none() | st.integers(-(2**62), 2**62),
            st.none() | st.integers(-(2**62), 2**62),
            st.integers(0, 2**40),
            st.booleans(),
        ),
        max_size=20,
    ),
    st.none() | st.integers(-(2**62), 2**62),
)
def test_a_parcel_comes_back(rows: list, offset_ns: int | None) -> None:
    parcel = Parcel(ORIGIN, offset_ns, [Packet(*row) for row in rows])
    got = sent(parcel)
    assert (got.origin, got.offset_ns) == (ORIGIN, offset_ns)
    assert [(p.number, bytes(p.data), *p[2:]) for p in got.packets] == rows


@given(st.binary(max_size=300), st.integers(0, 200), st.integers(0, 255))
def test_what_is_no_parcel_is_refused_or_whole(noise: bytes, at: int, value: int) -> None:
    array = packed(Parcel(ORIGIN, 0, [packet(3), packet(4)]), lambda s, d: np.empty(s, d))
    array[at % array.size] = value
    for hostile in (array, np.frombuffer(noise, np.uint8)):
        try:
            got = parcel_of(Frame(arrays={NAME: hostile}))
        except FrameError as error:
            assert error.reason == "malformed"
        else:
            assert got is not None
            assert sum(len(p.data) for p in got.packets) <= hostile.size


@pytest.mark.parametrize("array", [np.zeros(200, np.float32), np.zeros((20, 20), np.uint8)])
def test_other_arrays_of_that_name(array: np.ndarray) -> None:
    with pytest.raises(FrameError, match="holds no packets"):
        parcel_of(Frame(arrays={NAME: array}))


def test_a_frame_without() -> None:
    assert parcel_of(Frame()) is None


def test_what_waits_too_long_goes_and_leaves_a_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 20)
    pending = Pending()
    pending.add([packet(i) for i in (8, 9)])
    pending.add([packet(10)])
    assert [p.number for p in pending.take()] == [9, 10]
    assert pending.take() == []


# -- which can be written -----------------------------------------------------------------------


def taken(follow: Follow, *packets: Packet, origin: Origin = ORIGIN) -> list[int]:
    return [p.number for p in follow.take(Parcel(origin, 0, list(packets)))]


def test_it_begins_with_a_key_frame() -> None:
    follow = Follow()
    assert taken(follow, packet(0), packet(1)) == []
    assert taken(follow, packet(2), packet(3, key=True), packet(4)) == [3, 4]
    assert taken(follow) == []
    assert taken(follow, packet(5)) == [5]
    assert follow.left_out == 3


def test_after_a_hole_it_waits_for_the_next_key_frame() -> None:
    follow = Follow()
    assert taken(follow, packet(0, key=True), packet(1)) == [0, 1]
    assert taken(follow, packet(3), packet(4)) == []
    assert not follow.whole
    assert taken(follow, packet(5, key=True), packet(6)) == [5, 6]
    assert taken(follow, packet(9, key=True)) == [9]
    assert follow.left_out == 2


def test_what_was_not_written_makes_it_wait() -> None:
    follow = Follow()
    assert taken(follow, packet(0, key=True)) == [0]
    follow.lose()
    assert taken(follow, packet(1), packet(2, key=True)) == [2]


def test_another_origin_is_another_beginning() -> None:
    follow = Follow()
    other = Origin(b"header", Fraction(1, 90_000), 4)
    assert taken(follow, packet(0, key=True), packet(1)) == [0, 1]
    assert taken(follow, packet(2), packet(3, key=True), origin=other) == [3]


def test_pictures_of_an_open_group_are_left_out_at_the_beginning_only() -> None:
    follow = Follow()
    group = [packet(0, True, pts=100), packet(1, pts=80), packet(2, pts=90), packet(3, pts=110)]
    assert taken(follow, *group) == [0, 3]
    next_ = [packet(4, True, pts=200), packet(5, pts=180), packet(6, pts=210)]
    assert taken(follow, *next_) == [4, 5, 6]
