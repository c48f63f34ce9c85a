"""J03: a message that names a frame of ours, and lies about it, ends that frame as malformed."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ovpipe.frame import Frame
from ovpipe.transport import shared, wire
from ovpipe.transport.lease import Roots
from ovpipe.transport.ledger import CODE, W_MALFORMED, Layout
from ovpipe.transport.plan import Link
from ovpipe.transport.pool import DTYPE_CODE, DTYPES, PAGE, make_memfd
from ovpipe.transport.receiver import Receiver
from ovpipe.transport.shared import SharedMemory
from ovpipe.transport.wire import ArrayRef
from tests.support.link import all_here
from tests.unit.test_wire import frame
from tests.unit.test_wire_hostile import PLAIN

U8 = DTYPE_CODE[np.dtype(np.uint8)]
LAYOUT = Layout(workers=2, links=1, streams=1)


class Peer:
    """The receiving end of one link, and the sender's pen."""

    def __init__(self):
        self.shared = SharedMemory(make_memfd("ledger", LAYOUT.words * 8), LAYOUT, 1)
        self.shared.add_pool(0, 0, make_memfd("pool", 4 * PAGE), 4, PAGE)
        link = Link(0, 0, 0, "cam", 1, 8, "block", 0, False, 1, (0,))
        self.ledger = self.shared.link(0)
        self.receiver = Receiver(self.shared, Roots(), None, [link], ["cam"], all_here(2))

    def take(self, arrays, meta):
        """What becomes of a frame whose header is right: a Frame, or None and why."""
        generation = self.ledger.claim(0, 0, 7, [], 0)
        data = frame(arrays, meta, link=0, record=0, stream=0, generation=generation)
        taken = self.receiver.take(wire.decode(data))
        if taken is None:
            assert self.outcome() == "malformed"
            self.ledger.settle(0, CODE["malformed"])
            return None
        got, lease = taken
        lease.finish()
        del taken, lease
        return got

    def outcome(self):
        word = self.shared.words[self.ledger.records]
        return next(name for name, code in CODE.items() if code == word >> 8 & 0xFF)

    def done(self):
        assert self.outcome() == "delivered"
        self.ledger.settle(0, CODE["delivered"])


@pytest.fixture(scope="module")
def peer():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared, "_POOL_TIMEOUT_S", 0.0)
        yield Peer()


def test_a_good_frame_is_taken(peer):
    got = peer.take([ArrayRef("x", 0, 1, U8, (8, 8))], {"m": {"a": 1}})
    assert (got.arrays["x"].shape, got.meta, got.seq, got.stream) == ((8, 8), {"a": 1}, 6, "cam")
    del got
    peer.done()


ARRAYS = {
    "unknown pool": ("x", 1, 0, U8, (1,)),
    "pool 2**32-1": ("x", 2**32 - 1, 0, U8, (1,)),
    "slot behind the last": ("x", 0, 4, U8, (1,)),
    "slot 2**31": ("x", 0, 2**31, U8, (1,)),
    "dtype behind the last": ("x", 0, 0, len(DTYPES), (1,)),
    "dtype 255": ("x", 0, 0, 255, (1,)),
    "one byte too many": ("x", 0, 3, U8, (PAGE + 1,)),
    "product of 2**64": ("x", 0, 0, U8, (2**32, 2**32)),
    "product of 2**512": ("x", 0, 0, U8, (2**64 - 1,) * 8),
    "2**63": ("x", 0, 0, U8, (2**63,)),
    "nothing of 2**63": ("x", 0, 0, U8, (0, 2**63)),
    "nothing of 2**64 - 1": ("x", 0, 0, U8, (2**64 - 1, 0)),
    "nothing, product of 2**126": ("x", 0, 0, U8, (0, 2**62, 2**62)),
    "an array named image": ("image", 0, 0, U8, (4, 4)),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_arrays_that_are_not_there(peer, array):
    assert peer.take([ArrayRef(*array)], {}) is None


@pytest.mark.parametrize(
    "meta",
    [
        {"i": None}, {"i": []}, {"i": ["bgr"]}, {"i": [[], {}, 0]}, {"i": ["bgr", "bt601", 0, 0]},
        {"i": ["jpeg", "bt601", 0]}, {"i": ["bgr", "bt000", 0]}, {"i": ["i420", "bt601", 0]},
        {"d": None}, {"d": {}}, {"d": 5}, {"m": 5}, {"m": []}, {"m": None},
    ],
    ids=str,
)  # fmt: skip
def test_metadata_that_is_not_ours(peer, meta):
    arrays = [ArrayRef("image", 0, 0, U8, (4, 4))] if "i" in meta else []
    assert peer.take(arrays, meta) is None


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.builds(
            ArrayRef,
            name=st.sampled_from(["image", "x", "y", ""]),
            pool=st.just(0),
            slot=st.integers(0, 4),
            dtype=st.integers(0, len(DTYPES)),
            shape=st.lists(st.sampled_from([0, 1, 3, 64, 2**31, 2**63, 2**64 - 1]), max_size=4).map(
                tuple
            ),
        ),
        max_size=4,
    ),
    st.dictionaries(st.sampled_from("idm"), PLAIN | st.just(["gray", "bt601", False]), max_size=3),
)
def test_anything_is_a_frame_or_malformed(peer, arrays, meta):
    got = peer.take(arrays, meta)
    assert got is None or isinstance(got, Frame)
    if got is not None:
        del got
        peer.done()


@pytest.mark.parametrize("generation", [0, 2**16, 2**47, 2**48, 2**63, 2**64 - 1])
def test_a_frame_of_another_generation_changes_nothing(peer, generation):
    rows = bytes(peer.shared.words[peer.ledger.base :])
    message = wire.decode(frame([], {}, link=0, record=0, stream=0, generation=generation))
    assert peer.receiver.take(message) is None
    assert bytes(peer.shared.words[peer.ledger.base :]) == rows


@pytest.mark.parametrize(
    "header",
    [{"link": 1}, {"link": 2**32 - 1}, {"record": 8}, {"record": 2**16 - 1}, {"stream": 1},
     {"stream": 2**32 - 1}],
    ids=str,
)  # fmt: skip
def test_a_header_of_no_frame_is_counted_and_changes_nothing(peer, header):
    count = peer.shared.me + W_MALFORMED
    before, rows = peer.shared.words[count], bytes(peer.shared.words[peer.ledger.base :])
    generation = (peer.shared.words[peer.ledger.records] >> 16) + 1
    values = {"link": 0, "epoch": 0, "record": 0, "stream": 0, "generation": generation, **header}
    assert peer.receiver.take(wire.decode(frame([], {}, **values))) is None
    assert peer.shared.words[count] == before + 1
    assert bytes(peer.shared.words[peer.ledger.base :]) == rows
    eos = wire.encode_eos(header.get("link", 0), 0, header.get("stream", 9))
    assert not peer.receiver.ended(wire.decode(eos))
    assert peer.shared.words[count] == before + 2
    assert not peer.receiver.finished
