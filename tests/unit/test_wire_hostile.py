"""J03, J04: what is not from a peer of ours is refused with a WireError, or is within bounds."""

import random
import socket
import struct

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovpipe.detections import Detections
from ovpipe.errors import WireError
from ovpipe.transport import control, wire
from ovpipe.transport.ledger import MAX_REFS
from ovpipe.transport.wire import ArrayRef
from tests.unit.test_wire import frame

META = {"fps": 25.0, "i": ["bgr", "bt601", False], "m": {"tag": "x", "deep": [[{}], None, b"y"]},
        "d": Detections.of([[0, 0, 1, 1]], [0.5], [3], {3: "car"}).to_wire()}  # fmt: skip
GOOD = [
    frame([ArrayRef("image", 1, 2, 0, (480, 640, 3)), ArrayRef("é" * 9, 2**31, 0, 11, ())], META),
    frame([ArrayRef("a", 0, 0, 10, (2**40,) * 8)] * MAX_REFS, {}),
    frame([], {}, pts_ns=None),
    wire.encode_eos(3, 1, 9),
    wire.WAKE_MESSAGE,
]


def holds(data):
    """Whatever the bytes: a WireError that names its check, or a message within its bounds."""
    try:
        message = wire.decode(data)
    except WireError as error:
        assert error.kind
        return None
    assert message.kind in (wire.FRAME, wire.EOS, wire.WAKE)
    assert len(message.arrays) <= MAX_REFS
    for array in message.arrays:
        assert len(array.shape) <= wire.MAX_DIMS
        assert len(array.name.encode()) <= wire.MAX_NAME
        assert 0 <= array.pool < 2**32
        assert 0 <= array.slot < 2**32
        assert all(0 <= n < 2**64 for n in array.shape)
    assert type(message.meta) is dict
    assert message.kind == wire.FRAME or (message.arrays, message.meta) == ((), {})
    return message


@pytest.mark.parametrize("which", range(len(GOOD)))
def test_J03_J04_truncated_at_every_byte(which):
    for length in range(len(GOOD[which])):
        assert holds(GOOD[which][:length]) is None


@pytest.mark.parametrize("which", range(len(GOOD)))
def test_one_byte_more(which):
    for byte in range(256):
        assert holds(GOOD[which] + bytes([byte])) is None


def test_every_byte_at_every_value():
    for data in (GOOD[0], GOOD[3]):
        for at in range(len(data)):
            for byte in (0, 1, 0x7F, 0x80, 0xC1, 0xC7, 0xDD, 0xDF, 0xFE, 0xFF):
                holds(data[:at] + bytes([byte]) + data[at + 1 :])


def test_random_mutations():
    rng = random.Random(1)
    survivors = 0
    for _ in range(10_000):
        data = bytearray(rng.choice(GOOD))
        for _ in range(rng.randint(1, 6)):
            match rng.randrange(4):
                case 0:
                    data[rng.randrange(len(data))] = rng.randrange(256)
                case 1:
                    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
                case 2:
                    del data[rng.randrange(len(data)) :][: rng.randrange(9)]
                case 3:
                    at = rng.randrange(len(data) + 1)
                    data[at:at] = rng.randbytes(rng.randrange(9))
            if not data:
                break
        survivors += holds(bytes(data)) is not None
    assert survivors  # or the mutations try nothing behind the first check


HEADER = {
    "magic": (0, "H"), "version": (2, "B"), "kind": (3, "B"), "link": (4, "I"),
    "epoch": (8, "I"), "record": (12, "H"), "n_arrays": (14, "H"), "stream": (16, "I"),
    "generation": (20, "Q"), "seq": (28, "Q"), "pts_ns": (36, "q"), "captured_ns": (44, "Q"),
}  # fmt: skip
CHECKED = {"magic", "version", "kind", "n_arrays"}
ARRAY = {"pool": (0, "I"), "slot": (4, "I"), "dtype": (8, "B"), "ndim": (9, "B"), "name": (10, "B")}
BOUNDS = [0, 1, -1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63,
          2**64 - 1, -(2**31), -(2**63)]  # fmt: skip


def at_bounds(fields):
    for name, (offset, code) in fields.items():
        for value in BOUNDS:
            try:
                yield pytest.param(
                    name, offset, struct.pack(f"<{code}", value), value, id=f"{name}={value}"
                )
            except struct.error:
                continue  # there is no such value on the wire


ONE = frame([ArrayRef("x", 1, 2, 0, (4, 5))], {})
AT = len(frame([], {})) - 1  # where the first array stands: {} is one byte


def changed(offset, data):
    return ONE[:offset] + data + ONE[offset + len(data) :]


@pytest.mark.parametrize(("name", "offset", "data", "value"), list(at_bounds(HEADER)))
def test_J03_J04_header_fields_at_their_bounds(name, offset, data, value):
    message = holds(changed(offset, data))
    if name in CHECKED:
        assert message is None or changed(offset, data) == ONE
    else:
        assert getattr(message, name) == value


