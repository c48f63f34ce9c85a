"""What is known of a stage's kind, and whether given options suit it.

Kinds that come with ovpipe are looked at in this process. A user's own `module:Name`, and what an
installed package brings, are not: importing them may start threads, take memory, hang or crash.
One child process looks at all of them (`ovpipe.loader.describe`); a kind that ends the child is a
fault of that kind alone, and another child looks at the rest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ovpipe.errors import ConfigError
from ovpipe.hint import near
from ovpipe.loader import options as o
from ovpipe.loader.card import card
from ovpipe.loader.options import Fault
from ovpipe.stages.base import AsyncTransform
from ovpipe.stages.registry import BUILT_IN, is_own, kinds, stage_class, where_is, whose

STAGE_KEYS = ("kind", "inputs", "for_each", "run", "enabled", "description")
TIMEOUT_S = 30.0
_TAIL_BYTES = 4096


@dataclass(frozen=True)
class Question:
    """A kind, and each set of options to check (several for a `for_each`).

    `card`: whether its card is asked for, too (card.py).
    """

    kind: str
    options: tuple[Mapping[str, Any], ...] = ()
    card: bool = False


@dataclass(frozen=True)
class Answer:
    """`fault`: the kind itself is wrong. `checked`: per set of options, values and faults.

    `private`: the fault may quote a value of an option.
    """

    fault: str = ""
    hint: str = ""
    private: bool = False
    role: str = ""
    live: bool = False
    one_process: bool = False
    overlaps: bool = False
    names: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    checked: tuple[tuple[dict[str, Any], tuple[Fault, ...]], ...] = field(default=())
    card: dict[str, Any] = field(default_factory=dict)


def answer(question: Question) -> Answer:
    """Look at one kind, in this process."""
    kind = question.kind
    if kind not in BUILT_IN and not is_own(kind):
        known = sorted(kinds())
        others = f"there are: {', '.join(known)}; a kind of your own is 'module:Name'"
        return Answer(f"unknown kind '{kind}'", near(kind, known, others))
    try:
        cls = stage_class(kind)
        fault = o.unusable(cls, STAGE_KEYS)
        if fault:
            return Answer(f"{whose(kind)} {fault}")
        checked = [o.check(cls, options) for options in question.options]
        names = tuple(o.model_of(cls).model_fields)
        role, missing = cls.role, tuple(o.missing(cls))
        described = card(cls) if question.card else {}
    except ConfigError as error:
        return Answer(str(error))
    except Exception as error:  # noqa: BLE001 - a user's module may raise anything
        return Answer(f"{whose(kind)}: {_told(error)}")
    live = False
    if not any(faults for _, faults in checked):
        try:
            live = any(o.facts(cls, values)[1] for values, _ in checked)
        except Exception as error:  # noqa: BLE001 - as above
            return Answer(f"{whose(kind)}: {_told(error)}", private=True)
    return Answer(
        role=role,
        live=live,
        one_process=cls.one_process,
        overlaps=issubclass(cls, AsyncTransform),
        names=names,
        missing=missing,
        checked=tuple((values, tuple(faults)) for values, faults in checked),
        card=described,
    )


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def answers(questions: Sequence[Question], folder: Path) -> list[Answer]:
    """Look at all kinds; those of the user in a child process, with `folder` first on its path."""
    own = [q for q in questions if is_own(q.kind)]
    theirs = iter(_from_children(own, folder))
    return [next(theirs) if is_own(q.kind) else answer(q) for q in questions]


def cards(names: Sequence[str], folder: Path) -> dict[str, Answer]:
    """What each of these kinds is, its card with it; `fault` where it cannot be told."""
    found = answers([Question(name, card=True) for name in names], folder)
    return dict(zip(names, found, strict=True))


def _from_children(questions: list[Question], folder: Path) -> list[Answer]:
    told: dict[int, Answer] = {}
    left = list(enumerate(questions))
    while left:
        lines, end = _ask_child([q for _, q in left], folder)
        for (i, _), line in zip(left, lines, strict=False):
            told[i] = _revive(json.loads(line))
        left = left[len(lines) :]
        if left:  # the first of these has ended the child, and so would others of its module
            module = _module(left[0][1])
            for i, q in left:
                if _module(q) == module:
                    told[i] = Answer(f"{whose(q.kind)} cannot be looked at: {end}")
            left = [(i, q) for i, q in left if _module(q) != module]
    return [told[i] for i in range(len(questions))]


def _module(question: Question) -> str:
    try:
        return where_is(question.kind).partition(":")[0]
    except ConfigError:  # several of that name
        return question.kind


def _ask_child(questions: list[Question], folder: Path) -> tuple[list[str], str]:
    """The answers that came, one line each, and how the child ended where some are missing."""
    command = [sys.executable, "-P", "-m", "ovpipe.loader.describe", str(folder), str(TIMEOUT_S)]
    asked = json.dumps([asdict(q) for q in questions]).encode()
    # Files and not pipes: a process that a module starts and leaves behind would hold a pipe
    # open, and its end would be waited for.
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout, \
            tempfile.TemporaryFile() as stderr:  # fmt: skip
        stdin.write(asked)
        stdin.seek(0)
        try:
            code = subprocess.run(
                command, stdin=stdin, stdout=stdout, stderr=stderr, check=False,
                timeout=TIMEOUT_S + 5, process_group=0,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:  # it should have ended by itself
            code = 0
        stdout.seek(0)
        # A line that is not whole is not an answer.
        lines = [line.decode() for line in stdout.read().splitlines(True) if line.endswith(b"\n")]
        stderr.seek(-min(_TAIL_BYTES, stderr.seek(0, os.SEEK_END)), os.SEEK_END)
        return lines, _end(code, stderr.read().decode(errors="replace"))


def _end(code: int, tail: str) -> str:
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    hung = next((i for i, line in enumerate(lines) if line.startswith("Timeout (")), None)
    if hung is not None:  # what follows says where, the innermost call first
        at = next((line for line in lines[hung:] if line.startswith("File ")), "")
        return f"it took longer than {TIMEOUT_S:g} s" + (f", in {at}" if at else "")
    how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return f"{how}: {lines[-1]}" if lines else how


def _revive(values: dict[str, Any]) -> Answer:
    checked = tuple(
        (options, tuple(Fault(**{**f, "path": tuple(f["path"])}) for f in faults))
        for options, faults in values["checked"]
    )
    names, missing = tuple(values["names"]), tuple(values["missing"])
    return Answer(**{**values, "checked": checked, "names": names, "missing": missing})
