"""Detections and frames as values."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest

from ovpipe.detections import Detections
from ovpipe.frame import Frame, Image

TWO = Detections.of([[1, 2, 3, 4], [5, 6, 7, 8]], [0.5, 0.25], [1, 7], {1: "person", 2: "bike"})


def test_rows() -> None:
    assert [tuple(row) for row in TWO] == [
        ("person", 1, 0.5, (1.0, 2.0, 3.0, 4.0)),
        ("7", 7, 0.25, (5.0, 6.0, 7.0, 8.0)),
    ]


def test_no_objects() -> None:
    none = Detections.of()
    assert len(none) == 0
    assert list(none) == []
    assert len(Detections.from_wire(none.to_wire())) == 0


@pytest.mark.parametrize("which", [[True, False], [0], slice(0, 1), TWO.score > 0.4])
def test_picking_rows_keeps_all_columns(which: Any) -> None:
    tracked = Detections.of(TWO.xyxy, TWO.score, TWO.class_id, TWO.labels, [40, 41])
    picked = tracked[np.asarray(which) if isinstance(which, list) else which]
    assert [row.label for row in picked] == ["person"]
    assert picked.track_id is not None
    assert picked.track_id.tolist() == [40]


@pytest.mark.parametrize("track_id", [None, [2**40, -1]])
def test_the_wire_gives_back_what_went_in(track_id: list[int] | None) -> None:
    sent = Detections.of(TWO.xyxy, TWO.score, TWO.class_id, TWO.labels, track_id)
    packed = msgpack.unpackb(msgpack.packb(sent.to_wire()), strict_map_key=False)
    got = Detections.from_wire(packed)
    assert list(got) == list(sent)
    assert got.labels == {1: "person"}  # only the ones in use travel
    assert (got.track_id is None) == (track_id is None)
    assert track_id is None or (got.track_id is not None and got.track_id.tolist() == track_id)


GOOD = TWO.to_wire()


@pytest.mark.parametrize(
    "wire",
    [
        None,
        [],
        {},
        GOOD | {"b": b"123"},
        GOOD | {"b": GOOD["b"][:16]},
        GOOD | {"s": "text"},
        GOOD | {"c": 5},
        GOOD | {"l": ["person"]},
        GOOD | {"l": {"1": "person"}},
        GOOD | {"l": {1: 2}},
        GOOD | {"t": b"12345678"},
    ],
)
def test_a_hostile_wire_is_refused(wire: Any) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        Detections.from_wire(wire)


@pytest.mark.parametrize(
    "lengths", [(2, 1, 1, None), (1, 2, 1, None), (1, 1, 2, None), (1, 1, 1, 2)]
)
def test_lengths_must_agree(lengths: tuple[int, int, int, int | None]) -> None:
    boxes, scores, classes, tracks = lengths
    with pytest.raises(ValueError, match="lengths differ"):
        Detections.of(
            [[0, 0, 1, 1]] * boxes, [1] * scores, [0] * classes, None, tracks and [1] * tracks
        )


def test_a_changed_frame_keeps_its_header_and_adds_to_what_it_has() -> None:
    x, y = np.zeros(1), np.ones(1)
    frame = Frame(arrays={"x": x}, meta={"a": 1}, stream="cam", seq=4, pts_ns=5, captured_ns=6)
    changed = frame.with_(arrays={"y": y}, meta={"b": 2}, detections=TWO)
    assert (changed.stream, changed.seq, changed.pts_ns, changed.captured_ns) == ("cam", 4, 5, 6)
    assert changed.arrays["x"] is x
    assert changed.arrays["y"] is y
    assert changed.meta == {"a": 1, "b": 2}
    assert changed.detections is TWO
    assert frame.detections is None
    assert frame.meta == {"a": 1}


def test_no_array_takes_the_place_of_the_picture() -> None:
    frame = Frame(image=Image(np.zeros((2, 2, 3), np.uint8)))
    with pytest.raises(ValueError, match="image"):
        frame.with_(arrays={"image": np.zeros(3)})


def test_there_and_back_by_supervision():
    supervision = pytest.importorskip("supervision", reason="pip install 'ovpipe[annotate]'")
    found = Detections.of(
        [[0, 1, 2, 3], [4, 5, 6, 7]], [0.9, 0.5], [2, 0], {2: "car", 0: "cat"}, [11, 12]
    )
    theirs = found.to_supervision()
    assert isinstance(theirs, supervision.Detections)
    assert list(theirs.data["class_name"]) == ["car", "cat"]
    back = Detections.from_supervision(theirs)
    assert list(back) == list(found)
    assert np.array_equal(back.track_id, found.track_id)
    theirs.xyxy[:] = 0  # its own pixels: a frame's never change
    assert found.xyxy.any()


def test_what_supervision_does_not_say():
    supervision = pytest.importorskip("supervision", reason="pip install 'ovpipe[annotate]'")
    bare = supervision.Detections(xyxy=np.array([[0.0, 1, 2, 3]]))
    (one,) = Detections.from_supervision(bare, {0: "thing"})
    assert one == ("thing", 0, 1.0, (0.0, 1.0, 2.0, 3.0))
    assert len(Detections.from_supervision(Detections.of().to_supervision())) == 0
