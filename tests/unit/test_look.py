"""A copied frame: the same when it comes back, and refused where anything about it is a lie."""

from __future__ import annotations

import fcntl
import gc
import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovpipe.detections import Detections
from ovpipe.errors import WireError
from ovpipe.frame import Frame, Image
from ovpipe.transport.look import ANY, Looks, rebuild
from tests.support.link import OneLink
from tests.support.processes import open_fds


class Supervisor:
    """Takes what a worker says, with descriptors of its own."""

    def __init__(self) -> None:
        self.heard: list[tuple[dict[str, Any], list[int]]] = []

    def __call__(self, message: dict[str, Any], fds: tuple[int, ...]) -> None:
        self.heard.append((message, [os.dup(fd) for fd in fds]))

    def close(self) -> None:
        for _, fds in self.heard:
            for fd in fds:
                os.close(fd)


@pytest.fixture
def supervisor():
    it = Supervisor()
    yield it
    it.close()
    gc.collect()
    assert not [name for name in open_fds().values() if "ovpipe-look" in name]


def frame_of(seq: int = 7) -> Frame:
    pixels = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8)
    return Frame(
        image=Image(pixels, "i420", "bt709", True),
        arrays={
            "wide": np.arange(5000, dtype=np.float32).reshape(50, 100),
            "turned": np.arange(12, dtype=np.int64).reshape(3, 4).T,
            "none": np.empty((0, 4), np.float16),
            "one": np.array(3.5),
            "truth": np.array([True, False]),
        },
        detections=Detections.of([[1, 2, 3, 4]], [0.5], [2], {2: "person"}, [9]),
        meta={"fps": 25.0, "list": [1, "two", None]},
        stream="a",
        seq=seq,
        pts_ns=40,
        captured_ns=1000,
    )


def published(link: OneLink, frame: Frame, stream: int = 0) -> Frame:
    """What the receiver of the link gets."""
    link.sender.publish(frame, stream)
    taken = link.receiver.take(link.post.messages.popleft())
    assert taken is not None
    got, lease = taken
    copy = Frame(
        image=got.image and Image(got.image.data.copy(), got.image.format),
        arrays={name: array.copy() for name, array in got.arrays.items()},
    )
    lease.finish()
    return copy


def test_a_copy_is_the_frame_that_is_sent(supervisor: Supervisor) -> None:
    link = OneLink()
    link.sender.looks = Looks(supervisor)
    published(link, frame_of(6))
    assert supervisor.heard == []
    link.sender.looks.ask(ANY)
    sent = published(link, frame_of(7))
    ((said, fds),) = supervisor.heard
    assert (said["answers"], said["stream"]) == ([ANY], 0)
    seen = rebuild(os.dup(fds[0]), said, "a", "cam")
    assert (seen.stream, seen.seq, seen.pts_ns, seen.captured_ns) == ("a", 7, 40, 1000)
    assert seen.source == "cam"
    assert seen.meta == {"fps": 25.0, "list": [1, "two", None]}
    assert seen.image is not None
    assert sent.image is not None
    assert (seen.image.format, seen.image.matrix, seen.image.full_range) == ("i420", "bt709", True)
    assert np.array_equal(seen.image.data, sent.image.data)
    assert seen.arrays.keys() == sent.arrays.keys()
    for name, array in seen.arrays.items():
        assert array.dtype == sent.arrays[name].dtype
        assert np.array_equal(array, sent.arrays[name])
        assert not array.flags.writeable
    assert seen.detections is not None
    ((label, class_id, score, box),) = seen.detections
    assert (label, class_id, score, box) == ("person", 2, 0.5, (1.0, 2.0, 3.0, 4.0))


def test_each_wish_is_answered_once_and_by_a_frame_that_it_fits(supervisor: Supervisor) -> None:
    link = OneLink(depth=8)
    looks = link.sender.looks = Looks(supervisor)
    looks.ask(1)
    link.sender.publish(frame_of(), 0)
    assert supervisor.heard == []
    looks.ask(ANY)
    looks.ask(ANY)
    link.sender.publish(frame_of(), 1)
    link.sender.publish(frame_of(), 1)
    ((said, _),) = supervisor.heard
    assert sorted(said["answers"]) == [ANY, 1]
    assert not looks.wanted


def test_without_memory_the_frame_goes_on(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = OneLink()
    link.sender.looks = Looks(supervisor)
    link.sender.looks.ask(ANY)

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "pwrite", full)
        assert published(link, frame_of()).image is not None
    ((said, fds),) = supervisor.heard
    assert fds == []
    assert "No space left" in said["error"]


@pytest.fixture
def copy(supervisor: Supervisor):
    link = OneLink()
    link.sender.looks = Looks(supervisor)
    link.sender.looks.ask(ANY)
    link.sender.publish(frame_of(), 0)
    ((said, fds),) = supervisor.heard
    return said, fds[0]


EXTREMES = [0, 1, -1, 2**31, 2**63, 2**64, None, "1", 1.0, True, [1], 4095, 4097]


@pytest.mark.parametrize("key", ["length", "slots", "slot_bytes"])
@pytest.mark.parametrize("value", EXTREMES, ids=repr)
def test_lies_about_its_size_are_refused(copy: Any, key: str, value: Any) -> None:
    said, fd = copy
    with pytest.raises(WireError):
        rebuild(os.dup(fd), {**said, key: value}, "a", "cam")


@pytest.mark.parametrize("seals", [0, fcntl.F_SEAL_GROW])
def test_memory_that_could_be_taken_away_is_refused(copy: Any, seals: int) -> None:
    """Or reading it would kill who reads (SIGBUS)."""
    said, fd = copy
    data = os.pread(fd, said["slots"] * said["slot_bytes"], 0)
    other = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.write(other, data)
    fcntl.fcntl(other, fcntl.F_ADD_SEALS, seals)
    with pytest.raises(WireError, match="taken away"):
        rebuild(other, said, "a", "cam")


def test_what_is_no_memory_is_refused(copy: Any) -> None:
    said, _ = copy
    for fd in (*os.pipe(), os.open("/dev/null", os.O_RDWR)):
        with pytest.raises(WireError):
            rebuild(fd, said, "a", "cam")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_stands_in_its_message_it_is_a_frame_or_refused(data: st.DataObject) -> None:
    supervisor = Supervisor()
    looks = Looks(supervisor)
    looks.ask(ANY)
    frame = frame_of()
    assert frame.image is not None
    named = {**{k: np.ascontiguousarray(v) for k, v in frame.arrays.items()},
             "image": frame.image.data}  # fmt: skip
    meta = {"i": ["i420", "bt601", False], "d": Detections.of().to_wire()}
    looks.show(frame, 0, named, meta)
    ((said, (fd,)),) = supervisor.heard
    length = said["length"]
    changes = data.draw(
        st.lists(st.tuples(st.integers(0, length - 1), st.integers(0, 255)), min_size=1, max_size=6)
    )
    for at, byte in changes:
        os.pwrite(fd, bytes([byte]), at)
    cut = data.draw(st.sampled_from([length, length, data.draw(st.integers(1, length))]))
    try:
        seen = rebuild(fd, {**said, "length": cut}, "a", "cam")
    except WireError:
        return
    for array in seen.arrays.values():
        array.sum()
