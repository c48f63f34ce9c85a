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
