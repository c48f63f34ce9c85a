"""docs/sinks.md: the document in it is what is sent, and its signature is found genuine."""

import json
import re
from pathlib import Path

import numpy as np

from ovpipe.detections import Detections
from ovpipe.frame import Frame, Image
from ovpipe.stages.base import LocalContext
from ovpipe.stages.webhook import Webhook

TEXT = Path("docs/sinks.md").read_text()
SNIPPETS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.S)


def snippets(language):
    return [body for name, body in SNIPPETS if name == language]


def test_the_message():
    (body,) = snippets("json")
    shown = json.loads(body)
    found = Detections.of([[10, 20, 50, 120]], [0.91], [1], {1: "person"})
    image = Image(np.zeros((360, 640, 3), np.uint8))
    stage = Webhook(url="http://x/")
    context = LocalContext("events")
    context.run = "5f0c9e0c8f1b2a3d"
    stage.bind(context)
    sent = json.loads(
        stage.message(
            Frame(
                image=image,
                stream="cam",
                seq=7,
                pts_ns=280_000_000,
                captured_ns=1,
                detections=found,
            )
        ).body
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", sent["time"])
    assert {**sent, "time": shown["time"]} == shown
    assert list(sent) == list(shown)


def test_a_signature_is_found_genuine():
    (body,) = snippets("python")
    names = {}
    exec(compile(body, "docs/sinks.md", "exec"), names)
    # Of RFC 4231, test case 2.
    digest = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    words = b"what do ya want for nothing?"
    assert names["genuine"](words, f"sha256={digest}", b"Jefe")
    assert not names["genuine"](words + b"!", f"sha256={digest}", b"Jefe")
