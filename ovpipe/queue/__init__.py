"""AsyncInferQueue: a pool of infer requests. Usable alone, in any application."""

from __future__ import annotations

from ovpipe.queue.pool import AsyncInferQueue, InferenceError

__all__ = ["AsyncInferQueue", "InferenceError"]
