"""`preprocess: planes` finds what the usual way finds, on real footage."""

import numpy as np
import pytest

pytest.importorskip("av")

from ovpipe.stages import Infer
from ovpipe.stages.video import Video
from tests.support.clips import play
from tests.support.data import need

MODEL = "models/omz/person-vehicle-bike-detection-2000/FP16/person-vehicle-bike-detection-2000.xml"


def test_the_same_cars_at_the_same_places():
    film, model = need("videos/car-detection.mp4"), str(need(MODEL))
    frames = play(Video(url=str(film)), limit=237)[60:237:8]
    options = {"model": model, "decode": "ssd", "keep": {"score": 0.5}}
    found = 0
    with Infer(**options) as usual, Infer(**options, preprocess="planes") as planes:
        for frame in frames:
            one, other = usual(frame).detections, planes(frame).detections
            assert len(one) == len(other)
            found += len(one)
            if len(one):
                first, second = (d.xyxy[np.argsort(d.xyxy[:, 0])] for d in (one, other))
                assert np.abs(first - second).max() < 6
    assert found >= 10
