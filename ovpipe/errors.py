"""Every error that ovpipe raises on purpose, drawn as a tree.

    OvpipeError
    ├── ConfigError      what the user wrote is wrong; carries every Problem found       exit 2
    ├── PreflightError   a resource is missing or unusable: model, video, folder, device exit 3
    │   └── MissingExtra an optional package is not installed; says the line to install it
    ├── StageError       a running stage gave up; carries stage, cause, remote traceback exit 4
    ├── DrainTimeout     the pipeline did not finish within the drain budget             exit 5
    ├── LedgerError      a frame is unaccounted for: a fault of ovpipe itself            exit 6
    ├── FrameError       this one frame failed; the stage goes on with the next
    ├── WireError        bytes on a socket are not what a peer of ours sends
    └── PipelineClosed   the pipeline (or queue) was used after it ended

Law: an error says what is wrong, where, and what to do, in one message without a secret in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class OvpipeError(Exception):
    """Base of all errors raised by ovpipe. `exit_code` is what the command line ends with."""

    exit_code = 1


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a configuration: where it stands, what it is, what to do.

    `line` and `column` count from 1; 0 where there is no text (a graph built in Python).
    `path` is the dotted path of the value, as `stages.detect.jobs`.
    """

    message: str
    path: str = ""
    file: str = ""
    line: int = 0
    column: int = 0
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}: " if self.line else ""
        what = f"{self.path}: {self.message}" if self.path else self.message
        return f"{where}{what} ({self.hint})" if self.hint else f"{where}{what}"


class ConfigError(OvpipeError):
    """The configuration is wrong. `problems` lists everything found, in the order of the text."""

    exit_code = 2

    def __init__(self, problems: list[Problem] | tuple[Problem, ...] | str) -> None:
        if isinstance(problems, str):
            problems = (Problem(problems),)
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class PreflightError(OvpipeError):
    """Something the pipeline needs is missing or cannot be used. Trying again does not help."""

    exit_code = 3


class MissingExtra(PreflightError):
    """An optional package is needed and not installed."""

    def __init__(self, who: str, module: str, extra: str) -> None:
        super().__init__(
            f"{who} needs the Python package '{module}', which is not installed; "
            f"install it with: pip install 'ovpipe[{extra}]'"
        )


class StageError(OvpipeError):
    """A stage ended that should not have.

    `stage`: its name; `cause`: one line; `remote_traceback`: as the worker printed it, or "".
    """

    exit_code = 4

    def __init__(self, stage: str, cause: str, remote_traceback: str = "") -> None:
        self.stage = stage
        self.cause = cause
        self.remote_traceback = remote_traceback
        super().__init__(f"stage '{stage}' failed: {cause}")


class DrainTimeout(OvpipeError):
    """Not everything in flight was finished within the drain budget."""

    exit_code = 5


class LedgerError(OvpipeError):
    """The law of the ledger does not hold. This is a fault of ovpipe: please report it."""

    exit_code = 6


class FrameError(OvpipeError):
    """This frame failed. Raised by a stage, `reason` is one of ledger.FAILED; raised for a frame
    that an application waits for, any reason of the ledger, or "" where none is known."""

    def __init__(self, message: str, reason: str = "infer_error") -> None:
        self.reason = reason
        super().__init__(message)


class WireError(OvpipeError):
    """A message is malformed. `kind` names the check that refused it."""

    def __init__(self, kind: str, message: str = "") -> None:
        self.kind = kind
        super().__init__(f"malformed message ({kind}): {message}" if message else kind)


class PipelineClosed(OvpipeError):
    """The pipeline is closed."""


def to_json(error: OvpipeError) -> dict[str, Any]:
    """An error as plain values, for another process."""
    values: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, StageError):
        values.update(stage=error.stage, cause=error.cause, remote_traceback=error.remote_traceback)
    return values


def from_json(values: dict[str, Any]) -> OvpipeError:
    """The inverse of to_json, as far as the receiver needs it.

    A remote traceback is a note, too, so that an error which nobody catches shows it.
    """
    if values["type"] == "StageError":
        error = StageError(values["stage"], values["cause"], values["remote_traceback"])
        if error.remote_traceback:
            text = error.remote_traceback.rstrip().replace("\n", "\n    ")
            error.add_note(f"in the process of stage '{error.stage}':\n    {text}")
        return error
    kinds = (PreflightError, DrainTimeout, LedgerError)
    kind = next((k for k in kinds if k.__name__ == values["type"]), OvpipeError)
    return kind(values["message"])


def together(errors: Sequence[OvpipeError]) -> Exception | None:
    """What to raise for all of `errors`: none, the one, or a group with the first cause first."""
    if len(errors) < 2:
        return errors[0] if errors else None
    return ExceptionGroup(f"{len(errors)} failures, the first cause first", errors)
