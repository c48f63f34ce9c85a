"""Image: the colours are swscale's, the array given is the one written, what came in is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ovpipe.image import Image, ImageFormat, Matrix

cv2 = pytest.importorskip("cv2")
av = pytest.importorskip("av")

WIDTH, HEIGHT = 64, 48
SHAPES: dict[str, tuple[int, ...]] = {
    "i420": (HEIGHT * 3 // 2, WIDTH),
    "bgr": (HEIGHT, WIDTH, 3),
    "rgb": (HEIGHT, WIDTH, 3),
    "gray": (HEIGHT, WIDTH),
}


def pixels(form: str, low: int = 0, high: int = 256) -> np.ndarray[Any, Any]:
    data = np.random.default_rng(3).integers(low, high, SHAPES[form], np.uint8)
    data.setflags(write=False)
    return data


@pytest.mark.parametrize("to", ["bgr", "rgb"])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
def test_colours_are_those_of_swscale(matrix: Matrix, full_range: bool, to: ImageFormat) -> None:
    data = pixels("i420", 60, 196)
    frame = av.VideoFrame.from_ndarray(np.array(data), "yuv420p")
    frame.colorspace = 1 if matrix == "bt709" else 5
    frame.color_range = 2 if full_range else 1
    expected = frame.reformat(format=f"{to}24", threads=1).to_ndarray()
    out = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    Image(data, "i420", matrix, full_range).write(to, out)
    assert np.abs(out.astype(int) - expected).max() <= 3


@pytest.mark.parametrize(
    ("full_range", "white", "black"), [(False, 235, 16), (True, 255, 0)], ids=["limited", "full"]
)
def test_black_is_black_and_white_is_white(full_range: bool, white: int, black: int) -> None:
    data = np.full(SHAPES["i420"], 128, np.uint8)
    data[: HEIGHT // 2], data[HEIGHT // 2 : HEIGHT] = white, black
    out = Image(data, "i420", "bt709", full_range).bgr()
    assert out[: HEIGHT // 2].min() >= 254
    assert out[HEIGHT // 2 :].max() <= 1


@pytest.mark.parametrize("to", ["bgr", "rgb", "gray"])
@pytest.mark.parametrize("form", ["i420", "bgr", "rgb", "gray"])
def test_write_fills_the_given_array(form: ImageFormat, to: ImageFormat) -> None:
    data = pixels(form)
    before = data.copy()
    memory = np.zeros((2, *SHAPES[to]), np.uint8)
    out = memory[1]
    assert Image(data, form, "bt709", True).write(to, out) is out
    assert memory[1].any()
    assert not memory[0].any()
    assert np.array_equal(data, before)
    assert np.array_equal(out, getattr(Image(data, form, "bt709", True), to)())


@pytest.mark.parametrize("form", ["i420", "bgr", "rgb", "gray"])
def test_write_fills_a_part_of_a_larger_array(form: ImageFormat) -> None:
    image = Image(pixels(form), form)
    large = np.zeros((HEIGHT + 4, WIDTH + 4, 3), np.uint8)
    image.write("bgr", large[2:-2, 2:-2])
    assert np.array_equal(large[2:-2, 2:-2], image.bgr())
    assert not large[:2].any()
    assert not large[:, -2:].any()


@pytest.mark.parametrize("form", ["i420", "bgr", "rgb", "gray"])
def test_write_fills_a_mirrored_array(form: ImageFormat) -> None:
    image = Image(pixels(form), form)
    out = np.zeros(SHAPES["bgr"], np.uint8)
    image.write("bgr", out[::-1, ::-1])
    assert np.array_equal(out[::-1, ::-1], image.bgr())


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((HEIGHT, WIDTH), np.uint8),
        np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8),
        np.zeros((HEIGHT, WIDTH, 3), np.float32),
        np.zeros((HEIGHT, WIDTH, 4), np.uint8),
    ],
    ids=["plane", "size", "dtype", "channels"],
)
@pytest.mark.parametrize("form", ["i420", "rgb", "bgr"])
def test_write_refuses_an_array_that_does_not_fit(form: ImageFormat, out: Any) -> None:
    with pytest.raises(ValueError, match="cannot write bgr"):
        Image(pixels(form), form).write("bgr", out)


def test_write_refuses_a_read_only_array() -> None:
    with pytest.raises(ValueError, match="writeable False"):
        Image(pixels("rgb"), "rgb").write("bgr", pixels("bgr"))


def test_conversions_are_done_once_and_identity_is_free() -> None:
    image = Image(pixels("i420"), "i420")
    assert image.bgr() is image.bgr()
    assert np.shares_memory(image.gray(), image.data)
    data = pixels("rgb")
    assert Image(data, "rgb").rgb() is data
    assert np.array_equal(Image(data, "rgb").bgr(), data[:, :, ::-1])


def test_size() -> None:
    for form in ("i420", "bgr", "rgb", "gray"):
        image = Image(pixels(form), form)
        assert (image.width, image.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("shape", "dtype", "form"),
    [
        ((48, 64), np.uint8, "bgr"),
        ((48, 64, 4), np.uint8, "rgb"),
        ((48, 64, 3), np.uint8, "gray"),
        ((71, 64), np.uint8, "i420"),
        ((72, 63), np.uint8, "i420"),
        ((48, 64, 3), np.float32, "bgr"),
        ((48, 64, 3), np.uint8, "yuyv"),
    ],
)
def test_shape_and_format_must_agree(shape: tuple[int, ...], dtype: Any, form: Any) -> None:
    with pytest.raises(ValueError):
        Image(np.zeros(shape, dtype), form)


def test_an_unknown_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match="bt2020"):
        Image(pixels("i420"), "i420", "bt2020")  # type: ignore[arg-type]
