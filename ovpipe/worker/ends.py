"""Ends of a worker's process that are no failures of its stage."""

from __future__ import annotations

from ovpipe.errors import OvpipeError


class SourceEnded(OvpipeError):
    """A producer that is to be restarted always has no more frames."""


class Left(OvpipeError):
    """Another process is to take this one's place, as somebody asked for; nothing is in work."""
