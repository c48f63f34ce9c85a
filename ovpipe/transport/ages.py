"""Ages: a histogram of how old frames are when they arrive, in a fixed number of words. Pure.

The first bucket ends at 2**16 ns (66 us), the last begins at 2**39 ns (9 minutes); between them
each octave has four buckets of equal width, so a bucket is 14 to 25 % of what it holds. Counters
only rise: of what came in between two readings, the difference of the two tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

_FIRST_BITS = 16
_LAST_BITS = 39
BUCKETS = 4 * (_LAST_BITS - _FIRST_BITS) + 2
"""Words of one histogram."""


def bucket(age_ns: int) -> int:
    """The bucket of an age that is not negative."""
    bits = age_ns.bit_length()
    if bits <= _FIRST_BITS:
        return 0
    if bits > _LAST_BITS:
        return BUCKETS - 1
    return ((bits - 1 - _FIRST_BITS) << 2) + ((age_ns >> (bits - 3)) & 3) + 1


def bounds_ns(index: int) -> tuple[int, int]:
    """Ages from the first on and below the second fall into that bucket."""
    if index == 0:
        return 0, 1 << _FIRST_BITS
    octave, part = divmod(index - 1, 4)
    step = 1 << (_FIRST_BITS + octave - 2)
    return (4 + part) * step, (5 + part) * step


def percentile_ns(counts: Sequence[int], share: float) -> float | None:
    """The age that `share` (0 to 1) of the frames do not exceed; None where there are none.

    Within a bucket ages are taken to be spread evenly. Of the last bucket only its begin is known.
    """
    total = sum(counts)
    if not total:
        return None
    wanted, passed = share * total, 0
    for index, count in enumerate(counts):
        if count and passed + count >= wanted:
            low, high = bounds_ns(index)
            if index == BUCKETS - 1:
                return float(low)
            return low + (high - low) * max(0.0, wanted - passed) / count
        passed += count
    raise AssertionError("a share is at most 1")


def trimmed(counts: Sequence[int]) -> tuple[int, ...]:
    """The same histogram without the empty buckets at its end."""
    last = max((i for i, count in enumerate(counts) if count), default=-1)
    return tuple(counts[: last + 1])


def plus(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    """The frames of both."""
    return tuple(x + y for x, y in zip_longest(a, b, fillvalue=0))


def minus(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    """The frames of `a` that are not in its earlier reading `b`."""
    return tuple(max(0, x - y) for x, y in zip_longest(a, b, fillvalue=0))
