"""One answer for each picture, as a future: `python submit.py`."""

import numpy as np

import ovpipe


def even(frame: ovpipe.Frame) -> ovpipe.Frame:
    """A stage that fails on every second frame."""
    if frame.seq % 2:
        raise ovpipe.FrameError("odd")
    return frame


def main() -> None:
    pipeline = ovpipe.Pipeline("answers", folder=__file__.rpartition("/")[0])
    pipeline.add("in", "app").add("even", "submit:even")
    with pipeline:
        for i in range(4):
            future = pipeline.submit("in", np.full((48, 64, 3), i, np.uint8), result="even")
            try:
                print(i, "mean", future.result().image.bgr().mean())
            except ovpipe.FrameError as error:
                print(i, error.reason)


if __name__ == "__main__":
    main()
