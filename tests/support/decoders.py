"""Decoders that misbehave, by name; used as `tests.support.decoders:name` in YAML."""

import numpy as np

from ovpipe.detections import Detections


def raises_on_each_third(outputs, info):
    """Fails frames 2, 5, 8, ..."""
    if info.frame.seq % 3 == 2:
        raise ZeroDivisionError(f"in frame {info.frame.seq}")
    return Detections.of([[0, 0, 4, 4]], [0.5], [info.frame.seq])


def half_nan(outputs, info):
    """Three objects, of which one is fit to be published; not by way of `info.detections`."""
    boxes = [[0, 0, 4, 4], [0, np.nan, 4, 4], [0, 0, np.inf, 4]]
    return Detections.of(boxes, [0.5, 0.6, 0.7], [1, 2, 3])


def half_nan_frame(outputs, info):
    """The same, as a frame."""
    return info.frame.with_(detections=half_nan(outputs, info))
