"""The page's connections: how long one may be there without a request. Real sockets."""

import asyncio
import socket
import threading

import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from ovpipe.web.serving import Impatient, config
from tests.support.processes import wait_for

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
PACE_S = 0.02
WATCHDOG_S = 60


class Hasty(Impatient):
    patience_s = 0.3


async def gone(receive):
    while (await receive())["type"] != "http.disconnect":
        pass


async def app(scope, receive, send):
    """`/endless` is answered until its visitor goes, everything else at once."""
    if scope["path"] != "/endless":
        await PlainTextResponse("hello")(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    over = asyncio.create_task(gone(receive))
    while not over.done():
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.wait([over], timeout=PACE_S)


@pytest.fixture
def visit():
    """Makes connections to a server that is `Hasty`."""
    made = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(config(app, Hasty))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
        thread.start()

        def connect(said=b""):
            talk = socket.create_connection(listening.getsockname(), timeout=WATCHDOG_S)
            made.append(talk)
            talk.sendall(said)
            return talk

        wait_for(lambda: server.started, "the server")
        yield connect
        for talk in made:
            talk.close()
        server.should_exit = True
        thread.join(WATCHDOG_S)
    assert not thread.is_alive()


def answered(talk, times=1):
    """Read so many answers of `app`."""
    said = b""
    while said.count(b"hello") < times:
        piece = talk.recv(4096)
        assert piece, said
        said += piece


def ended(talk, slowly=b""):
    """Whether the server ends a connection on which each of these bytes comes after a while."""
    talk.settimeout(PACE_S)
    for byte in slowly or b"x" * int(WATCHDOG_S / PACE_S):
        try:
            return talk.recv(1) == b""
        except ConnectionResetError:  # a byte was on its way
            return True
        except TimeoutError:
            if slowly:
                talk.sendall(bytes([byte]))
    return False


def take_what_has_come(talk):
    """And see that it is not the end."""
    talk.setblocking(False)
    try:
        while True:
            assert talk.recv(4096)
    except BlockingIOError:
        talk.settimeout(WATCHDOG_S)


SLOW_HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 3000
SLOW_BODY = b"a" * 3000


def test_silence_is_ended(visit):
    assert ended(visit())


def test_a_head_that_comes_a_byte_at_a_time_is_ended(visit):
    assert ended(visit(), slowly=SLOW_HEAD)


def test_so_is_one_after_an_answer(visit):
    talk = visit(GET)
    answered(talk)
    talk.sendall(GET)
    answered(talk)
    assert ended(talk, slowly=SLOW_HEAD)


def test_and_a_body_behind_its_answer(visit):
    talk = visit(GET.replace(b"\r\n\r\n", b"\r\nContent-Length: 100000\r\n\r\n"))
    answered(talk)
    assert ended(talk, slowly=SLOW_BODY)


def test_two_requests_at_once_are_answered_and_then_it_is_ended(visit):
    talk = visit(GET + GET)
    answered(talk, 2)
    assert ended(talk, slowly=SLOW_HEAD)


@pytest.mark.parametrize("before", [b"", GET], ids=["the first", "the second"])
def test_an_answer_may_take_as_long_as_it_likes(visit, before):
    talk = visit(before)
    if before:
        answered(talk)
    talk.sendall(GET.replace(b"/", b"/endless", 1))
    assert talk.recv(4096).startswith(b"HTTP/1.1 200 OK")
    for _ in range(2):
        assert ended(visit())  # so long has it been there by now
        talk.sendall(GET)  # which waits for the end of the answer
    take_what_has_come(talk)
    assert talk.recv(4096)
