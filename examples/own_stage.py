"""A stage of one's own, and a pipeline around it, built in Python."""

from pathlib import Path
from typing import Annotated

import numpy as np

import ovpipe


class Brightness(ovpipe.Transform):
    """Adds the mean luma of each frame, and passes on those that are bright enough."""

    at_least: Annotated[float, "mean luma, 0 to 255"] = 0.0

    def process(self, frame: ovpipe.Frame) -> ovpipe.Frame | None:
        mean = float(np.mean(frame.image.gray()))
        return frame.with_(meta={"brightness": mean}) if mean >= self.at_least else None


def main() -> None:
    pipeline = ovpipe.Pipeline("brightness", folder=Path(__file__).parent)
    pipeline.add("noise", "synthetic", {"size": "64x48", "count": 5, "format": "gray"})
    pipeline.add("bright", "own_stage:Brightness", {"at_least": 1.0})
    with pipeline:
        for frame in pipeline.read("bright"):
            print(f"{frame.seq}: {frame.meta['brightness']:.1f}")


if __name__ == "__main__":
    main()
