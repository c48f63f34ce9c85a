"""A model's files that change under the stage: it goes on with what it read, and says so once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ovpipe.frame import Frame
from ovpipe.image import Image
from ovpipe.stages.infer import Infer, watch
from ovpipe.stages.infer.watch import EVERY_NS, Watch, see
from ovpipe.testing import push
from tests.support import models


class Clock:
    """Time as the test says."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def grow(file: Path) -> None:
    with file.open("ab") as f:
        f.write(b" ")


def replace(file: Path) -> None:
    other = file.with_suffix(".new")
    other.write_bytes(file.read_bytes())
    os.replace(other, file)


def touch(file: Path) -> None:
    os.utime(file, ns=(1, 1))


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "grow": (grow, "has changed"),
    "truncate": (lambda file: os.truncate(file, 0), "has changed"),
    "replace": (replace, "has changed"),
    "touch": (touch, "has changed"),
    "unlink": (Path.unlink, "has gone"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("suffix", [".xml", ".bin"])
def test_each_change_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: str, suffix: str
) -> None:
    model = models.ssd(tmp_path, [(0, 1, 0.4, 0.25, 0.25, 0.75, 0.75)])
    clock = Clock()
    watch = Watch(see(model), "find", clock)
    act, says = CHANGES[change]
    act(model.with_suffix(suffix))
    clock.now = EVERY_NS - 1
    watch.look()
    assert not caplog.records  # it is not time yet
    for _ in range(3):
        clock.now += EVERY_NS
        watch.look()
    (said,) = (r.getMessage() for r in caplog.records)
    assert said.startswith(f"find: the model's file '{model.with_suffix(suffix)}' {says}")
    assert "restart" in said


def test_files_that_stay_are_not_spoken_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = models.ssd(tmp_path, [(0, 1, 0.4, 0.25, 0.25, 0.75, 0.75)])
    clock = Clock()
    watch = Watch(see(model), "find", clock)
    for _ in range(3):
        clock.now += EVERY_NS
        watch.look()
    assert not caplog.records


def test_E02_the_stage_goes_on_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "EVERY_NS", 0)
    model = models.echo(tmp_path)
    stage = Infer(model=str(model), cache="off")
    stage.open()
    frame = Frame(image=Image(np.full((models.SIZE, models.SIZE, 3), 7, np.uint8)))
    for change in (lambda: None, lambda: os.truncate(model.with_suffix(".bin"), 0), model.unlink):
        change()
        out = next(push(stage, [frame]))
        assert isinstance(out, Frame)
        assert (out.arrays["pixels"] == 7).all()
    stage.close()
    assert [("gone" in m.getMessage()) for m in caplog.records] == [False, True]
