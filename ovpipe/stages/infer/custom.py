"""Decoder `module:function`: the user's own, or one that an installed package gives a name.

    def decode(outputs: dict[str, np.ndarray], info: FrameInfo) -> Detections | dict | Frame | None

`outputs` belongs to the function: it may keep or change the arrays. `info.detections(boxes,
score, class_id)` turns boxes in pixels of the model's input into Detections.

Law: whatever the function raises fails the frame that it was called with, and no other. The
traceback is logged at once, and the same one again after a minute at the earliest, with the
number of times it was left out.
"""

from __future__ import annotations

import importlib
import logging
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from ovpipe.detections import Detections
from ovpipe.errors import FrameError, PreflightError
from ovpipe.frame import Frame
from ovpipe.stages import plugins
from ovpipe.stages.infer.decode import Decoded, Fit, FrameInfo, Outputs

Function = Callable[[Outputs, FrameInfo], Decoded]

_log = logging.getLogger(__name__)
REPEAT_NS = 60_000_000_000


@dataclass(frozen=True)
class Custom:
    """Calls `function`; `name` is how the user wrote it, `stage` whom a log line speaks of."""

    fit: ClassVar[Fit] = Fit()
    name: str
    function: Function
    stage: str = ""
    clock: Callable[[], int] = time.monotonic_ns
    _seen: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False)

    def __call__(self, outputs: Outputs, info: FrameInfo, /) -> Decoded:
        try:
            decoded = self.function(outputs, info)
        except FrameError:
            raise
        except Exception as error:
            self._report(error)
            raise FrameError(f"{self.name} raised {type(error).__name__}: {error}") from error
        if decoded is None or isinstance(decoded, Detections | Mapping | Frame):
            return decoded
        kind = type(decoded).__name__
        raise FrameError(f"{self.name} gave {kind}, not Detections, a dict, a Frame or None")

    def _report(self, error: Exception) -> None:
        # Same traceback: same lines of the same files, whatever the message says.
        where = "".join(traceback.format_tb(error.__traceback__)) + type(error).__name__
        now = self.clock()
        last, silent = self._seen.get(where, (now - REPEAT_NS, 0))
        if now - last < REPEAT_NS:
            self._seen[where] = (last, silent + 1)
            return
        self._seen[where] = (now, 0)
        again = f" ({silent} more since the last report)" if silent else ""
        _log.error("%s: %s failed%s", self.stage, self.name, again, exc_info=error)


def find(name: str) -> Function:
    """The function behind `module:function`, or the name of an installed package's.

    PreflightError where there is none.
    """
    where, who = name, f"decode '{name}'"
    if ":" not in name:
        of_that_name = plugins.named(plugins.DECODERS, name)
        if len(of_that_name) != 1:
            raise PreflightError(f"{who} {plugins.several(of_that_name)}")
        where, who = of_that_name[0].where, f"{who} of the package '{of_that_name[0].package}'"
    module_name, _, attribute = where.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise PreflightError(
            f"{who}: cannot import '{module_name}': {type(error).__name__}: {error}"
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise PreflightError(f"{who}: module '{module_name}' has no such function")
    found: Function = function
    return found
