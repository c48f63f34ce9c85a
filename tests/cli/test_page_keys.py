"""`http:` on the command line: `config` masks its token, and gives what can be run again."""

import json

import pytest
from click.testing import CliRunner

from ovpipe.cli import group

YAML = """\
version: 1
name: yard
http: {listen: '[::1]:8080', token: "${PAGE_KEY}", hosts: [cam.example]}
stages:
  a: {kind: synthetic}
  b: {kind: log}
"""
SECRET = "hunter2-hunter2-hunter2"


@pytest.mark.parametrize("written", ["${PAGE_KEY}", SECRET])
def test_config_shows_the_page_without_its_token(written, tmp_path):
    (tmp_path / "c.yaml").write_text(YAML.replace("${PAGE_KEY}", written))
    command = ["config", str(tmp_path / "c.yaml"), "--json"]
    ended = CliRunner().invoke(group, command, env={"PAGE_KEY": SECRET}, catch_exceptions=False)
    assert SECRET not in ended.output
    shown = "${PAGE_KEY}" if "$" in written else "***"
    told = json.loads(ended.stdout)
    assert told["http"] == {"listen": "[::1]:8080", "token": shown, "hosts": ["cam.example"]}
    if "$" in written:
        (tmp_path / "again.yaml").write_text(json.dumps(told))
        command[1] = str(tmp_path / "again.yaml")
        again = CliRunner().invoke(group, command, env={"PAGE_KEY": SECRET})
        assert json.loads(again.stdout) == told
