"""An application makes the frames, and reads what becomes of them: `python push_and_read.py`."""

import threading

import numpy as np

import ovpipe


def brightness(frame: ovpipe.Frame) -> ovpipe.Frame:
    """A stage of our own: how bright a picture is."""
    assert frame.image is not None
    return frame.with_(meta={"brightness": float(frame.image.gray().mean())})


def push(pipeline: ovpipe.Pipeline) -> None:
    for i in range(5):
        pipeline.push("in", np.full((480, 640), 10 * i, np.uint8))  # waits while there is no room
    pixels = pipeline.loan("in", (480, 640), np.uint8)
    pixels[:] = 200  # written where the others will read it
    pipeline.push("in", pixels)  # and so not copied
    pipeline.end("in")


def main() -> None:
    pipeline = ovpipe.Pipeline("brightness", folder=__file__.rpartition("/")[0])
    pipeline.add("in", "app")
    pipeline.add("bright", "push_and_read:brightness")
    with pipeline:
        reader = pipeline.read("bright")
        thread = threading.Thread(target=push, args=(pipeline,))  # push waits for whoever reads
        thread.start()
        for frame in reader:
            print(frame.seq, frame.meta["brightness"])
        thread.join()


if __name__ == "__main__":
    main()
