"""A foreign process on both sides of a pipeline: pyzmq, msgpack and numpy, nothing of ovpipe.

    python examples/zmq_peer.py IN OUT [FRAMES]

Pushes frames to the address IN, where a `zmq-in` listens, and takes what a `zmq-out` sends to the
address OUT. The protocol: docs/sources.md.
"""

import sys

import msgpack
import numpy as np
import zmq

IN, OUT, FRAMES = sys.argv[1], sys.argv[2], int(sys.argv[3] if len(sys.argv) > 3 else 10)
context = zmq.Context()
push, pull = context.socket(zmq.PUSH), context.socket(zmq.PULL)
push.connect(IN)
pull.bind(OUT)
for seq in range(FRAMES):
    picture = np.full((48, 64, 3), seq, np.uint8)
    image = {"format": "bgr", "shape": picture.shape}
    header = {"kind": "frame", "seq": seq, "pts_ns": seq * 40_000_000, "image": image}
    push.send_multipart([b"ovpipe1/hall", msgpack.packb(header), picture])
push.send_multipart([b"ovpipe1/hall", msgpack.packb({"kind": "end"})])
while pull.poll(30_000):
    topic, packed, *buffers = pull.recv_multipart()
    header = msgpack.unpackb(packed)
    if header["kind"] == "end":
        break
    picture = np.frombuffer(buffers[0], np.uint8).reshape(header["image"]["shape"])
    print(topic.decode(), header["seq"], picture.shape, int(picture[0, 0, 0]))
context.destroy(linger=1000)
