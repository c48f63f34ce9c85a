"""How many streams are few enough: doubled until there are too many, then halved between. Pure.

    search = StreamSearch(least=1, most=64)
    while (count := search.next()) is not None:
        search.tell(count, fits(count))
    search.best      # 0 where not even the least fits

Law: each count is asked for once; `best` is the largest that fitted below the least that did not.
"""

from __future__ import annotations


class StreamSearch:
    """One search. `least`: where it begins, `most`: where it ends at the latest."""

    def __init__(self, least: int = 1, most: int = 256) -> None:
        if not 1 <= least <= most:
            raise ValueError(f"1 <= {least} <= {most} does not hold")
        self._least, self._most = least, most
        self._good = 0
        self._bad = most + 1

    @property
    def best(self) -> int:
        """The most that fitted so far."""
        return self._good

    def next(self) -> int | None:
        """What to try; None when it is known."""
        if self._bad <= self._least or self._bad - self._good <= 1:
            return None
        if self._bad > self._most:  # nothing was too much yet
            return min(max(self._least, 2 * self._good), self._most)
        return max(self._least, (self._good + self._bad) // 2)

    def tell(self, count: int, fits: bool) -> None:
        """How `count` did."""
        if fits:
            self._good = max(self._good, count)
        else:
            self._bad = min(self._bad, count)
