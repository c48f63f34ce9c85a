"""The protocol of zmq-in and zmq-out: what goes out comes in, and nothing else does."""

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovpipe.detections import Detections
from ovpipe.errors import WireError
from ovpipe.frame import Frame, Image
from ovpipe.stages.zmq_wire import MAGIC, decode, encode, encode_end

NUMBERS = [0, 1, -1, 2**31, 2**31 - 1, 2**63, 2**63 - 1, -(2**63), 2**64 - 1, True, 1.5, None, "1"]


def frame(**changes):
    values = {
        "image": Image(np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3), "rgb", "bt709"),
        "arrays": {"k": np.arange(6, dtype=np.float32).reshape(2, 3)},
        "meta": {"a": 1, "b": [1.5, None, "x"]},
        "stream": "cam/gäte",
        "seq": 7,
        "pts_ns": 40,
    }
    return Frame(**{**values, **changes})


def sent(**changes):
    return [bytes(part) for part in encode(frame(**changes))]


def with_header(**changes):
    parts = sent()
    header = {**msgpack.unpackb(parts[1]), **changes}
    return [parts[0], msgpack.packb(header), *parts[2:]]


def test_a_frame_comes_as_it_went():
    original, packet = frame(), decode(sent())
    assert (packet.stream, packet.end, packet.seq, packet.pts_ns) == ("cam/gäte", False, 7, 40)
    assert packet.meta == original.meta
    assert (packet.image.data == original.image.data).all()
    assert (packet.image.format, packet.image.matrix) == ("rgb", "bt709")
    assert (packet.arrays["k"] == original.arrays["k"]).all()
    assert not packet.image.data.flags.writeable


def test_what_lies_apart_in_memory_is_sent_whole():
    wide = np.arange(48 * 128 * 3, dtype=np.uint8).reshape(48, 128, 3)[:, ::2]
    assert (decode(sent(image=Image(wide, "bgr"))).image.data == wide).all()


def test_what_was_found_is_in_the_header():
    detections = Detections.of([[1, 2, 3, 4]], [0.5], [0])
    header = msgpack.unpackb(sent(detections=detections)[1])
    assert [d["box"] for d in header["detections"]] == [[1, 2, 3, 4]]
    assert decode(sent(detections=detections)).seq == 7


def test_the_end():
    packet = decode(encode_end("cam"))
    assert (packet.end, packet.stream) == (True, "cam")
    with pytest.raises(WireError, match="end with pixels"):
        decode([*encode_end("cam"), b"x"])


def test_truncated_anywhere_it_is_refused():
    parts = sent()
    for which, part in enumerate(parts):
        for length in range(0, len(part), max(1, len(part) // 97)):
            cut = [*parts[:which], part[:length], *parts[which + 1 :]]
            if which == 0 and length >= len(MAGIC):
                if _is_text(part[:length]):
                    decode(cut)  # a shorter name is a name
                continue
            with pytest.raises(WireError):
                decode(cut)
    for count in range(len(parts)):
        with pytest.raises(WireError):
            decode(parts[:count])


def _is_text(data):
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize("value", NUMBERS, ids=repr)
def test_every_number_at_its_bounds(value):
    image = {"format": "rgb", "shape": [48, 64, 3]}
    for changes in (
        {"seq": value},
        {"pts_ns": value},
        *({"image": {**image, "shape": s}} for s in ([value, 64, 3], [48, value, 3], [value], value)),
        {"arrays": [{"name": "k", "dtype": "float32", "shape": [value, 3]}]},
        {"image": value}, {"arrays": value}, {"meta": value}, {"kind": value},
    ):  # fmt: skip
        if changes in ({"seq": 0}, {"seq": 1}, {"pts_ns": None}, {"meta": None}, {"meta": 0}):
            continue
        good = {"seq": (0, 2**63 - 1), "pts_ns": (-(2**62), 2**62 - 1)}
        (key,) = changes
        if key in good and type(value) is int and good[key][0] <= value <= good[key][1]:
            decode(with_header(**changes))
            continue
        with pytest.raises(WireError):
            decode(with_header(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"image": {"format": "rgb", "shape": [2**31 - 1, 2**31 - 1, 2**31 - 1]}},
        {"image": {"format": "rgb", "shape": [-48, -64, 3]}},
        {"image": {"format": "xyz", "shape": [48, 64, 3]}},
        {"image": {"format": "rgb", "shape": [48, 64, 3], "matrix": "bt2020"}},
        {"image": {"format": "rgb", "shape": [48, 64, 3], "full_range": 1}},
        {"image": {"format": "rgb", "shape": [64 * 48, 3]}},
        {"arrays": [{"name": "k", "dtype": "object", "shape": [2, 3]}]},
        {"arrays": [{"name": "k", "dtype": "O", "shape": [2, 3]}]},
        {"arrays": [{"name": "k", "dtype": ">f4", "shape": [2, 3]}]},
        {"arrays": [{"name": "k", "dtype": ["float32"], "shape": [2, 3]}]},
        {"arrays": [{"name": "image", "dtype": "float32", "shape": [2, 3]}]},
        {"arrays": [{"name": "", "dtype": "float32", "shape": [2, 3]}]},
        {"arrays": [{"name": "k" * 65, "dtype": "float32", "shape": [2, 3]}]},
        {"arrays": [{"name": "k", "dtype": "float32", "shape": [2] * 9}]},
        {"arrays": ["k"]},
        {"arrays": []},
        {"meta": {1: 2}},
        {"strides": [1, 1, 1]},
        {"kind": "frames"},
    ],
)
def test_lies_are_refused(changes):
    with pytest.raises(WireError):
        decode(with_header(**changes))


@pytest.mark.parametrize(
    "topic", [b"", b"ovpipe2/cam", b"ovpipe1", b"ovpipe1/\xff", b"GET / HTTP/1.1"]
)
def test_what_is_not_of_the_protocol(topic):
    with pytest.raises(WireError):
        decode([topic, *sent()[1:]])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=14))
def test_random_bytes_raise_nothing_else(parts):
    try:
        decode(parts)
    except WireError:
        pass
    for junk in parts:
        with pytest.raises(WireError):
            decode([MAGIC + b"cam", junk, *parts])


def test_what_cannot_travel_is_not_sent():
    with pytest.raises(WireError, match="dtype"):
        encode(frame(arrays={"k": np.array([object()])}))
    with pytest.raises(WireError, match="size"):
        encode(frame(meta={"a": "x" * 70_000}))
    with pytest.raises(WireError, match="meta"):
        encode(frame(meta={"a": object()}))
