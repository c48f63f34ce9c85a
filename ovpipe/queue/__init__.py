"""AsyncInferQueue: a pool of infer requests. Usable alone, in any application."""

from __future__ import annotations

from ovpipe.queue.pool import AsyncInferQueue, InferenceError
from ovpipe.queue.statistics import Statistics
from ovpipe.queue.tensors import tensor_over

__all__ = ["AsyncInferQueue", "InferenceError", "Statistics", "tensor_over"]
