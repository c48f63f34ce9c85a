"""What was found, as messages to an MQTT broker: `python mqtt_events.py mqtt://localhost:1883`.

A message leaves the file events.spool when the broker has confirmed it: it may be stopped and
started meanwhile, and so may this program. Without a stage of your own that finds things, each
tenth frame has a "spot".
"""

import sys
from pathlib import Path

import ovpipe


class Spots(ovpipe.Transform):
    """Finds a spot in each tenth frame."""

    def process(self, frame: ovpipe.Frame) -> ovpipe.Frame:
        if frame.seq % 10:
            return frame
        spot = ovpipe.Detections.of([[8, 8, 24, 24]], [0.9], [0], {0: "spot"})
        return frame.with_(detections=spot)


def main(url: str) -> None:
    pipeline = ovpipe.Pipeline("events", folder=Path(__file__).parent)
    pipeline.add("cam", "synthetic", {"size": "64x48", "fps": 50, "count": 100})
    pipeline.add("detect", "mqtt_events:Spots")
    events = {
        "url": url,
        "topic": "site/{stream}/spots",
        "found": True,
        "spool": {"path": "events.spool"},
    }
    pipeline.add("events", "mqtt", events)
    with pipeline:
        pipeline.run()
    print("what the broker does not have yet waits in events.spool")


if __name__ == "__main__":
    main(*sys.argv[1:])
