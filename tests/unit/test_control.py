"""The control channel: what was said arrives, whoever has closed."""

import threading

import pytest

from ovpipe.errors import WireError
from ovpipe.transport import control


def test_what_was_said_before_the_end_is_heard_though_the_other_side_did_not_listen():
    ours, theirs = control.pair()
    control.send(ours, {"t": "never read"})
    control.send(theirs, {"t": "last words"})
    theirs.close()
    with ours:
        assert control.receive(ours) == ({"t": "last words"}, [])
        assert control.receive(ours) is None


def test_what_is_too_large_for_one_message_is_told_in_parts():
    ours, theirs = control.pair()
    large = {"t": "graph", "names": ['"\\\n\u20ac' * 9] * 60_000}
    heard = []
    with ours, theirs:
        thread = threading.Thread(
            target=lambda: heard.extend(
                [control.hear(theirs), control.hear(theirs), control.hear(theirs)]
            )
        )
        thread.start()
        control.tell(ours, {"t": "small"})
        control.tell(ours, large)
        control.send(ours, {"t": "sent"})
        thread.join()
    assert heard == [{"t": "small"}, large, {"t": "sent"}]


def test_an_end_within_the_parts_is_the_end():
    ours, theirs = control.pair()
    control.send(ours, {"part": '{"t":'})
    ours.close()
    with theirs:
        assert control.hear(theirs) is None


def test_parts_that_are_no_object_are_refused():
    ours, theirs = control.pair()
    with ours, theirs:
        for text in ("[1]", "{", '"x"'):
            control.send(ours, {"last": text})
            with pytest.raises(WireError, match="control"):
                control.hear(theirs)
