"""`ovpipe devices`: what models can run on here."""

from __future__ import annotations

import json
import sys

import click

from ovpipe.cli.examples import examples
from ovpipe.cli.status import say
from ovpipe.stages.infer.devices import devices as find


@click.command(
    epilog=examples(
        ("ovpipe devices", "for people"),
        ("ovpipe devices --json | jq keys", "the names that `device:` takes"),
        ("ovpipe doctor", "why one is not there"),
    )
)
@click.option("--json", "json_", is_flag=True, help="As one JSON object.")
def devices(json_: bool) -> None:
    """List the devices that models can run on here, each with the properties that matter.

    Its name is what `device:` of an infer stage takes; AUTO and HETERO:GPU,CPU combine them.
    """
    found = find()
    if json_:
        say(sys.stdout, json.dumps(found))
        return
    for name, properties in found.items():
        say(sys.stdout, f"{name}: {properties.pop('FULL_DEVICE_NAME', 'no name')}")
        for key, value in properties.items():
            text = ", ".join(map(str, value)) if isinstance(value, list) else value
            say(sys.stdout, f"  {key.lower():32} {text}")
    if not {name.partition(".")[0] for name in found} & {"GPU", "NPU"}:
        say(sys.stderr, "no GPU or NPU: if there is one, its driver is missing or not permitted")
