"""Live pictures: made once for all, for nobody never, and no viewer waits for another."""

import asyncio
import threading
from contextlib import AsyncExitStack

import numpy as np
import pytest

from ovpipe.errors import PipelineClosed
from ovpipe.frame import Frame, Image
from ovpipe.web import live as l
from ovpipe.web.app import _Motion
from ovpipe.web.live import MAX_LOOKS, MAX_VIEWERS, Live, TooMany


class Source:
    """Frames as fast as they are asked for, from 0; counts who asked."""

    def __init__(self):
        self.asked = []
        self.image = Image(np.zeros((16, 16, 3), np.uint8))
        self.fails = 0
        self.error = None
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, edge, stream):
        self.gate.wait(30)
        self.asked.append((edge, stream))
        if self.error is not None:
            raise self.error
        if self.fails:
            self.fails -= 1
            raise PipelineClosed("the run has ended")
        return Frame(image=self.image).stamped(stream, len(self.asked), 0)


def runs(test):
    """Run an async test, whose argument is (live, source)."""

    def wrapped(monkeypatch):
        monkeypatch.setattr(l, "PER_S", 500.0)
        monkeypatch.setattr(l, "_PAUSE_S", 0.01)

        async def main():
            source = Source()
            live = Live(source)
            try:
                await asyncio.wait_for(test(live, source), 30)
            finally:
                source.gate.set()
                live.close()

        asyncio.run(main())

    wrapped.__name__ = test.__name__
    return wrapped


@runs
async def test_all_who_watch_get_the_same_pictures(live, source):
    async with live.watching(0, "a") as one, live.watching(0, "a") as two:
        assert live.viewers == 2
        first = await one.after(-1)
        assert (await two.after(first.number - 1)).number >= first.number
        picture = await one.after(first.number)
        assert picture is await two.after(first.number) or one.picture.number > picture.number
        assert picture.jpeg[:2] == b"\xff\xd8"
        made = one.picture.number + 1
    assert made <= len(source.asked) <= made + 2


@runs
async def test_nobody_watches_nothing_is_done(live, source):
    assert source.asked == []
    async with live.watching(0, "a") as feed:
        await feed.after(-1)
    asked = len(source.asked)
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert len(source.asked) <= asked + 1  # one was under way
    assert live.viewers == 0


@runs
async def test_a_slow_viewer_gets_the_newest_and_the_others_do_not_wait(live, source):
    async with live.watching(0, "a") as fast, live.watching(0, "a") as slow:
        seen = await slow.after(-1)
        number = -1
        for _ in range(10):
            number = (await fast.after(number)).number
        assert (await slow.after(seen.number)).number >= number


@runs
async def test_no_more_watch_than_may(live, source):
    async with AsyncExitStack() as all_of_them:
        for i in range(MAX_VIEWERS):
            await all_of_them.enter_async_context(live.watching(0, str(i % 2)))
        with pytest.raises(TooMany, match="8 watch already"):
            async with live.watching(0, "c"):
                pass
    async with live.watching(0, "c") as feed:
        await feed.after(-1)


@runs
async def test_no_more_look_than_may(live, source):
    source.gate.clear()
    looks = [asyncio.create_task(live.look(0, str(i))) for i in range(MAX_LOOKS)]
    await asyncio.sleep(0)
    with pytest.raises(TooMany):
        await live.look(0, "x")
    source.gate.set()
    assert len({(await look).facts["stream"] for look in looks}) == MAX_LOOKS


@runs
async def test_a_look_takes_the_picture_of_a_feed_that_is_there(live, source):
    async with live.watching(0, "a") as feed:
        await feed.after(-1)
        asked = len(source.asked)
        source.gate.clear()
        assert (await live.look(0, "a")).jpeg
        assert len(source.asked) <= asked + 1
        source.gate.set()


@runs
async def test_a_run_that_does_not_answer_is_asked_again(live, source):
    source.fails = 3
    async with live.watching(0, "a") as feed:
        assert (await feed.after(-1)).jpeg
    assert len(source.asked) >= 4
    source.fails = 1
    with pytest.raises(PipelineClosed):
        await live.look(1, "a")


@runs
async def test_frames_that_cannot_be_drawn_are_told_and_end_nothing(live, source):
    source.image = None
    async with live.watching(0, "a") as feed:
        picture = await feed.after(-1)
        assert picture.jpeg is None
        assert picture.why == "these frames have no picture"
        source.image = Image(np.zeros((16, 16, 3), np.uint8))
        while picture.jpeg is None:
            picture = await feed.after(picture.number)


# -- the response ---------------------------------------------------------------------------------


class Browser:
    """One end of a connection: takes `takes` parts of a body, then nothing, until it goes."""

    def __init__(self, takes):
        self.messages = []
        self.going = asyncio.Event()
        self._takes = takes

    async def receive(self):
        await self.going.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        if message["type"] == "http.response.body" and len(self.messages) > self._takes:
            await asyncio.Event().wait()
        self.messages.append(message)


@runs
async def test_a_stream_of_pictures_is_multipart(live, source):
    browser = Browser(takes=5)
    watching = asyncio.create_task(_Motion(live, 0, "a")({}, browser.receive, browser.send))
    while len(browser.messages) < 6:
        await asyncio.sleep(0.005)
    browser.going.set()
    await watching
    start, *parts = browser.messages
    assert (
        dict(start["headers"])[b"content-type"]
        == b"multipart/x-mixed-replace; boundary=ovpipe-frame"
    )
    assert b"content-length" not in dict(start["headers"])
    body = b"".join(part["body"] for part in parts)
    opening, *frames = body.split(b"--ovpipe-frame\r\n")
    assert opening == b""
    assert frames.pop() == b""
    for frame in frames:
        head, _, jpeg = frame.partition(b"\r\n\r\n")
        assert int(head.rpartition(b" ")[2]) == len(jpeg) - 2
        assert jpeg.startswith(b"\xff\xd8")
    assert live.viewers == 0


@runs
async def test_a_viewer_who_takes_nothing_more_is_let_go(live, source):
    from ovpipe.web import app

    before, app.PATIENCE_S = app.PATIENCE_S, 0.05
    try:
        browser = Browser(takes=2)
        await _Motion(live, 0, "a")({}, browser.receive, browser.send)
    finally:
        app.PATIENCE_S = before
    assert live.viewers == 0


@runs
async def test_one_too_many_is_told(live, source):
    async with AsyncExitStack() as all_of_them:
        for _ in range(MAX_VIEWERS):
            await all_of_them.enter_async_context(live.watching(0, "a"))
        browser = Browser(takes=9)
        scope = {"type": "http", "method": "GET", "headers": []}
        await _Motion(live, 0, "a")(scope, browser.receive, browser.send)
    assert browser.messages[0]["status"] == 503


@runs
async def test_a_fault_of_ours_ends_the_picture(live, source):
    source.error = ZeroDivisionError("ours")
    async with live.watching(0, "a") as feed:
        with pytest.raises(EOFError):
            await feed.after(-1)
    assert live.viewers == 0
