"""Scores of classes -> the best of them."""

from __future__ import annotations

import numpy as np
import pytest

from ovpipe.frame import Frame
from ovpipe.stages.infer.classification import Classification, probabilities
from ovpipe.stages.infer.decode import FrameInfo
from ovpipe.stages.infer.labels import Keep

INFO = FrameInfo(Frame(), 8, 8, 8, 8, 1, 1, labels={0: "cat", 2: "dog"})


def test_the_five_best_with_their_names() -> None:
    scores = np.float32([[0.3, 0.1, 0.25, 0.05, 0.2, 0.1]])
    best = Classification()({"prob": scores}, INFO)["classes"]
    assert [c["class_id"] for c in best] == [0, 2, 4, 1, 5]
    assert best[0] == {"label": "cat", "class_id": 0, "score": pytest.approx(0.3)}
    assert best[2]["label"] == "4"


def test_keep_picks_before_the_best_are_taken() -> None:
    scores = np.float32([[[[0.6]], [[0.3]], [[0.1]]]])
    keep = Keep(frozenset({1, 2}), 0.2)
    assert [c["class_id"] for c in Classification(keep)({"p": scores}, INFO)["classes"]] == [1]


def test_logits_become_probabilities() -> None:
    logits = np.float32([1, 2, 3])
    assert probabilities(logits) == pytest.approx(np.exp(logits) / np.exp(logits).sum())
    assert probabilities(np.float32([1000, 0])).tolist() == [1, 0]


def test_bytes_are_parts_of_255() -> None:
    assert probabilities(np.uint8([0, 51, 255])) == pytest.approx([0, 0.2, 1])


def test_what_is_not_finite_gets_no_share() -> None:
    assert probabilities(np.float32([np.nan, 1, 1])).tolist() == [0, 0.5, 0.5]
    assert np.isfinite(probabilities(np.float32([np.inf, 1, -np.inf]))).all()
    assert np.isfinite(probabilities(np.float32([-np.inf, -np.inf]))).all()
