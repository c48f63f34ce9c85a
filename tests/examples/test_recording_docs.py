"""docs/recording.md: its first recorder, its Python, and the fields that it names."""

import re
from pathlib import Path

import pytest

from ovpipe.loader import loads
from ovpipe.testing import run_stage

TEXT = Path("docs/recording.md").read_text()
SNIPPETS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.S)
YAML = [body for language, body in SNIPPETS if language == "yaml"]
SECRETS = {"RTSP_PASSWORD": "hunter2", "PUSH_PASSWORD": "hunter2"}


def test_the_recorder_keeps_what_it_says():
    spec = loads(f"version: 1\n{YAML[0]}", environ=SECRETS, folder=Path("."))
    assert spec.stages[-1].options["keep"] == {
        "age": 604800.0,
        "size": 5 * 10**11,
        "free": 2 * 10**10,
    }


def test_python(tmp_path, capsys):
    pytest.importorskip("av")
    from ovpipe.stages.video import Video
    from tests.support.clips import clip

    (body,) = (body for language, body in SNIPPETS if language == "python")
    stage = Video(url=str(clip(tmp_path / "a.mp4", 10)), packets=True, keyframes=True)
    (frame,) = run_stage(stage).outputs
    exec(compile(body, "docs/recording.md", "exec"), {"frame": frame})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("0 True 0 ")


def test_all_fields_are_told():
    from ovpipe.stages.naming import FIELDS

    assert all(f"| `{{{field}}}` |" in TEXT for field in FIELDS)
