"""Reading a tree: problems are noted and not raised, variables are replaced, secrets are kept.

Law: each place is told once; no message holds a value that came from a variable, nor a
character that a terminal would obey; after MAX_PROBLEMS the reading ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovpipe.errors import ConfigError, Problem
from ovpipe.hint import near
from ovpipe.loader.interpolate import InterpolationError, interpolate
from ovpipe.loader.options import UNKNOWN_KEY
from ovpipe.loader.tree import MAX_TEXT, Node, scalar, shown
from ovpipe.spec import Place

MAX_PROBLEMS = 200


class Reading:
    """One tree being read."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._problems: list[Problem] = []
        self._environ = environ
        self._filled: set[Place] = set()  # of values that came from variables
        self._unset: set[str] = set()  # paths that have no value: nothing more is said of them
        self._room = MAX_TEXT

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Those found so far."""
        return tuple(self._problems)

    def tell(self, where: Node | Place, path: str, message: str, hint: str = "") -> None:
        """Note a problem."""
        if path in self._unset:
            return
        p = where.place if isinstance(where, Node) else where
        problem = Problem(shown(message), shown(path), p.file, p.line, p.column, shown(hint))
        self._problems.append(problem)
        if len(self._problems) >= MAX_PROBLEMS:
            self._problems.append(Problem("and more: after so many, the rest is not looked at"))
            self.finish()

    def finish(self) -> None:
        """Raise ConfigError if there were problems, in the order of the text."""
        if self._problems:
            raise ConfigError(sorted(self._problems, key=lambda p: (p.line or 1 << 30, p.column)))

    def plain(self, node: Node, path: str) -> Any:
        """The node as ordinary values, its variables replaced; None where one is not set."""
        if isinstance(node.value, dict):
            return {k: self.plain(v, f"{path}.{k}") for k, v in node.value.items()}
        if isinstance(node.value, list):
            return [self.plain(v, f"{path}[{i}]") for i, v in enumerate(node.value)]
        if not isinstance(node.value, str) or "$" not in node.text:
            return node.value
        try:
            text = interpolate(node.text, self._environ)
            self._room -= len(text)
            if self._room < 0:
                raise InterpolationError("the variables of the file make too much text")
            text.encode()
        except (InterpolationError, UnicodeEncodeError) as error:
            wrong = isinstance(error, InterpolationError)
            self.tell(node, path, str(error) if wrong else "holds bytes that are not UTF-8")
            self._unset.add(path)
            return None
        self._filled.add(node.place)
        return scalar(text) if node.plain else text

    def private(self, where: Node | Place) -> bool:
        """True where the value came from a variable, and may be a secret."""
        return (where.place if isinstance(where, Node) else where) in self._filled

    def mapping(self, node: Node, path: str, what: str) -> dict[str, Node]:
        """The node's entries, or none and a problem."""
        if isinstance(node.value, dict):
            return node.value
        self.tell(node, path, f"must be a mapping: {what}")
        return {}

    def keys(self, node: Node, path: str, known: tuple[str, ...]) -> None:
        """Tell keys that are not known."""
        for key, place in (node.keys or {}).items():
            if key not in known:
                self.tell(place, f"{path}.{key}" if path else key, UNKNOWN_KEY, near(key, known))
