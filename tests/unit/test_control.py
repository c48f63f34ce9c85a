"""The control channel: what was said arrives, whoever has closed."""

from ovpipe.transport import control


def test_what_was_said_before_the_end_is_heard_though_the_other_side_did_not_listen():
    ours, theirs = control.pair()
    control.send(ours, {"t": "never read"})
    control.send(theirs, {"t": "last words"})
    theirs.close()
    with ours:
        assert control.receive(ours) == ({"t": "last words"}, [])
        assert control.receive(ours) is None
