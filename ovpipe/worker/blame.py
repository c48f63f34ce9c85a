"""Whose failure it is, where several stages live in one process."""

from __future__ import annotations

from collections.abc import Callable

from ovpipe.transport.member import Member


class Blamed(BaseException):
    """What a stage raised, on its way through the neighbours that called it.

    No exception that a stage's own `except Exception` could take for one of its own.
    """

    def __init__(self, member: Member, cause: BaseException) -> None:
        super().__init__(member.assignment["stage"])
        self.member = member
        self.cause = cause


def blaming(member: Member, step: Callable[[], None]) -> None:
    """One step of a stage's life. Raises Blamed: the stage itself, unless another is already."""
    try:
        step()
    except Blamed:
        raise
    except BaseException as error:
        raise Blamed(member, error) from error
