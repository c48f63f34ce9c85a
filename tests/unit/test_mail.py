"""The order in which messages and deaths are handed out, whatever order they arrive in."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovpipe.transport import wire
from ovpipe.transport.mail import Mail
from ovpipe.transport.peers import Departed, Peer, Peers


class Inbox:
    """Messages that have arrived."""

    def __init__(self, *arrived):
        self.arrived = list(arrived)

    def receive(self, timeout_ms):
        return self.arrived.pop(0) if self.arrived else None


class Receiver:
    """Link n comes from worker n, of which there are two."""

    malformed = 0
    owes = False
    merges = False
    shared_out = False
    over = ()  # records whose frames were dropped

    def passes_over(self, message):
        return message.record in self.over

    def sender_of(self, link):
        return link if link < 2 else None

    def count_malformed(self):
        self.malformed += 1


def peers(*epochs):
    return Peers(Peer("here", epoch, f"e{epoch}").to_json() for epoch in epochs)


def eos(link, epoch, stream=0):
    return wire.encode_eos(link, epoch, stream)


def handed_out(mail):
    """All that there is, as (worker, epoch, what)."""
    items = []
    for _ in range(100):
        item = mail.next(0)
        if isinstance(item, Departed):
            items.append((item.worker, item.epoch, "death"))
        elif item is not None:
            items.append((item.link, item.epoch, item.stream))
    return items


def test_a_death_comes_behind_what_the_dead_one_sent():
    known, inbox = peers(0, 0), Inbox(eos(0, 0, 1), b"", eos(0, 0, 2), wire.WAKE_MESSAGE)
    mail = Mail(inbox, known, Receiver())
    known.leave(0, 0, returns=True)
    assert mail
    assert handed_out(mail) == [(0, 0, 1), (0, 0, 2), (0, 0, "death")]
    assert not mail


def test_a_successor_waits_until_the_death_before_it_is_told():
    known, inbox = peers(0, 0), Inbox(eos(0, 1, 7), eos(1, 0, 5))
    mail = Mail(inbox, known, Receiver())
    assert handed_out(mail) == [(1, 0, 5)]
    known.leave(0, 0, returns=True)
    inbox.arrived.append(eos(0, 0, 6))
    assert handed_out(mail) == [(0, 0, 6), (0, 0, "death"), (0, 1, 7)]


def test_epochs_that_never_came_to_work_are_dead_as_well():
    known, inbox = peers(0, 0), Inbox()
    mail = Mail(inbox, known, Receiver())
    for epoch in range(3):
        known.leave(0, epoch, returns=True)
    known.back(0, 3, "e3")
    inbox.arrived.append(eos(0, 3))
    assert handed_out(mail) == [*((0, epoch, "death") for epoch in range(3)), (0, 3, 0)]


def test_who_comes_late_is_told_of_the_deaths_before():
    known = Peers([Peer("here", 2, "").to_json(), Peer("gone", 0, "").to_json()])
    mail = Mail(Inbox(eos(0, 2)), known, Receiver())
    assert handed_out(mail) == [(0, 1, "death"), (0, 2, 0), (1, 0, "death")]
    assert mail._early == []


def test_what_is_no_message_is_counted():
    receiver = Receiver()
    assert handed_out(Mail(Inbox(b"garbage", eos(9, 3)), peers(0, 0), receiver)) == [(9, 3, 0)]
    assert receiver.malformed == 1


@given(st.permutations([(0, s) for s in range(3)] + [(1, s) for s in range(3)]), st.integers(0, 6))
def test_any_interleaving_of_two_lives_comes_out_in_order(arrival, told_after):
    order = {0: itertools.count(), 1: itertools.count()}
    messages = [eos(0, epoch, next(order[epoch])) for epoch, _ in arrival]
    known, inbox = peers(0, 0), Inbox(*messages[:told_after])
    mail = Mail(inbox, known, Receiver())
    out = handed_out(mail)
    inbox.arrived = messages[told_after:]
    known.leave(0, 0, returns=True)
    out += handed_out(mail)
    death = out.index((0, 0, "death"))
    assert out[:death] == [(0, 0, i) for i in range(3)]
    assert out[death + 1 :] == [(0, 1, i) for i in range(3)]


@pytest.mark.parametrize("returns", [True, False])
def test_peers_remember_who_is_where(returns):
    known = peers(0, 3)
    known.leave(1, 3, returns)
    assert known[1] == Peer("away" if returns else "gone", 3, "e3")
    known.back(1, 4, "e4")
    assert [peer.epoch for peer in known] == [0, 4]
    assert list(known.departed)[-1] == Departed(1, 3, returns, "e3")


def frame(link, stream, record, epoch=0):
    return wire.encode_frame(
        wire.encode_body([], {}), 0, link=link, epoch=epoch, record=record, stream=stream,
        generation=1, seq=record, pts_ns=None, captured_ns=0,
    )  # fmt: skip


def sharing(*arrived):
    receiver = Receiver()
    receiver.shared_out = True
    return receiver, Mail(Inbox(*arrived), peers(0, 0), receiver)


def taken(mail):
    found = []
    while (item := mail.next(0)) is not None:
        kind = "end" if isinstance(item, wire.Message) and item.kind == wire.EOS else "frame"
        found.append("death" if isinstance(item, Departed) else (item.link, item.stream, kind))
    return found


def test_streams_take_turns_whoever_sends_more():
    fast = [frame(0, 0, record) for record in range(4)]
    slow = [frame(0, 1, 10), frame(1, 2, 11)]
    _, mail = sharing(*fast, *slow)
    order = [item[1] for item in taken(mail)]
    assert order == [0, 1, 2, 0, 0, 0]


def test_a_frame_that_was_dropped_takes_no_turn():
    receiver, mail = sharing(*[frame(0, 0, record) for record in range(4)], frame(0, 1, 10))
    receiver.over = (0, 1, 2)
    assert [mail.next(0).record for _ in range(2)] == [3, 10]
    assert mail.next(0) is None


def test_an_end_stays_behind_its_stream_and_what_comes_after_a_death_behind_it():
    known = peers(0, 0)
    receiver = Receiver()
    receiver.shared_out = True
    inbox = Inbox(frame(0, 0, 1), frame(1, 2, 2), frame(0, 0, 3), eos(0, 0, 0), frame(1, 2, 4))
    mail = Mail(inbox, known, receiver)
    first = mail.next(0)
    assert (first.link, first.record) == (0, 1)
    known.leave(0, 0, returns=True)
    inbox.arrived.append(frame(0, 5, 9, epoch=1))  # of the successor
    rest = taken(mail)
    assert rest.index((0, 0, "frame")) < rest.index((0, 0, "end")) < rest.index("death")
    assert rest.index("death") < rest.index((0, 5, "frame"))
    assert rest.count((1, 2, "frame")) == 2


def test_who_has_enough_to_do_is_given_nothing_and_loses_nothing():
    _, mail = sharing(frame(0, 0, 1), b"", frame(0, 1, 2))
    assert mail.next(0, starving=False) is None
    assert mail
    assert [item[1] for item in taken(mail)] == [0, 1]
