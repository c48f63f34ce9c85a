"""The infer stage in an application: one image, many, and in an event loop."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovpipe.detections import Detections
from ovpipe.errors import FrameError, OvpipeError, PreflightError
from ovpipe.frame import Frame
from ovpipe.image import Image
from ovpipe.stages import Infer
from tests.support import models

SIZE = models.SIZE
BOX = (0, 1, 0.4, 0.25, 0.25, 0.75, 0.75)


def pixels(value: int) -> np.ndarray[Any, Any]:
    return np.full((SIZE, SIZE, 3), value, np.uint8)


def echo(folder: Path, **options: Any) -> Infer:
    return Infer(**{"model": str(models.echo(folder)), "cache": "off", "jobs": 3, **options})


def value(answer: Any) -> int:
    assert isinstance(answer, Frame)
    return int(answer.arrays["pixels"][0, 0, 0, 0])


def test_one_image_gives_its_detections(tmp_path: Path) -> None:
    with Infer(model=str(models.ssd(tmp_path, [BOX])), cache="off") as detect:
        image = pixels(255)
        for given in (image, Image(image), Image(image[:, :, 0], "gray"), image[:, :, 0]):
            found = detect(given)
            assert isinstance(found, Detections)
            assert [d.box for d in found] == [(4, 4, 12, 12)]
        frame = detect(Frame(image=Image(image), meta={"mine": 1}))
        assert frame.meta == {"mine": 1}
        assert len(frame.detections or ()) == 1


def test_a_model_that_is_no_detector_gives_a_frame(tmp_path: Path) -> None:
    with echo(tmp_path) as infer:
        assert value(infer(pixels(7))) == 7


@pytest.mark.parametrize("batch", [{}, {"size": 4, "wait": 0.001}])
@pytest.mark.parametrize("count", [0, 1, 3, 50])
def test_map_keeps_the_order(tmp_path: Path, count: int, batch: Any) -> None:
    with echo(tmp_path, batch=batch) as infer:
        assert [value(a) for a in infer.map(pixels(i) for i in range(count))] == [*range(count)]


def test_map_takes_no_more_than_it_needs(tmp_path: Path) -> None:
    taken: list[int] = []

    def images() -> Iterator[Any]:
        for i in range(1000):
            taken.append(i)
            yield pixels(i % 256)

    with echo(tmp_path) as infer:
        answers = infer.map(images())
        for _ in range(5):
            next(answers)
        answers.close()  # type: ignore[attr-defined]
        assert len(taken) <= 5 + infer.capacity
        assert value(infer(pixels(9))) == 9


def test_what_does_not_fit_raises_and_the_next_goes_on(tmp_path: Path) -> None:
    with echo(tmp_path) as infer:
        for _ in range(10):  # more often than there is room
            with pytest.raises(FrameError):
                infer(Frame())
            with pytest.raises(ValueError, match="not a bgr image"):
                infer(np.zeros((4, 4, 3), np.float32))  # type: ignore[arg-type]
        answers = infer.map([pixels(1), Frame(), pixels(2)])
        assert value(next(answers)) == 1
        with pytest.raises(FrameError):
            next(answers)
        assert value(infer(pixels(3))) == 3


def test_threads_share_it(tmp_path: Path) -> None:
    with echo(tmp_path) as infer, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda i: value(infer(pixels(i))), range(100)))
    assert answers == [*range(100)]


def test_in_an_event_loop(tmp_path: Path) -> None:
    async def main(infer: Infer) -> list[int]:
        return [value(a) for a in await asyncio.gather(*(infer.aio(pixels(i)) for i in range(60)))]

    with echo(tmp_path) as infer:
        assert asyncio.run(main(infer)) == [*range(60)]


def test_who_stops_waiting_in_an_event_loop_stops_nobody_else(tmp_path: Path) -> None:
    async def main(infer: Infer) -> int:
        tasks = [asyncio.create_task(infer.aio(pixels(i))) for i in range(10)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(e, asyncio.CancelledError | Frame) for e in ended)
        return value(await infer.aio(pixels(77)))

    with echo(tmp_path) as infer:
        for _ in range(5):
            assert asyncio.run(main(infer)) == 77


def test_an_error_within_the_block_comes_out_and_the_threads_end(tmp_path: Path) -> None:
    before = threading.active_count()

    def use() -> None:
        with echo(tmp_path) as infer:
            infer(pixels(1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
    assert threading.active_count() <= before


def test_outside_of_the_block_it_says_what_to_do(tmp_path: Path) -> None:
    infer = echo(tmp_path)
    with pytest.raises(OvpipeError, match="not open: `with Infer"):
        infer(pixels(1))
    with infer:
        pass
    with pytest.raises(OvpipeError, match="not open"):
        infer(pixels(1))
    with infer:  # again
        assert value(infer(pixels(5))) == 5
    with pytest.raises(PreflightError), Infer(model="away.xml"):
        pass


def test_the_package_of_stages_is_light() -> None:
    script = (
        "import sys, ovpipe.stages; a = 'ovpipe.stages.infer' in sys.modules;"
        "ovpipe.stages.Infer; print(a, 'openvino' in sys.modules, 'cv2' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert said.stdout == "False False False\n", said.stderr


SIGNALLED = """
import gc, signal, sys, threading
import numpy as np
from ovpipe.stages import Infer
detect = Infer(model=sys.argv[1], cache="off").__enter__()
detect(np.zeros((4, 4, 3), np.uint8))
box = [detect]
del detect
def end():
    box.pop().__exit__(None, None, None)
    gc.collect()
thread = threading.Thread(target=end)
thread.start()
thread.join()
signal.signal(signal.SIGINT, lambda *_: print("handled"))
signal.raise_signal(signal.SIGINT)
"""


def test_signals_are_handled_after_it_ended_in_another_thread(tmp_path: Path) -> None:
    """OpenVINO then unmaps the stack on which the first thread's handlers run."""
    ended = subprocess.run(
        [sys.executable, "-c", SIGNALLED, str(models.echo(tmp_path))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "handled\n"), ended.stderr
