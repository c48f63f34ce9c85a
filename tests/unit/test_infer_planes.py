"""Pictures for a model, resized before they are converted: the same, but for rounding."""

import itertools

import numpy as np
import pytest

pytest.importorskip("cv2")

from ovpipe.frame import Frame, Image
from ovpipe.stages.infer.decode import Fit
from ovpipe.stages.infer.feed import PictureFeed


def scene(form, width=320, height=180):
    """Soft colours, as I420, BGR, RGB or grey."""
    import cv2

    random = np.random.default_rng(3)
    small = random.integers(40, 216, (6, 8, 3), np.uint8)
    bgr = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    code = {"i420": cv2.COLOR_BGR2YUV_I420, "rgb": cv2.COLOR_BGR2RGB, "gray": cv2.COLOR_BGR2GRAY}
    return bgr if form == "bgr" else cv2.cvtColor(bgr, code[form])


def pixels(image, size, colour, letterbox, planes_first):
    feed = PictureFeed(size, Fit(letterbox=letterbox, pad=7), colour, {}, np.array, planes_first)
    fed = feed.take(Frame(image=image))
    return fed.buffer.pixels.astype(int), fed.info


@pytest.mark.parametrize("letterbox", [False, True])
@pytest.mark.parametrize("colour", ["bgr", "rgb", "gray"])
@pytest.mark.parametrize(
    ("form", "matrix", "full"),
    [(f, m, r) for f in ("i420",) for m, r in itertools.product(("bt601", "bt709"), (False, True))]
    + [(f, "bt601", False) for f in ("bgr", "rgb", "gray")],
)
def test_it_is_the_same_picture(form, matrix, full, colour, letterbox):
    image = Image(scene(form), form, matrix, full)
    mine, info = pixels(image, (96, 96), colour, letterbox, True)
    plain, same = pixels(image, (96, 96), colour, letterbox, False)
    assert np.abs(mine - plain).max() <= 12  # colour is spread in another way at borders
    assert np.abs(mine - plain).mean() < 1
    assert (info.left, info.top, info.scale_x) == (same.left, same.top, same.scale_x)
    assert np.ptp(plain) > 40  # there is something to be seen


def test_what_is_made_larger_is_the_same_to_the_bit():
    image = Image(scene("i420", 64, 48), "i420")
    mine, _ = pixels(image, (96, 96), "bgr", False, True)
    plain, _ = pixels(image, (96, 96), "bgr", False, False)
    assert (mine == plain).all()


def test_nothing_is_converted_at_full_size():
    image = Image(scene("i420"), "i420")
    pixels(image, (96, 96), "bgr", False, True)
    assert image._cache == {}
