"""The way out of a wrong name: what was meant, most likely, or what there is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MOST = 30


def near(word: str, words: Iterable[str], otherwise: str | None = None) -> str:
    """`did you mean 'x'?` where one of `words` is near.

    Where none is: `otherwise`, or, without that, the first 30 that there are.
    """
    known = list(words)
    found = difflib.get_close_matches(word, known, 1)
    if found:
        return f"did you mean '{found[0]}'?"
    if otherwise is not None:
        return otherwise
    more = ", ..." if len(known) > _MOST else ""
    return f"there are: {', '.join(known[:_MOST])}{more}" if known else "there are none"