@pytest.mark.parametrize(("name", "offset", "data", "value"), list(at_bounds(ARRAY)))
def test_J03_J04_array_fields_at_their_bounds(name, offset, data, value):
    message = holds(changed(AT + offset, data))
    if name in ("ndim", "name"):
        assert message is None or changed(AT + offset, data) == ONE
    else:
        assert getattr(message.arrays[0], name) == value


@pytest.mark.parametrize("value", [0, 1, 2**31, 2**32, 2**63, 2**64 - 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_J03_J04_dimensions_at_their_bounds(axis, value):
    """All of them decode; whether they fit is the pool's to say, which knows its size."""
    message = holds(changed(AT + 11 + 8 * axis, struct.pack("<Q", value)))
    assert message.arrays[0].shape[axis] == value


PACKED = [
    ("a map that says 2**32 - 1 pairs", b"\xdf\xff\xff\xff\xff"),
    ("an array that says 2**32 - 1 items", b"\x81\xa1m\xdd\xff\xff\xff\xff"),
    ("bytes that say 2**32 - 1", b"\x81\xa1m\xc6\xff\xff\xff\xff"),
    ("an extension that says 2**32 - 1", b"\x81\xa1m\xc9\xff\xff\xff\xff\x00"),
    ("100,000 levels", b"\x81\xa1m" + b"\x91" * 100_000 + b"\xc0"),
    ("a map as a key", b"\x81\x80\x00"),
    ("an array as a key", b"\x81\x90\x00"),
    ("not UTF-8", b"\x81\xa1\xff\x00"),
    ("no map", b"\x90"),
    ("the reserved byte", b"\xc1"),
    ("two maps", b"\x80\x80"),
    ("a date that is none", b"\x81\xa1m\xd7\xff\xff\xff\xff\xff\x00\x00\x00\x00"),
    ("nothing", b""),
]


@pytest.mark.parametrize("packed", [p for _, p in PACKED], ids=[name for name, _ in PACKED])
def test_metadata_that_lies(packed):
    with pytest.raises(WireError) as error:
        wire.decode(ONE[:-1] + packed)
    assert error.value.kind == "meta"


@given(st.binary(max_size=60))
def test_any_metadata(packed):
    holds(ONE[:-1] + packed)


def test_too_long():
    with pytest.raises(WireError, match="size"):
        wire.decode(GOOD[0] + bytes(wire.MAX_MESSAGE))


# -- detections ----------------------------------------------------------------------------

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=4)
    | st.binary(max_size=40) | st.just(msgpack.Timestamp(1)) | st.just(msgpack.ExtType(1, b"x")),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
LENGTHS = st.integers(0, 5).map(lambda n: b"\0\0\xc0\x7f" * n)  # float32 NaN


@settings(max_examples=300)
@given(
    st.fixed_dictionaries(
        dict.fromkeys("bsc", PLAIN | LENGTHS) | {"l": PLAIN | st.just({1: "x"})},
        optional={"t": PLAIN | LENGTHS},
    )
    | PLAIN
)
def test_detections_from_anything_that_msgpack_carries(values):
    try:
        found = Detections.from_wire(values)
    except (ValueError, TypeError, KeyError):
        return
    assert len(found) == len(list(found)) == found.xyxy.shape[0]
    assert all(type(name) is str for name in found.labels.values())


def test_nan_and_large_counts_are_carried_as_they_are():
    n = 50_000
    wire_ = {"b": bytes(16 * n), "s": b"\0\0\xc0\x7f" * n, "c": bytes(4 * n), "l": {}}
    found = Detections.from_wire(wire_)
    assert len(found) == n
    assert np.isnan(found.score).all()


# -- the control channel -------------------------------------------------------------------

CONTROL = [
    b"{", b"[]", b"null", b"1", b'"t"', b"\xff\xfe", b"{}x", b"GET / HTTP/1.1\r\n\r\n", b"\0",
    b"[" * 200_000, b'{"a":' * 40_000, b"1" * 10_000, b'{"t": ' + b"9" * 5000 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("data", CONTROL, ids=lambda data: repr(data[:12]))
def test_no_control_message(data):
    ours, theirs = control.pair()
    with ours, theirs:
        theirs.send(data)
        with pytest.raises(WireError):
            control.receive(ours)
        control.send(theirs, {"t": "still here"})
        assert control.receive(ours) == ({"t": "still here"}, [])


@given(st.binary(min_size=1, max_size=80))
def test_any_bytes_on_the_control_channel(data):
    ours, theirs = control.pair()
    with ours, theirs:
        theirs.send(data)
        try:
            message, fds = control.receive(ours)
        except WireError:
            return
        assert type(message) is dict
        assert fds == []


def test_descriptors_of_a_refused_message_are_closed():
    ours, theirs = control.pair()
    with ours, theirs:
        a, b = socket.socketpair()
        socket.send_fds(theirs, [b"no JSON"], [b.fileno()])
        b.close()
        with pytest.raises(WireError):
            control.receive(ours)
        assert a.recv(1) == b""  # end-of-file: nobody holds the other end
        a.close()
