"""docs/sources.md: what the text says of its configurations, and a sender that is understood."""

import re
import threading
from pathlib import Path

import zmq

from ovpipe.graph import resolve
from ovpipe.loader import loads
from ovpipe.stages.video import Video
from ovpipe.stages.zmq_wire import decode

TEXT = Path("docs/sources.md").read_text()
CONFIGS = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)


def test_forty_cameras():
    body = next(body for body in CONFIGS if "{01..40}" in body)
    assert len(body.splitlines()) == 10
    assert len(resolve(loads(body, folder=Path(), environ={})).streams) == 40


def test_the_table_of_ages_is_what_the_graph_does():
    paced = next(body for body in CONFIGS if "pace: true, loop: true" in body)
    (edge,) = resolve(loads(f"version: 1\n{paced}", folder=Path(), environ={})).edges
    assert (edge.when_full, edge.max_age_s, edge.live) == ("drop_oldest", 1.0, True)


def test_options_that_the_text_names_are_there():
    table = TEXT.partition("| option | meaning |")[2].partition("\n\n")[0]
    named = {
        n for line in table.splitlines()[2:] for n in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert named
    assert named <= {name for name in Video.__dataclass_fields__ if not name.startswith("_")}


def test_the_sender_is_understood():
    (body,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    context = zmq.Context()
    try:
        pull = context.socket(zmq.PULL)
        pull.linger = 0
        port = pull.bind_to_random_port("tcp://127.0.0.1")
        body = body.replace("5555", str(port))
        sender = threading.Thread(target=exec, args=(compile(body, "docs", "exec"), {}))
        sender.start()
        assert pull.poll(20_000)
        packet = decode(pull.recv_multipart())
        sender.join()
        assert (packet.stream, packet.image.width, packet.image.height) == ("hall", 640, 480)
    finally:
        context.destroy(linger=0)
