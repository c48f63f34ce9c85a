"""App: a source whose frames the embedding application pushes.

    in: {kind: app}                                 pipeline.push("in", image)
    in: {kind: app, for_each: {gate: , dock: }}     pipeline.push("in", image, stream="gate")

It has no process: the application is the producer (ovpipe.pipeline.source). So a configuration
with such a stage can be checked and drawn by anybody, and run by an application only.

Law: with `block` (the default unless `live`) nothing that was pushed is lost on its edges, and
`push` waits. With `live` it never waits, and older frames make room.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from ovpipe.errors import PreflightError
from ovpipe.frame import Frame
from ovpipe.stages.base import Producer


class App(Producer):
    """Frames that the embedding application pushes."""

    live: Annotated[bool, "behave as a camera: edges drop rather than wait"] = False

    def frames(self) -> Iterator[Frame]:
        """Nobody is here to make any."""
        raise PreflightError("frames of kind 'app' are pushed by an application")
