"""What is known of a stage's kind, and whether given options suit it.

Kinds that come with ovpipe are looked at in this process. A user's own `module:Name` is not:
importing it may start threads, take memory or hang. One child process looks at all of them:
`python -P -m ovpipe.loader.kinds FOLDER`, questions as JSON on stdin, answers on stdout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ovpipe.errors import ConfigError
from ovpipe.loader import options as o
from ovpipe.loader.options import Fault
from ovpipe.stages.registry import BUILT_IN, is_own, stage_class

_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Question:
    """A kind, and each set of options to check (several for a `for_each`)."""

    kind: str
    options: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Answer:
    """`fault`: the kind itself is wrong. `checked`: per set of options, values and faults."""

    fault: str = ""
    role: str = ""
    live: bool = False
    names: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    checked: tuple[tuple[dict[str, Any], tuple[Fault, ...]], ...] = field(default=())


def answer(question: Question) -> Answer:
    """Look at one kind, in this process."""
    if question.kind not in BUILT_IN and not is_own(question.kind):
        return Answer(f"unknown kind '{question.kind}'; {_kind_hint(question.kind)}")
    try:
        cls = stage_class(question.kind)
        checked = [o.check(cls, options) for options in question.options]
        names = tuple(o.model_of(cls).model_fields)
    except ConfigError as error:
        return Answer(str(error))
    except Exception as error:  # noqa: BLE001 - a user's module may raise anything
        return Answer(f"kind '{question.kind}': {type(error).__name__}: {error}")
    role, live = cls.role, False
    if not any(faults for _, faults in checked):
        try:
            lives = [o.facts(cls, values)[1] for values, _ in checked]
        except Exception as error:  # noqa: BLE001 - as above
            return Answer(f"kind '{question.kind}': {type(error).__name__}: {error}")
        live = any(lives)
    return Answer(
        "",
        role,
        live,
        names,
        tuple(o.missing(cls)),
        tuple((values, tuple(faults)) for values, faults in checked),
    )


def answers(questions: Sequence[Question], folder: Path) -> list[Answer]:
    """Look at all kinds; those of the user in a child process, with `folder` first on its path."""
    own = [q for q in questions if is_own(q.kind)]
    theirs = iter(_ask_child(own, folder) if own else [])
    return [next(theirs) if is_own(q.kind) else answer(q) for q in questions]


def _kind_hint(kind: str) -> str:
    hint = o.near(kind, sorted(BUILT_IN))
    return f"{hint} A kind of your own is 'module:Name'" if hint.startswith("known") else hint


def _ask_child(questions: list[Question], folder: Path) -> list[Answer]:
    command = [sys.executable, "-P", "-m", "ovpipe.loader.kinds", str(folder)]
    asked = json.dumps([asdict(q) for q in questions], default=str)
    try:
        child = subprocess.run(
            command, input=asked, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
            errors="backslashreplace", process_group=0,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        kinds = ", ".join(q.kind for q in questions)
        return [Answer(f"importing {kinds} took longer than {_TIMEOUT_S:g} s")] * len(questions)
    try:
        found = json.loads(child.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (child.stderr.strip().splitlines() or [f"exit code {child.returncode}"])[-1]
        return [Answer(f"kind '{q.kind}': cannot be looked at: {last}") for q in questions]
    return [_revive(values) for values in found]


def _revive(values: dict[str, Any]) -> Answer:
    checked = tuple(
        (options, tuple(Fault(tuple(f["path"]), f["message"], f["hint"]) for f in faults))
        for options, faults in values["checked"]
    )
    return Answer(**{**values, "checked": checked, "names": tuple(values["names"])})


def main(folder: str) -> None:
    """Answer questions from stdin on stdout, whatever the modules print."""
    sys.path.insert(0, folder)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a module that prints while it is imported must not mix with the answer
    questions = [Question(q["kind"], tuple(q["options"])) for q in json.load(sys.stdin)]
    print(json.dumps([asdict(answer(q)) for q in questions]), file=out, flush=True)
    os._exit(0)  # threads that a module has started do not matter


if __name__ == "__main__":
    main(sys.argv[1])
