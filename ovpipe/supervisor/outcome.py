"""How a run is doing, in a word, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ovpipe.errors import OvpipeError
from ovpipe.supervisor.accountant import Reading

Phase = Literal["starting", "running", "draining", "ending"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `error` is None for the end of all streams or a clean drain.

    `killed`: a second signal or the loss of the application ended it by force. `others`: what
    failed after that, in order.
    """

    error: OvpipeError | None
    killed: bool
    reading: Reading
    others: tuple[OvpipeError, ...] = ()

    @property
    def exit_code(self) -> int:
        """What the command line ends with, but for a forced end (130 or 143, the CLI's to say)."""
        return self.error.exit_code if self.error else 0
