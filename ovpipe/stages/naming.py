"""Naming: the names of files from a pattern, and which files are of it. Pure.

    rec/{stream}/{time:%Y-%m-%d}/{time:%H-%M-%S}.mp4

    {stream}  the stream's name
    {time}    when the file began, by the wall clock; what follows the colon is strftime's
    {n}       number of the file within its stream, from 1; {n:06} with zeros
    {seq}     number of its first frame; {seq:08}
    {label}   of the surest object in its first frame, or `none`

Law: whatever a stream or a label is called, the path lies in the folder that the pattern names
(`ovpipe.stages.paths`). `parts` matches exactly the paths that the pattern can give, also those
that a number was added to (`-2`), and no others.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ovpipe.errors import PreflightError
from ovpipe.stages.paths import expanded, safe_name

FIELDS = ("stream", "time", "n", "seq", "label")
_ZONED = "%Y-%m-%dT%H-%M-%S%z"
_MAX_LABEL_BYTES = 40
_NAME = r"[\w.-]+"
# What strftime gives for each directive; others, or their forms, differ between systems.
_DIRECTIVES = {
    "Y": r"\d{4}", "m": r"\d{2}", "d": r"\d{2}", "H": r"\d{2}", "M": r"\d{2}", "S": r"\d{2}",
    "y": r"\d{2}", "j": r"\d{3}", "f": r"\d{6}", "I": r"\d{2}", "p": r"\w*", "a": r"\w+",
    "A": r"\w+", "b": r"\w+", "B": r"\w+", "G": r"\d{4}", "V": r"\d{2}", "u": r"\d",
    "z": r"[+-]\d{4,6}", "Z": r"[\w+-]*", "%": "%",
}  # fmt: skip
_NUMBER_FORMAT = re.compile(r"(0?)(\d{0,2})d?")


@dataclass(frozen=True)
class Facts:
    """What a name is made of. `time_s`: seconds since 1970."""

    stream: str
    time_s: float = 0.0
    n: int = 1
    seq: int = 0
    label: str = "none"


class Pattern:
    """A pattern that was understood; PreflightError says what of it is not."""

    def __init__(self, text: str, utc: bool = False, allowed: tuple[str, ...] = FIELDS) -> None:
        self.text = text
        self.fields: set[str] = set()
        self._utc = utc
        self._parts: list[str | Callable[[Facts], str]] = []
        regex = ""
        if "\0" in text:
            raise PreflightError(f"path {text!r}: a NUL byte is in it")
        try:
            parsed = list(string.Formatter().parse(text))
        except ValueError as error:
            raise PreflightError(f"path '{text}': {error}; a brace itself is '{{{{'") from None
        for literal, field, form, conversion in parsed:
            self._parts.append(literal)
            regex += re.escape(literal)
            if field is None:
                continue
            if field not in allowed or conversion or "{" in (form or ""):
                known = ", ".join(f"{{{name}}}" for name in allowed)
                raise PreflightError(f"path '{text}': there is no {{{field}}}; there are {known}")
            regex += self._add(field, form or "")
            self.fields.add(field)
        folders, _, _ = "".join(f if isinstance(f, str) else "\0" for f in self._parts).partition(
            "\0"
        )
        self.root = Path(folders.rpartition("/")[0] or ("/" if folders[:1] == "/" else "."))
        self.root = expanded(str(self.root))
        depth = folders.count("/")
        *above, last = regex.split("/")[depth:]
        stem, dot, suffix = last.rpartition("\\.")
        last = f"{stem}(?:-\\d+)?{dot}{suffix}" if dot else f"{last}(?:-\\d+)?"
        self.parts = tuple(re.compile(part) for part in (*above, last))
        """One expression for each part of a path below `root`."""

    def path(self, facts: Facts) -> Path:
        """The path for these facts."""
        made = (part if isinstance(part, str) else part(facts) for part in self._parts)
        return Path("".join(made)).expanduser()

    def _add(self, field: str, form: str) -> str:
        """Take a field in; its expression."""
        if field == "time":
            return self._add_time(form or _ZONED)
        if field in ("n", "seq"):
            match = _NUMBER_FORMAT.fullmatch(form)
            if match is None:
                raise PreflightError(
                    f"path '{self.text}': {{{field}:{form}}}: a number is written as {{{field}:06}}"
                )
            width = int(match[2] or 0) if match[1] else 0

            def number(facts: Facts) -> str:
                return f"{facts.n if field == 'n' else facts.seq:0{width}d}"

            first = field == "n" and field not in self.fields
            self.fields.add(field)
            self._parts.append(number)
            return r"(?P<n>\d+)" if first else r"\d+"
        if form:
            raise PreflightError(f"path '{self.text}': {{{field}:{form}}}: {field} has no format")
        if field == "stream":
            self._parts.append(lambda facts: safe_name(facts.stream))
        else:
            self._parts.append(lambda facts: safe_name(facts.label)[:_MAX_LABEL_BYTES] or "none")
        return _NAME

    def _add_time(self, form: str) -> str:
        regex, rest = "", form
        while rest:
            literal, percent, rest = rest.partition("%")
            regex += re.escape(literal)
            if percent:
                directive, rest = rest[:1], rest[1:]
                if directive not in _DIRECTIVES:
                    raise PreflightError(
                        f"path '{self.text}': '%{directive}' is no part of a time here; there are "
                        f"{' '.join(f'%{name}' for name in _DIRECTIVES)}"
                    )
                regex += _DIRECTIVES[directive]

        def when(facts: Facts) -> str:
            if self._utc:
                return datetime.fromtimestamp(facts.time_s, UTC).strftime(form)
            return datetime.fromtimestamp(facts.time_s).astimezone().strftime(form)

        self._parts.append(when)
        return regex

    def number(self, path: Path) -> int:
        """The {n} of one of its paths; 0 where it has none."""
        parts = path.parts[-len(self.parts) :]
        for part, regex in zip(parts, self.parts, strict=True):
            match = regex.fullmatch(part)
            if match is not None and match.groupdict().get("n"):
                return int(match["n"])
        return 0
