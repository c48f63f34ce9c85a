"""Names of classes, and which objects are kept.

Law: a class id keeps its number whatever is named or kept; `keep` never lets through what is
not finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ovpipe.detections import Detections
from ovpipe.errors import PreflightError
from ovpipe.hint import near
from ovpipe.stages.paths import expanded

Labels = Mapping[int, str]
_MAX_BYTES = 1 << 20


def read_labels(written: list[str] | dict[int, str] | str) -> dict[int, str]:
    """Class id -> name from a list, a mapping, or a text file with a name per line."""
    if isinstance(written, dict):
        try:
            return {int(key): str(name) for key, name in written.items()}
        except ValueError:
            raise PreflightError(f"labels: class ids are numbers, not {list(written)!r}") from None
    if isinstance(written, str):
        return dict(enumerate(_lines(written))) if written else {}
    return {i: str(name) for i, name in enumerate(written)}


def _lines(path: str) -> list[str]:
    try:
        with open(expanded(path), "rb") as file:
            data = file.read(_MAX_BYTES + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise PreflightError(f"cannot read labels '{path}': {error.strerror}") from None
    except UnicodeDecodeError:
        raise PreflightError(f"cannot read labels '{path}': not a text file in UTF-8") from None
    if len(data) > _MAX_BYTES:
        raise PreflightError(f"cannot read labels '{path}': larger than {_MAX_BYTES >> 20} MiB")
    return [line.strip() for line in text.strip().splitlines()]


@dataclass(frozen=True)
class Keep:
    """What leaves the stage: classes by id (None: all) with at least `score` (None: any)."""

    classes: frozenset[int] | None = None
    score: float | None = None

    @classmethod
    def read(cls, written: Mapping[Any, Any], labels: Labels) -> Keep:
        """From the option `keep`; PreflightError where it names a class that is not there."""
        unknown = set(written) - {"classes", "score"}
        if unknown:
            raise PreflightError(f"keep: unknown {sorted(unknown)}; it takes classes and score")
        classes = written.get("classes")
        score = written.get("score")
        if score is not None and not isinstance(score, int | float):
            raise PreflightError(f"keep: score is a number, not {score!r}")
        if classes is not None and not isinstance(classes, list | tuple):
            raise PreflightError(f"keep: classes is a list of names or ids, not {classes!r}")
        ids = None if classes is None else frozenset(_class_id(c, labels) for c in classes)
        return cls(ids, None if score is None else float(score))

    def apply(self, found: Detections) -> Detections:
        """The rows of `found` that are finite and wanted, in their order."""
        stay = np.isfinite(found.score) & np.isfinite(found.xyxy).all(axis=1)
        if self.score is not None:
            stay &= found.score >= np.float32(self.score)
        if self.classes is not None:
            stay &= np.isin(found.class_id, list(self.classes))
        return found if stay.all() else found[stay]

    def wants(self, class_id: int, score: float) -> bool:
        """The same for one class of a classification."""
        return (self.classes is None or class_id in self.classes) and (
            self.score is None or score >= self.score
        )


def _class_id(wanted: str | int, labels: Labels) -> int:
    if isinstance(wanted, int):
        return wanted
    ids = [i for i, name in labels.items() if name == wanted]
    if ids:
        return ids[0]
    if not labels:
        raise PreflightError(f"keep: class '{wanted}' has no id: give `labels`, or the id itself")
    hint = near(str(wanted), labels.values())
    raise PreflightError(f"keep: no class is named '{wanted}'; {hint}")
