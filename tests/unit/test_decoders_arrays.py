"""The decoders that give arrays, and UltraFace: each against results worked out by hand."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

from ovpipe.errors import FrameError
from ovpipe.frame import Frame
from ovpipe.stages.infer.decode import Fit, FrameInfo
from ovpipe.stages.infer.embedding import Embedding
from ovpipe.stages.infer.facts import ModelFacts, OutputFact
from ovpipe.stages.infer.keypoints import Keypoints
from ovpipe.stages.infer.labels import Keep
from ovpipe.stages.infer.segmentation import BLOCK, Segmentation, best
from ovpipe.stages.infer.ultraface import UltraFace


def stretched() -> FrameInfo:
    """A frame of 640x480 in an input of 320x240."""
    return FrameInfo(Frame(), 640, 480, 320, 240, 0.5, 0.5, labels={0: "road", 2: "sky"})


def letterboxed() -> FrameInfo:
    """A frame of 100x200 at the top left of an input of 64x64: 32 columns of it."""
    return FrameInfo(Frame(), 100, 200, 64, 64, 0.32, 0.32)


def ultraface(rows: list[tuple[float, ...]]) -> dict[str, Any]:
    """Rows of score, x1, y1, x2, y2."""
    made = np.float32(rows).reshape(1, -1, 5)
    scores = np.concatenate([1 - made[..., :1], made[..., :1]], axis=2)
    return {"scores": scores, "boxes": made[..., 1:]}


def test_ultraface() -> None:
    rows = [
        (0.9, 0.25, 0.5, 0.5, 0.75),
        (0.8, 0.25, 0.5, 0.5, 0.7),  # overlaps by 0.8
        (0.6, 0, 0, 0.2, 0.2),  # too weak
        (0.75, 0.9, 0.9, 1.1, 1.2),
    ]
    found = UltraFace()(ultraface(rows), stretched())
    np.testing.assert_allclose(found.xyxy, [(160, 240, 320, 360), (576, 432, 640, 480)], rtol=1e-6)
    assert found.score.tolist() == pytest.approx([0.9, 0.75])
    assert found.class_id.tolist() == [0, 0]
    swapped = dict(reversed(ultraface(rows).items()))
    assert len(UltraFace()(swapped, stretched())) == 2
    assert len(UltraFace(nms=0.9)(swapped, stretched())) == 3


def test_keypoints_of_a_body() -> None:
    out = np.zeros((1, 1, 3, 3), np.float32)
    out[0, 0] = [(0.5, 0.25, 0.9), (0.5, 0.75, 0.2), (math.nan, 0.5, 0.8)]  # y, x, score
    found = Keypoints()({"out": out}, letterboxed())["keypoints"]
    # input (16, 32) and (48, 32): 50, 100 in the frame; 150 is beyond it
    np.testing.assert_allclose(found, [[(50, 100, 0.9), (100, 100, 0.2), (0, 0, 0)]], rtol=1e-6)
    assert found.dtype == np.float32


def test_landmarks_of_a_face() -> None:
    out = np.float32([0.25, 0.5, 0.75, 0.5]).reshape(1, 4, 1, 1)
    found = Keypoints(Fit())({"out": out}, stretched())["keypoints"]
    assert found.tolist() == [[[160, 240, 1], [480, 240, 1]]]


def test_keypoints_know_their_picture() -> None:
    body = ModelFacts((OutputFact("out", (1, 1, 17, 3)),))
    face = ModelFacts((OutputFact("out", (1, 10, 1, 1)),))
    assert Keypoints.of(body).fit == Fit(letterbox=True, pad=0)
    assert Keypoints.of(face).fit == Fit()


def test_mask_from_scores() -> None:
    scores = np.zeros((1, 3, 2, 4), np.float32)
    scores[0, 2, 0] = 1
    scores[0, 1, 1, 2:] = 0.5
    found = Segmentation()({"out": scores}, stretched())
    assert found["mask"].tolist() == [[2, 2, 2, 2], [0, 0, 1, 1]]
    assert found["mask"].dtype == np.uint8
    assert found["mask_area"] == [0, 0, 4, 2]
    assert found["segments"] == [
        {"label": "road", "class_id": 0, "share": 0.25},
        {"label": "1", "class_id": 1, "share": 0.25},
        {"label": "sky", "class_id": 2, "share": 0.5},
    ]


def test_segments_that_are_wanted() -> None:
    ids = np.array([[[0, 2], [2, 2]]], np.int64)
    found = Segmentation(Keep(frozenset({2}), 0.9))({"out": ids}, stretched())
    assert found["mask"].tolist() == [[0, 2], [2, 2]]
    assert [s["label"] for s in found["segments"]] == ["sky"]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.float32])
def test_mask_from_ids(dtype: Any) -> None:
    ids = np.array([[[[0, 7], [255, 3]]]], dtype)
    for shape in ((1, 1, 2, 2), (1, 2, 2)):
        found = Segmentation()({"out": ids.reshape(shape)}, stretched())
        assert found["mask"].tolist() == [[0, 7], [255, 3]]
        assert found["mask"].dtype == np.uint8


def test_ids_that_are_none() -> None:
    ids = np.float32([[[math.nan, math.inf], [-3, 1e9]]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Segmentation()({"out": ids}, stretched())
        wide = Segmentation(wide=True)({"out": ids}, stretched())
    assert found["mask"].tolist() == [[0, 0], [0, 255]]
    assert wide["mask"].tolist() == [[0, 0], [0, 65535]]


def test_where_the_frame_is_in_the_mask() -> None:
    found = Segmentation()({"out": np.zeros((1, 1, 16, 16), np.uint8)}, letterboxed())
    assert found["mask_area"] == [0, 0, 8, 16]


@pytest.mark.parametrize("classes", [2, 21, 256, 300])
def test_best_is_argmax(classes: int) -> None:
    """With ties, and over more than one block."""
    random = np.random.default_rng(classes)
    scores = random.integers(0, 3 * classes, (classes, 3, BLOCK // 2 + 1)).astype(np.float32)
    found = best(scores)
    assert np.array_equal(found, scores.argmax(axis=0))
    assert found.dtype == (np.uint8 if classes <= 256 else np.uint16)


def test_scores_that_are_no_numbers() -> None:
    scores = np.float32([math.nan, 1, 2]).reshape(3, 1, 1)
    assert best(scores).tolist() == [[0]]


@pytest.mark.parametrize("shape", [(1, 2), (1, 2, 1, 1)])
def test_embedding_has_length_1(shape: tuple[int, ...]) -> None:
    found = Embedding()({"out": np.float32([3, 4]).reshape(shape)}, stretched())
    assert found["embedding"].tolist() == pytest.approx([0.6, 0.8])
    assert (found["embedding"].shape, found["embedding"].dtype) == ((2,), np.float32)


def test_embedding_of_nothing() -> None:
    found = Embedding()({"out": np.zeros((1, 4), np.float32)}, stretched())
    assert found["embedding"].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_embedding_that_is_not_finite_fails_its_frame(bad: float) -> None:
    with pytest.raises(FrameError, match="not finite"):
        Embedding()({"out": np.float32([[1, bad]])}, stretched())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_not_finite_warns_nobody(bad: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(UltraFace()(ultraface([(0.9, 0, bad, 1, 1)] * 3), stretched())) <= 1
        assert len(UltraFace()(ultraface([(bad, 0, 0, 1, 1)] * 3), stretched())) <= 1
        body = np.full((1, 1, 17, 3), bad, np.float32)
        assert np.isfinite(Keypoints()({"out": body}, stretched())["keypoints"]).all()
        Segmentation()({"out": np.full((1, 3, 4, 4), bad, np.float32)}, stretched())
