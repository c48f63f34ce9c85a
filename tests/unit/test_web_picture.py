"""Pictures for people: the right colours from every kind of pixels, boxes where they belong."""

import json

import numpy as np
import pytest
import simplejpeg

from ovpipe.detections import Detections
from ovpipe.frame import Frame, Image
from ovpipe.stages.annotate import colour_of
from ovpipe.web.picture import Painter, facts, full_range_bt601, thinned

W, H = 320, 180


def i420(matrix="bt601", full_range=False, width=W, height=H):
    """Soft colours, all of which RGB has."""
    y = np.linspace(70, 170, height * width).reshape(height, width)
    u = np.tile(np.linspace(95, 160, width // 2), (height // 2, 1))
    v = np.tile(np.linspace(160, 95, height // 2)[:, None], (1, width // 2))
    data = np.concatenate([p.ravel() for p in (y, u, v)]).astype(np.uint8)
    return Image(data.reshape(height * 3 // 2, width), "i420", matrix, full_range)


def decoded(jpeg):
    assert jpeg[:2] == b"\xff\xd8"
    return simplejpeg.decode_jpeg(jpeg).astype(int)


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("full_range", [False, True])
def test_colours_of_planes_are_those_of_the_frame(matrix, full_range):
    image = i420(matrix, full_range)
    planes = full_range_bt601(image)
    again = np.concatenate([p.ravel() for p in planes]).reshape(image.data.shape)
    shown = Image(again, "i420", "bt601", True).rgb().astype(int)
    assert np.abs(shown - image.rgb()).max() <= 4
    jpeg = decoded(Painter(quality=95).jpeg(Frame(image=image)))
    assert np.abs(jpeg - image.rgb()).mean() < 2


def test_what_needs_no_turning_is_not_touched():
    image = i420(full_range=True)
    assert all(np.shares_memory(plane, image.data) for plane in full_range_bt601(image))


@pytest.mark.parametrize("form", ["bgr", "rgb", "gray"])
def test_other_pixels_keep_their_colours(form):
    data = i420().bgr() if form == "bgr" else i420().rgb() if form == "rgb" else i420().gray()
    image = Image(np.ascontiguousarray(data), form)
    shown = decoded(Painter(quality=95).jpeg(Frame(image=image)))
    wanted = image.rgb().astype(int) if form != "gray" else np.repeat(data[:, :, None], 3, 2)
    assert np.abs(shown - wanted).mean() < 2


@pytest.mark.parametrize("form", ["i420", "bgr", "gray"])
@pytest.mark.parametrize(
    ("width", "height", "by"), [(1920, 1080, 2), (3840, 2160, 3), (1280, 720, 1), (1286, 722, 2)]
)
def test_large_pictures_are_made_smaller(form, width, height, by):
    shape = (
        (height * 3 // 2, width)
        if form == "i420"
        else (height, width, 3)
        if form == "bgr"
        else (height, width)
    )
    image = Image(np.full(shape, 90, np.uint8), form, "bt709")
    small = thinned(image, by)
    assert (small.matrix, small.format) == ("bt709", form)
    assert (small.width, small.height) == (
        width // by // 2 * 2 if form == "i420" else width // by,
        small.height,
    )
    assert abs(small.height - height / by) < 2
    assert (small.data == 90).all()
    assert decoded(Painter().jpeg(Frame(image=image))).shape[1] <= 1280


def test_a_frame_of_a_pool_that_cannot_be_written_is_only_read():
    image = i420(width=1920, height=1080)
    image.data.setflags(write=False)
    before = image.data.copy()
    found = Detections.of([[100, 100, 900, 800]], [0.9], [0], {0: "cat"})
    Painter().jpeg(Frame(image=image, detections=found))
    assert (image.data == before).all()


@pytest.mark.parametrize("width", [640, 1920])
def test_boxes_are_drawn_where_they_are_however_large_the_picture(width):
    height = width * 9 // 16
    grey = Image(np.full((height * 3 // 2, width), 128, np.uint8), "i420", "bt601", True)
    box = [width // 4, height // 4, width // 2, height // 2]
    found = Detections.of([box], [0.9], [3], {3: "cat"})
    shown = decoded(Painter(quality=95).jpeg(Frame(image=grey, detections=found)))
    scale = shown.shape[1] / width
    blue, green, red = colour_of(3)
    y = round(height * 3 / 8 * scale)  # half-way down the left edge of the box
    x = round(box[0] * scale)
    near = shown[y, x - 2 : x + 3]
    assert np.abs(near - [red, green, blue]).sum(axis=1).min() < 90
    inside = shown[y, round(width * 3 / 8 * scale)]
    assert np.abs(inside - 128).max() < 8


def test_a_frame_without_a_picture_says_so():
    with pytest.raises(ValueError, match="no picture"):
        Painter().jpeg(Frame(arrays={"x": np.zeros(3)}))


def test_facts_are_json_whatever_a_frame_carries():
    found = Detections.of([[0, 1, np.inf, np.nan]], [0.5], [7], {7: "cat"}, [12])
    deep = {"list": [1, None, True, b"123", float("nan")], "x" * 900: "y" * 900}
    frame = Frame(
        image=i420(), arrays={"a": np.zeros((2, 3), np.float32)}, detections=found, meta=deep
    )
    told = facts(frame.stamped("cam", 5, 10**9), 3 * 10**9)
    again = json.loads(json.dumps(told, allow_nan=False))
    assert again == told
    assert told["age_s"] == 2.0
    assert told["image"]["matrix"] == "bt601"
    assert told["arrays"] == {"a": {"shape": [2, 3], "dtype": "float32"}}
    assert told["detections"] == [
        {"label": "cat", "class_id": 7, "score": 0.5, "box": [0, 1, None, None], "track_id": 12}
    ]
    assert told["meta"]["list"] == [1, None, True, "3 bytes", None]
    assert all(len(key) <= 500 for key in told["meta"])
