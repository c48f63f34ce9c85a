"""The outbox with a client that does what a script says: what is sent again, what is counted."""

import logging
import threading
import time

import pytest

from ovpipe.stages.outbox import Away, Counts, Denied, Outbox, scrubbed
from ovpipe.stages.spool import InMemory, Message, NoRoom, Spool
from ovpipe.stages.uplink import Timing
from tests.support.processes import wait_for

FAST = Timing(0.01, 0.02, 0.05)


class Client:
    """Each call plays the next item of its script; with none left all goes well.

    connects: an exception. sends: (how many are settled first, an exception or a refusal of them).
    """

    batch = 4

    def __init__(self, connects=(), sends=(), hold=None):
        self.connects, self.sends, self.hold = list(connects), list(sends), hold
        self.confirmed, self.tried, self.open, self.broken = [], [], False, ""

    def connect(self, timeout_s):
        assert not self.open
        if self.connects:
            raise self.connects.pop(0)
        self.open = True

    def send(self, messages, settled, timeout_s):
        assert self.open
        if self.hold is not None:
            self.hold.wait(30)
        self.tried.append([m.id for m in messages])
        count, then = self.sends.pop(0) if self.sends else (len(messages), None)
        for message in messages[:count]:
            self.confirmed.append(message.id)
            settled("")
        if isinstance(then, BaseException):
            raise then
        if then:
            for _ in messages[count:]:
                settled(then)

    def fault(self):
        return self.broken

    def close(self):
        self.open = False


def box(client, when_full="drop_oldest", most=100, **options):
    spool = Spool(InMemory(), most, 10**6, when_full)
    options = {"timeout_s": 1.0, "timing": FAST, **options}
    return Outbox(spool, client, stage="events", shown="broker.example", **options)


def put(outbox, *numbers):
    for n in numbers:
        outbox.put(Message(str(n), "cam", b"x"))


def close(outbox, within_s=30.0):
    return outbox.close(time.monotonic() + within_s)


def names(*numbers):
    return [str(n) for n in numbers]


def test_all_in_order():
    client = Client()
    outbox = box(client)
    put(outbox, *range(10))
    outbox.start()
    assert close(outbox) == Counts(0, 10, 10, 0, 0, 0)
    assert client.confirmed == names(*range(10))
    assert not client.open


@pytest.mark.parametrize("trouble", [Away("gone"), Denied("who?"), RuntimeError("of a library")])
def test_what_was_not_confirmed_is_sent_again_and_nothing_else(trouble):
    client = Client(connects=[Away("no route"), trouble], sends=[(3, trouble), (0, trouble)])
    outbox = box(client)
    put(outbox, *range(6))
    outbox.start()
    wait_for(lambda: len(client.confirmed) == 6, "all messages")
    assert close(outbox) == Counts(0, 6, 6, 0, 0, 0)
    assert client.confirmed == names(*range(6))
    assert client.tried == [names(0, 1, 2, 3), names(3, 4, 5), names(3, 4, 5)]


def test_what_is_refused_is_told_once_a_minute(caplog):
    client = Client(sends=[(1, "too large"), (0, "too large")])
    outbox = box(client)
    put(outbox, *range(6))
    outbox.start()
    assert close(outbox) == Counts(0, 6, 1, 5, 0, 0)
    assert caplog.text.count("refused a message: too large") == 1


def test_of_a_secret_that_holds_another_nothing_is_left():
    assert scrubbed("of hush-hush, hush", ["", "hush", "hush-hush"]) == "of ***, ***"


def test_each_change_is_said_once_without_a_secret(caplog):
    caplog.set_level(logging.INFO)
    away = [Away("no hush-hush") for _ in range(5)]
    client = Client(connects=[*away, Denied("hush-hush is wrong")])
    outbox = box(client, secrets=["hush-hush", ""])
    outbox.start()
    wait_for(lambda: client.open, "the connection")
    client.broken = "it hung up"
    put(outbox, 1)
    wait_for(lambda: "it hung up" in caplog.text, "the news")
    client.broken = ""
    wait_for(lambda: caplog.text.count("connected to broker.example") == 2, "the news")
    close(outbox)
    assert caplog.text.count("broker away: no ***") == 1
    assert caplog.text.count("broker denied: *** is wrong") == 1
    assert caplog.text.count("broker away: it hung up") == 1
    assert "hush" not in caplog.text


def test_the_end_is_waited_for_as_long_as_said():
    outbox = box(Client(connects=[Away("gone")] * 10**5))
    put(outbox, 1, 2)
    outbox.start()
    assert close(outbox, 0.05) == Counts(0, 2, 0, 0, 0, 2)


def test_while_the_broker_takes_messages_the_end_waits_for_it():
    class Slow(Client):
        batch = 1

        def send(self, messages, settled, timeout_s):
            time.sleep(0.02)  # what is waited for here is the end of the patience
            super().send(messages, settled, timeout_s)

    for stopping, all_of_them in ((False, True), (True, False)):
        outbox = box(Slow())
        put(outbox, *range(60))
        outbox.start()
        counts = outbox.close(time.monotonic() + 0.3, 5.0, lambda s=stopping: s)
        assert (counts.waiting == 0) == all_of_them
        assert counts.confirmed + counts.waiting == 60


def test_what_is_under_way_is_not_given_up_for_new_ones():
    hold = threading.Event()
    client = Client(hold=hold)
    outbox = box(client, most=8)
    put(outbox, *range(4))
    outbox.start()
    wait_for(lambda: outbox._spool._under_way == 4, "the first to be under way")
    put(outbox, *range(4, 12))
    hold.set()
    assert close(outbox) == Counts(0, 12, 8, 0, 4, 0)
    assert client.confirmed == names(0, 1, 2, 3, 8, 9, 10, 11)


def test_what_finds_no_room_is_not_taken():
    outbox = box(Client(), "drop_newest", most=3)
    put(outbox, 0, 1, 2)
    with pytest.raises(NoRoom):
        put(outbox, 3)
    outbox.start()
    assert close(outbox) == Counts(0, 3, 3, 0, 0, 0)


def test_an_error_of_the_spool_reaches_the_stage():
    outbox = box(Client())
    put(outbox, 1)
    outbox._spool._store.read = lambda first, last: 1 / 0
    outbox.start()
    wait_for(lambda: outbox.error is not None, "the error")
    with pytest.raises(ZeroDivisionError):
        put(outbox, 2)
    close(outbox)


def test_it_can_be_closed_before_it_was_started():
    assert close(box(Client())) == Counts(0, 0, 0, 0, 0, 0)
