"""Examples under the `--help` of a command."""

from __future__ import annotations


def examples(*lines: tuple[str, str]) -> str:
    """An epilog: each a command, and what it is for."""
    width = max(len(command) for command, why in lines if why or len(lines) == 1)
    rows = [f"  {command:{width}}  {why}".rstrip() for command, why in lines]
    return "\b\nExamples:\n" + "\n".join(rows)
