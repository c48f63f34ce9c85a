"""tune: the real thing, for a moment."""

import json

from ovpipe.loader import load
from tests.cli.test_commands import ovpipe
from tests.support.models import echo

__all__ = ["ovpipe"]


def test_it_measures_within_its_budget_and_leaves_the_file_alone(ovpipe, tmp_path):
    config = (
        "version: 1\nname: yard\nstages:\n  cam: {kind: synthetic, size: 32x32}\n"
        f"  detect: {{kind: infer, model: {echo(tmp_path)}, jobs: 1, hint: latency}}\n  out: {{kind: jsonl, path: out.jsonl}}\n"
    )
    short = ("--seconds", "400ms", "--warm", "100ms", "--rounds", "2", "--budget", "12s")
    ended = ovpipe("tune", "c.yaml", *short, "--json", config=config)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["tries"][0]["setting"] == {}
    assert told["tries"][0]["score"] > 0
    assert all(t["score"] is None or t["score"] > 0 for t in told["tries"])
    assert (tmp_path / "c.yaml").read_text() == config
    assert not (tmp_path / "out.jsonl").exists()
    assert (told["written"] is not None) == told["better"] == (tmp_path / "c.tuned.yaml").exists()
    if told["better"]:
        tuned = next(
            s.options for s in load(tmp_path / "c.tuned.yaml", {}).stages if s.kind == "infer"
        )
        for path, value in told["best"].items():
            if path.count(".") == 2:
                assert tuned[path.rpartition(".")[2]] == value
