"""ovpipe: inference on live video and other array streams with OpenVINO.

Importing this package is cheap: each name is loaded when it is first used, since every worker
process imports it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ovpipe.detections import Detection, Detections
    from ovpipe.errors import (
        ConfigError,
        DrainTimeout,
        FrameError,
        LedgerError,
        OvpipeError,
        PipelineClosed,
        PreflightError,
        StageError,
    )
    from ovpipe.frame import Frame
    from ovpipe.image import Image
    from ovpipe.pipeline import Pipeline
    from ovpipe.stages.base import Consumer, Producer, Transform

_WHERE = {
    "Detection": "ovpipe.detections",
    "Detections": "ovpipe.detections",
    "ConfigError": "ovpipe.errors",
    "DrainTimeout": "ovpipe.errors",
    "FrameError": "ovpipe.errors",
    "LedgerError": "ovpipe.errors",
    "OvpipeError": "ovpipe.errors",
    "PipelineClosed": "ovpipe.errors",
    "PreflightError": "ovpipe.errors",
    "StageError": "ovpipe.errors",
    "Frame": "ovpipe.frame",
    "Image": "ovpipe.image",
    "Pipeline": "ovpipe.pipeline",
    "Consumer": "ovpipe.stages.base",
    "Producer": "ovpipe.stages.base",
    "Transform": "ovpipe.stages.base",
}
__all__ = [
    "ConfigError",
    "Consumer",
    "Detection",
    "Detections",
    "DrainTimeout",
    "Frame",
    "FrameError",
    "Image",
    "LedgerError",
    "OvpipeError",
    "Pipeline",
    "PipelineClosed",
    "PreflightError",
    "Producer",
    "StageError",
    "Transform",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in ("queue", "stages"):  # ovpipe.stages.Infer, without an import of its own
        return importlib.import_module(f"ovpipe.{name}")
    if name not in _WHERE:
        raise AttributeError(f"module 'ovpipe' has no attribute '{name}'")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
