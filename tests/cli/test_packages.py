"""Entry points: kinds and decoders of installed packages, whole ones and broken ones."""

import json
import os
import sys

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner

from ovpipe.cli import group
from ovpipe.errors import ConfigError, PreflightError
from ovpipe.loader import loads
from ovpipe.stages import plugins
from ovpipe.stages.infer import choose, custom
from ovpipe.stages.infer.facts import ModelFacts
from tests.cli.test_commands import ovpipe
from tests.support.packages import package

__all__ = ["ovpipe"]
CROWD = '''
from typing import Annotated
import ovpipe

class Crowd(ovpipe.Transform):
    """Marks frames with many persons."""
    limit: Annotated[int, "persons that make a crowd"] = 10
    def process(self, frame):
        return frame.with_(meta={"crowd": True})

def decode(outputs, info):
    return {"first": outputs["x"]}
'''
CONFIG = "version: 1\nstages:\n  a: {kind: synthetic, count: 3}\n  b: {kind: crowd, limit: 3}\n  c: {kind: jsonl, path: '-'}\n"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder that is on the path of this process and its children."""
    folder = tmp_path / "site"
    folder.mkdir()
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    )
    plugins.plugins.cache_clear()
    yield folder
    plugins.plugins.cache_clear()
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def crowd(site):
    points = {
        plugins.STAGES: {"crowd": "crowd_package:Crowd"},
        plugins.DECODERS: {"first": "crowd_package:decode"},
    }
    package(site, "crowd-package", "1.2", {"crowd_package": CROWD}, points)


def call(*arguments, **options):
    return CliRunner().invoke(group, arguments, **options)


def problem(text, folder):
    with pytest.raises(ConfigError) as error:
        loads(text, folder=folder, environ={}, file="c.yaml")
    (only,) = error.value.problems
    return str(only)


def test_a_kind_of_a_package_runs_like_any_other(crowd, ovpipe):
    ended = ovpipe("run", "c.yaml", config=CONFIG)
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) == 3


def test_it_is_listed_described_and_in_the_schema(crowd, tmp_path):
    listed = call("stages")
    assert "crowd         Marks frames with many persons. [crowd-package 1.2]" in listed.stdout
    shown = call("stages", "crowd").stdout
    assert shown.startswith("crowd [crowd-package 1.2]: Marks frames with many persons.")
    assert "limit   integer  10       persons that make a crowd" in shown
    assert json.loads(call("stages", "crowd", "--json").stdout)["package"] == "crowd-package 1.2"
    (tmp_path / "c.yaml").write_text(CONFIG)
    schema = json.loads(call("schema", str(tmp_path / "c.yaml")).stdout)
    config = {"version": 1, "stages": {"b": {"kind": "crowd", "limit": 3}}}
    jsonschema.validate(config, schema)
    config["stages"]["b"]["limit"] = "many"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config, schema)
    assert "crowd" not in call("schema").stdout  # what is checked in depends on no machine


def test_its_options_are_checked(crowd, tmp_path):
    assert "c.yaml:4:20: stages.b.limti: unknown key (did you mean 'limit'?)" in problem(
        CONFIG.replace("limit", "limti"), tmp_path
    )
    assert "did you mean 'crowd'?" in problem(CONFIG.replace("kind: crowd", "kind: crow"), tmp_path)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import not_there_at_all", "cannot import 'sick': No module named 'not_there_at_all'"),
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("import os; os._exit(3)", "cannot be looked at: exit code 3"),
        ("Other = 1", "module 'sick' has no 'Stage'"),
        ("Stage = 1", "is neither a Producer, Transform or Consumer nor a function"),
    ],
)
def test_a_broken_package_is_one_error_that_names_it(site, tmp_path, source, says):
    package(
        site, "sick-package", "0.1", {"sick": source}, {plugins.STAGES: {"crowd": "sick:Stage"}}
    )
    said = problem(CONFIG, tmp_path)
    assert said.startswith(
        "c.yaml:4:13: stages.b.kind: kind 'crowd' of the package 'sick-package 0.1'"
    )
    assert says in said
    listed = call("stages")  # which goes on
    assert listed.exit_code == 0
    assert says in listed.stdout
    assert "synthetic" in listed.stdout


def test_two_packages_with_one_kind_are_not_guessed_between(crowd, site, tmp_path):
    package(site, "other", "3", {"other": CROWD}, {plugins.STAGES: {"crowd": "other:Crowd"}})
    plugins.plugins.cache_clear()
    said = problem(CONFIG, tmp_path)
    assert "'crowd-package 1.2', 'other 3'; name the one you mean: 'crowd_package:Crowd'" in said


def test_a_name_of_ours_is_not_taken_over_in_silence(site):
    package(site, "taker", "1", {"taker": CROWD}, {plugins.STAGES: {"synthetic": "taker:Crowd"}})
    ended = call(
        "validate", "-", input="version: 1\nstages:\n  a: {kind: synthetic}\n  b: {kind: log}\n"
    )
    assert ended.exit_code == 0
    warning = "warning: the package 'taker 1' has a kind 'synthetic', which is ovpipe's own"
    assert warning in ended.stderr
    assert warning in call("stages").stderr
    quiet = call(
        "validate",
        "-",
        input="version: 1\nstages:\n  a: {kind: pipe, size: 8x8, command: [x]}\n  b: {kind: log}\n",
    )
    assert quiet.stderr == ""


def test_metadata_that_cannot_be_read_hides_no_other(crowd, site):
    (site / "bad-1.dist-info").mkdir()
    (site / "bad-1.dist-info" / "METADATA").write_bytes(b"\xff\xfe\0")
    (site / "worse-1.dist-info").mkdir()
    (site / "worse-1.dist-info" / "entry_points.txt").write_text("[ovpipe.stages\n= = =\n")
    plugins.plugins.cache_clear()
    assert [p.name for p in plugins.plugins(plugins.STAGES)] == ["crowd"]


def test_a_decoder_of_a_package(crowd, site):
    facts = ModelFacts(outputs=())
    assert choose.kind_of("first", facts, {}) == "first"
    decoder = choose.make("first", facts, choose.Keep(), None, "detect")
    x = np.ones(3)
    assert decoder({"x": x}, None) == {"first": x}
    with pytest.raises(PreflightError, match="did you mean 'first'"):
        choose.kind_of("frist", facts, {})
    package(site, "sick", "2", {"sick": ""}, {plugins.DECODERS: {"gone": "sick:no"}})
    plugins.plugins.cache_clear()
    with pytest.raises(
        PreflightError, match="decode 'gone' of the package 'sick 2': module 'sick'"
    ):
        custom.find("gone")
    assert "first [crowd-package 1.2]" in call("stages", "infer").stdout


def test_a_decoder_of_ours_is_not_taken_over_in_silence(site, caplog):
    package(site, "taker", "1", {"taker": CROWD}, {plugins.DECODERS: {"raw": "taker:decode"}})
    assert choose.kind_of("raw", ModelFacts(outputs=()), {}) == "raw"
    assert "the package 'taker 1' has a decoder 'raw'" in caplog.text
