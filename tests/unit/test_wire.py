"""The wire: what was encoded comes back. See test_wire_hostile for all the rest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovpipe.errors import WireError
from ovpipe.transport import wire
from ovpipe.transport.wire import ArrayRef

u16, u32, u64 = (st.integers(0, 2**n - 1) for n in (16, 32, 64))
names = st.text(max_size=20)
refs = st.builds(
    ArrayRef,
    name=names,
    pool=u32,
    slot=u32,
    dtype=st.integers(0, 255),
    shape=st.lists(u64, max_size=wire.MAX_DIMS).map(tuple),
)
metas = st.dictionaries(
    st.text(max_size=5),
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=9),
    max_size=4,
)


def frame(arrays=(), meta=None, **header):
    values = {
        "link": 1, "epoch": 2, "record": 3, "stream": 4, "generation": 5, "seq": 6,
        "pts_ns": 7, "captured_ns": 8, **header,
    }  # fmt: skip
    return wire.encode_frame(wire.encode_body(list(arrays), meta or {}), len(arrays), **values)


@given(
    arrays=st.lists(refs, max_size=5),
    meta=metas,
    link=u32,
    epoch=u32,
    record=u16,
    stream=u16,
    generation=u32,
    seq=u64,
    pts_ns=st.none() | st.integers(-(2**63) + 1, 2**63 - 1),
    captured_ns=u64,
)
def test_frame_round_trip(arrays, meta, **header):
    message = wire.decode(frame(arrays, meta, **header))
    assert message.kind == wire.FRAME
    assert message.arrays == tuple(arrays)
    assert message.meta == meta
    if header["pts_ns"] is None:
        header["pts_ns"] = wire.NO_PTS
    for name, value in header.items():
        assert getattr(message, name) == value


def test_eos_and_wake_round_trip():
    eos = wire.decode(wire.encode_eos(3, 1, 9))
    assert (eos.kind, eos.link, eos.epoch, eos.stream) == (wire.EOS, 3, 1, 9)
    assert wire.decode(wire.WAKE_MESSAGE).kind == wire.WAKE


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data):
    with pytest.raises(WireError):
        wire.decode(data)


@pytest.mark.parametrize(
    ("arrays", "meta", "kind"),
    [
        ([ArrayRef("a", 0, 0, 0, (1,))] * 11, {}, "arrays"),
        ([ArrayRef("a" * 65, 0, 0, 0, (1,))], {}, "array"),
        ([ArrayRef("a", 0, 0, 0, (1,) * 9)], {}, "array"),
        ([], {"x": object()}, "meta"),
        ([], {"x": 2**70}, "meta"),
        ([], {"x": bytes(1 << 20)}, "size"),
    ],
)
def test_what_cannot_be_sent_says_why(arrays, meta, kind):
    with pytest.raises(WireError) as error:
        wire.encode_body(arrays, meta)
    assert error.value.kind == kind
