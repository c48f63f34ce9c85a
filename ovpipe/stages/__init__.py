"""Stages: what a user writes, and the kinds that come with ovpipe. Blind to transport.

`Infer` is loaded when it is first used; importing this package imports no OpenVINO.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ovpipe.stages.infer import Infer

__all__ = ["Infer"]


def __getattr__(name: str) -> Any:
    if name != "Infer":
        raise AttributeError(f"module 'ovpipe.stages' has no attribute '{name}'")
    from ovpipe.stages.infer import Infer

    return Infer
