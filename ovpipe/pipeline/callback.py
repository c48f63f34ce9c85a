"""A callback: a function of the application that is called with each frame of one stage.

Law: it is called on one thread, in order, and never with two frames at a time. FrameError fails
that frame, and the next goes on. Any other exception ends the callback, and with it the pipeline:
the frame is counted `stage_crash`, the run is drained, and fails with a StageError whose cause is
that exception.
"""

from __future__ import annotations

import socket
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress

from ovpipe.errors import FrameError, PipelineClosed
from ovpipe.frame import Frame
from ovpipe.pipeline.tap import TICK_MS, Tap, drive
from ovpipe.spec import WhenFull
from ovpipe.transport.ledger import CODE, DELIVERED

_MAX_TRACEBACK = 16_000
_LAST_CALL_S = 10.0


class Callback:
    """Calls `function`; `error`: what it raised, if that ended it."""

    def __init__(
        self,
        stage: str,
        function: Callable[[Frame], object],
        depth: int,
        when_full: WhenFull | None,
    ) -> None:
        self.stage = stage
        self.depth = depth
        self.when_full = when_full
        self.error: BaseException | None = None
        self._function = function
        self._tap = Tap()
        self._closing = False
        self._thread: threading.Thread | None = None

    def join(self, channel: socket.socket) -> None:
        """Become a member of the run."""
        self._tap.join(channel)

    def wait_for_start(self) -> None:
        """Return when all stages are ready; frames are taken from now on."""
        self._tap.wait_for_start()
        self._thread = threading.Thread(
            target=self._work, name=f"ovpipe-on-{self.stage}", daemon=True
        )
        self._thread.start()

    def _work(self) -> None:
        with suppress(PipelineClosed):
            drive(self._tap, self._call, lambda: -1 if self._closing else TICK_MS)
        self._tap.close()

    def _call(self, frame: Frame) -> int:
        try:
            self._function(frame)
        except FrameError as error:
            return CODE.get(error.reason, CODE["infer_error"])
        except BaseException as error:  # noqa: BLE001 - SystemExit, too, would else be lost
            self._closing = True
            text = "".join(traceback.format_exception(error))[-_MAX_TRACEBACK:]
            self.error = error.with_traceback(None)  # which would hold the frame, and its slot
            self._tap.fail(f"{type(error).__name__}: {error}".removesuffix(": ")[:2000], text)
            return CODE["stage_crash"]
        return DELIVERED

    def close(self) -> None:
        """Call no more, and wait a while for the call that goes on, unless that is who closes."""
        self._closing = True
        self._tap.nudge()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_LAST_CALL_S)
        elif self._thread is None:
            self._tap.close()
