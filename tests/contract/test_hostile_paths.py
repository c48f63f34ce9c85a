"""F03: a path that there cannot be is one line before the first frame, whichever stage has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ovpipe.errors import PreflightError
from ovpipe.stages import registry
from ovpipe.stages.base import LocalContext
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
