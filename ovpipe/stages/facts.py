"""Facts: a few small things that a stage says of itself, for whoever looks at the run.

    context.report({"camera": "streaming", "why": "frames come"})

A fact is a text, a number or a truth, and lasts until another takes its name; None takes it away.

Law: there are never more than MAX_FACTS, and none is long: texts are cut, and printable. What is no
fact raises ValueError and changes nothing. Only a change is told, at most ten times a second; the
last one of a burst is told a little later, never left out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

Fact = str | int | float | bool

MAX_FACTS = 16
MAX_NAME = 40
MAX_TEXT = 300
EVERY_S = 0.1


def merged(known: Mapping[str, Fact], news: Mapping[str, Fact | None]) -> dict[str, Fact]:
    """The facts that hold after `news`. Raises ValueError where it says something else."""
    facts = dict(known)
    for name, value in news.items():
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
            raise ValueError(f"the name of a fact has 1 to {MAX_NAME} letters, not {name!r}")
        if value is None:
            facts.pop(name, None)
        elif isinstance(value, str):
            facts[name] = "".join(c if c.isprintable() else " " for c in value[:MAX_TEXT])
        elif isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
            facts[name] = value
        else:
            raise ValueError(f"fact '{name}' is a text, a finite number or a truth, not {value!r}")
    if len(facts) > MAX_FACTS:
        raise ValueError(f"a stage has at most {MAX_FACTS} facts, not {len(facts)}")
    return facts


class Facts:
    """What one stage says. `tell` is given all of it when it changes.

    `late`: something was not told yet; whoever has time calls `catch_up`.
    """

    def __init__(
        self,
        tell: Callable[[dict[str, Fact]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.late = False
        self._tell = tell
        self._clock = clock
        self._facts: dict[str, Fact] = {}
        self._told_s = -EVERY_S

    def report(self, news: Mapping[str, Fact | None]) -> None:
        """Add, replace and, by None, remove facts. Raises ValueError."""
        facts = merged(self._facts, news)
        if facts != self._facts:
            self._facts = facts
            self.late = True
            self.catch_up()

    def catch_up(self) -> None:
        """Tell what is late, if it is time."""
        now = self._clock()
        if self.late and now - self._told_s >= EVERY_S:
            self._told_s = now
            self.late = False
            self._tell(dict(self._facts))
