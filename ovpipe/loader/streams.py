"""The streams of a `for_each`: a mapping, or names of which the options are alike.

    for_each: {gate: {url: ...}, dock: {url: ...}}    options of its own for each
    for_each: [gate, dock]                            the stage's options, with {key} in them
    for_each: "{01..40}"                              the same with 01, 02 ... 40; a{1..8}, a list
                                                      of such, and {n}, the number alone, too

Law: pure and bounded. Only text that stands in the file is filled in, never a variable's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ovpipe.loader.tree import Node

_RANGE = re.compile(r"([^{}]*)\{(\d{1,6})\.\.(\d{1,6})\}([^{}]*)")


def expand(text: str, most: int) -> dict[str, str]:
    """Name -> number ("" without a range). ValueError says what is wrong."""
    match = _RANGE.fullmatch(text)
    if match is None:
        if "{" in text:
            raise ValueError("a range is written as cam{01..40}")
        return {text: ""}
    before, first, last, behind = match.groups()
    if int(first) > int(last):
        raise ValueError("a range goes from a number to a greater one")
    if int(last) - int(first) >= most:
        raise ValueError(f"more than {most} streams")
    width = len(first)
    numbers = [str(i).zfill(width) for i in range(int(first), int(last) + 1)]
    return {f"{before}{n}{behind}": n for n in numbers}


def filled(
    node: Node, value: Any, words: Mapping[str, str], private: Callable[[Node], bool]
) -> Any:
    """`value`, which `node` stands for, with `{word}` replaced in its texts."""
    if isinstance(value, dict):
        return {k: filled(node.value[k], v, words, private) for k, v in value.items()}
    if isinstance(value, list):
        pairs = zip(node.value, value, strict=True)
        return [filled(inner, v, words, private) for inner, v in pairs]
    if isinstance(value, str) and not private(node):
        for word, instead in words.items():
            value = value.replace(f"{{{word}}}", instead)
    return value
