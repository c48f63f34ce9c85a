"""The checked-in schema is the generated one, and says of configurations what the loader says."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from ovpipe.loader import load
from ovpipe.loader.schema import schema

CONFIGS = Path("configs")


def test_the_checked_in_schema_is_current():
    current = json.loads((CONFIGS / "schema.json").read_text())
    assert current == schema(), "run: ovpipe schema > configs/schema.json"
    jsonschema.Draft202012Validator.check_schema(current)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_config_loads_and_suits_the_schema(path):
    assert load(path, {}).stages
    jsonschema.validate(yaml.safe_load(path.read_text()), schema())


@pytest.mark.parametrize(
    ("stage", "good"),
    [
        ({"kind": "synthetic", "count": 3}, True),
        ({"kind": "synthetic", "count": "${N}"}, True),
        ({"kind": "synthetic", "count": "many"}, False),
        ({"kind": "synthetic", "cuont": 3}, False),
        ({"kind": "synthetik"}, False),
        ({"kind": "mine:Stage", "anything": 1}, True),
        ({"kind": "jsonl", "path": "-", "inputs": {"from": "a", "when_full": "block"}}, True),
        ({"kind": "jsonl", "path": "-", "inputs": {"from": "a", "when_full": "drop"}}, False),
        ({"kind": "jsonl", "path": "-", "inputs": ["a", {"from": "b", "depth": 2}]}, True),
        ({"count": 1}, False),
    ],
)
def test_the_schema_tells_good_from_bad(stage, good):
    document = {"version": 1, "stages": {"x": stage}}
    errors = list(jsonschema.Draft202012Validator(schema()).iter_errors(document))
    assert (not errors) == good, errors
