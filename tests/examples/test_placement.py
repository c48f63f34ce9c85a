"""docs/placement.md: its pipeline does what the text says, and is refused in these words."""

import json
import re
import subprocess
import sys
from pathlib import Path

import yaml

TEXT = Path("docs/placement.md").read_text()
SNIPPETS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.S)


def snippet(language):
    (body,) = [body for name, body in SNIPPETS if name == language]
    return body


def ovpipe(folder, config):
    (folder / "c.yaml").write_text(config)
    return subprocess.run(
        [sys.executable, "-m", "ovpipe", "run", "c.yaml", "--json"],
        cwd=folder, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_the_pipeline_of_the_text(tmp_path):
    ended = ovpipe(tmp_path, snippet("yaml"))
    assert ended.returncode == 0, ended.stderr
    assert all(row["delivered"] == 100 for row in json.loads(ended.stdout)["ledger"])
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 100
    assert len(list((tmp_path / "shots").iterdir())) == 100


def test_the_refusal_is_worded_as_the_text_has_it(tmp_path):
    stages = yaml.safe_load(snippet("yaml"))["stages"]
    cam = {"kind": "synthetic", "for_each": {"a": None, "b": None}}
    stages = {"cam": cam, "lines": {**stages["lines"], "inputs": "cam"}}
    ended = ovpipe(tmp_path, yaml.safe_dump({"version": 1, "stages": stages}, sort_keys=False))
    assert ended.returncode == 2
    message = snippet("text").strip().partition("stages.lines: ")[2]
    assert message in ended.stderr
