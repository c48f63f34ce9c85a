"""Converting only the rows that resizing reads gives what converting them all gives."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ovpipe.image import Image
from ovpipe.stages.infer.rows import Rows

SIZES = [(1920, 1080), (1280, 720), (3840, 2160), (1000, 502), (642, 362), (24, 20)]


def noise(width: int, height: int, matrix: str = "bt601", full_range: bool = False) -> Image:
    pixels = np.random.default_rng(width).integers(0, 256, (height * 3 // 2, width), np.uint8)
    return Image(pixels, "i420", matrix, full_range)


def test_each_picture_is_that_of_the_whole_bit_by_bit():
    rows = Rows()  # one for all of them: what an earlier picture left behind is never seen
    tried = 0
    for width, height in SIZES:
        image = noise(width, height)
        for small in (1, 2, 5, 31, 48, 72, 90, 120, 135, 180, 224):
            if not rows.suit(image, small):
                continue
            target = np.zeros((small, small + 7, 3), np.uint8)
            rows.shrink(image, "rgb", target, cv2)
            assert np.array_equal(target, cv2.resize(image.rgb(), (small + 7, small)))
            tried += 1
    assert tried > 30


@pytest.mark.parametrize(("matrix", "full_range"), [("bt709", False), ("bt601", True)])
def test_matrix_and_range_are_the_pictures_own(matrix, full_range):
    image = noise(640, 480, matrix, full_range)
    target = np.zeros((48, 64, 3), np.uint8)
    Rows().shrink(image, "bgr", target, cv2)
    assert np.array_equal(target, cv2.resize(image.bgr(), (64, 48)))


def test_a_part_of_an_array_is_filled_and_nothing_beside_it():
    image, buffer = noise(640, 480), np.full((64, 64, 3), 114, np.uint8)
    Rows().shrink(image, "bgr", buffer[8:56, :60], cv2)
    assert np.array_equal(buffer[8:56, :60], cv2.resize(image.bgr(), (60, 48)))
    assert (buffer[:8] == 114).all()
    assert (buffer[:, 60:] == 114).all()


def test_only_where_few_rows_are_read():
    rows = Rows()
    assert rows.suit(noise(1920, 1080), 48)
    assert not rows.suit(noise(1920, 1080), 300)
    assert not rows.suit(noise(1280, 720), 720)
    assert not rows.suit(Image(np.zeros((1080, 1920, 3), np.uint8)), 48)
