"""Types for the options of stages, beyond int, float, str, bool, list, dict and Literal.

An option is an annotated class attribute of a stage. `Annotated` carries its bounds (from
annotated_types: Ge, Le, Gt, Lt, Len) and, as a plain string, its one-line description:

    limit: Annotated[int, Ge(1), "persons that make a crowd"] = 10

The marks here mean nothing to a worker; the loader gives them their parsers and schema.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal


@dataclass(frozen=True)
class Mark:
    """Tells the loader how to parse a value: `500ms`, `640x480` or `50GB`."""

    syntax: Literal["duration", "size", "bytes"]


Duration = Annotated[float, Mark("duration")]
"""Seconds; YAML also takes 500ms, 5s, 2m, 1h, 7d."""

Size = Annotated[tuple[int, int], Mark("size")]
"""(width, height) in pixels; YAML takes 640x480."""

Bytes = Annotated[int, Mark("bytes")]
"""A number of bytes; YAML also takes 500MB, 50GB (thousands) and 512MiB, 4GiB (of 1024)."""
