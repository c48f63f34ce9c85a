"""F03: a path that there cannot be is one line before the first frame, whichever stage has it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ovpipe.errors import PreflightError
from ovpipe.stages import registry
from ovpipe.stages.base import LocalContext
from ovpipe.stages.paths import in_folder
from ovpipe.stages.sqlite import Sqlite

PATHS = {
    "too-long": ("x" * 300, "File name too long"),
    "too-long-in-all": ("/".join(["x" * 200] * 30), "File name too long"),
    "NUL": ("a\0b", "a NUL byte is in it"),
    "no-such-home": ("~nobody-of-that-name/x", "home directory"),
    "loop-of-links": ("loop/x", "Too many levels of symbolic links"),
}
STAGES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("jsonl", "path", ".jsonl", {}),
    ("csv", "path", "/{stream}.csv", {}),
    ("images", "path", "{seq}.png", {}),
    ("sqlite", "path", ".db", {}),
    ("video-writer", "path", ".mp4", {}),
    ("video-writer", "path", "/{n}.mkv", {"segment": 1.0}),
    ("video-writer", "path", ".m3u8", {}),
    ("webhook", "spool", "", {"url": "http://127.0.0.1:1/"}),
    ("video", "url", ".mp4", {}),
    ("infer", "model", ".xml", {}),
]


@pytest.mark.parametrize(("kind", "option", "suffix", "more"), STAGES)
@pytest.mark.parametrize("name", PATHS)
def test_F03_a_path_that_cannot_be(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    kind: str,
    option: str,
    suffix: str,
    more: dict[str, Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    path, says = PATHS[name]
    value = {"path": path + suffix} if option == "spool" else path + suffix
    found = registry.stage_class(kind)
    for module in found.requires:
        pytest.importorskip(module)
    if kind == "infer":
        pytest.importorskip("openvino")
    stage = found(**more, **{option: value})
    stage.bind(LocalContext("out"))
    with pytest.raises(PreflightError, match=says) as caught:
        stage.open()
    stage.close()
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.rglob("*")] == ["loop"]


def test_F03_a_database_is_a_file_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stage = Sqlite(path=":memory:")
    stage.open()
    stage.close()
    assert Path(":memory:").read_bytes().startswith(b"SQLite format 3")


def test_a_folder_that_is_being_deleted_is_made_until_it_stays(tmp_path: Path) -> None:
    """`rm -rf` takes the folder between its making and the file's."""
    path = tmp_path / "a" / "b" / "file"
    left = [3]

    def make() -> str:
        left[0] -= 1
        if left[0]:
            shutil.rmtree(tmp_path / "a")
        path.touch(exist_ok=False)
        return "made"

    assert in_folder(path, make) == "made"
    assert left == [0]


@pytest.mark.parametrize("link", ["file", "folder"])
def test_what_only_seems_to_be_deleted_is_an_error(tmp_path: Path, link: str) -> None:
    path = tmp_path / "folder" / "file"
    if link == "file":
        path.parent.mkdir()
        path.symlink_to("no/such/file")
    else:
        path.parent.symlink_to("no/such/folder")
    with pytest.raises(OSError, match=r"No such file|File exists"):
        in_folder(path, path.touch)
