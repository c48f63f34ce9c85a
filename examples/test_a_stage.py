"""Testing a stage of your own: alone, and in a whole pipeline. Run it with pytest.

In a project of your own, `pytest_plugins` stands in conftest.py.
"""

from collections.abc import Iterator

import pytest

import ovpipe
from ovpipe.testing import Script, run_stage

pytest_plugins = ["ovpipe.testing.plugin"]


def bright(frame: ovpipe.Frame, limit: int = 100) -> ovpipe.Frame | None:
    """The stage: frames brighter than `limit`."""
    if frame.image is None:
        raise ovpipe.FrameError("no picture", "malformed")
    return frame if frame.image.data.mean() > limit else None


class Bright(ovpipe.Transform):
    """The same as a class, to be made with options in a test."""

    limit: int = 100

    def process(self, frame: ovpipe.Frame) -> ovpipe.Frame | None:
        return bright(frame, self.limit)


def test_alone() -> None:
    dark_and_light = [{"frame": 2, "value": 50}, {"frame": 2, "value": 150}, "nan"]
    frames = run_stage(Script(items=dark_and_light)).outputs
    result = run_stage(Bright(limit=100), frames)
    assert [frame.seq for frame in result.outputs] == [2, 3]
    assert result.failed == {"malformed": 1}


@pytest.fixture
def pipeline(leak_check: object) -> Iterator[ovpipe.Pipeline]:
    with ovpipe.Pipeline("test", folder=__file__.rpartition("/")[0]) as pipeline:
        yield pipeline


def test_in_a_pipeline(pipeline: ovpipe.Pipeline) -> None:
    script = {"items": [{"frame": 20, "value": 150}, {"frame": 5, "value": 50}]}
    pipeline.add("cam", "ovpipe.testing:Script", script).add("bright", "test_a_stage:bright")
    assert sum(1 for _ in pipeline.read("bright")) == 20
    pipeline.wait()
    assert [row["delivered"] for row in pipeline.ledger] == [25, 20]


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__, "-q"]))
