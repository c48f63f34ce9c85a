"""A small RTSP server for tests: a clip of known frames, for ever, as cameras send it.

    python -m tests.support.rtsp PORT [--user NAME --password WORD] [--fps N] [--log FILE]

What it does is chosen by the first part of the path:

    /live/any       frames for ever
    /short/any      ten frames, then the end of the connection
    /silent/any     ten frames, then nothing more
    /odd/any        a size that changes in mid-stream
    /jump/any       timestamps that jump back, repeat and overflow

H.264 over RTP, in the RTSP connection (tcp) or over UDP. Digest authentication. One line per
request goes to the log: method and path.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import itertools
import re
import socket
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import av

from tests.support.clips import clip
from tests.support.processes import wait_for

_MTU = 1200
_CLOCK = 90_000
_START = re.compile(rb"\x00\x00\x00?\x01")
SIZES = [(64, 48), (128, 96), (64, 48)]
FRAMES = 40


def nals(path: Path) -> list[list[bytes]]:
    """The NAL units of each picture of a raw H.264 file, parameter sets with the key frames."""
    with av.open(str(path)) as container:
        packets = [bytes(p) for p in container.demux(video=0) if p.size]
    return [[unit for unit in _START.split(data) if unit] for data in packets]


def rtp(units: list[bytes], seq: int, stamp: int) -> list[bytes]:
    """RTP packets of one picture (RFC 6184: single units and FU-A)."""
    bodies = []
    for unit in units:
        if len(unit) <= _MTU:
            bodies.append(unit)
            continue
        head, rest = unit[0], unit[1:]
        pieces = [rest[i : i + _MTU] for i in range(0, len(rest), _MTU)]
        for i, piece in enumerate(pieces):
            edge = 0x80 * (i == 0) | 0x40 * (i == len(pieces) - 1)
            bodies.append(bytes([head & 0xE0 | 28, edge | head & 0x1F]) + piece)
    last = len(bodies) - 1
    return [
        struct.pack(
            ">BBHII", 0x80, 96 | 0x80 * (i == last), (seq + i) % 2**16, stamp % 2**32, 0x1234
        )
        + body
        for i, body in enumerate(bodies)
    ]


class Handler(socketserver.StreamRequestHandler):
    """One RTSP connection."""

    server: Server
    disable_nagle_algorithm = True

    def handle(self) -> None:
        """Answer requests until the peer goes."""
        self.lock, self.over = threading.Lock(), threading.Event()
        self.where = None
        try:
            while line := self.rfile.readline():
                if line[:1] == b"$":
                    rest = line if len(line) >= 4 else line + self.rfile.read(4 - len(line))
                    need = struct.unpack(">H", rest[2:4])[0] - len(rest[4:])
                    self.rfile.read(max(0, need))
                    continue
                if line.strip():
                    self.answer(*line.decode().split()[:2])
        except (OSError, ValueError):
            pass
        finally:
            self.over.set()

    def answer(self, method: str, url: str) -> None:
        headers = {}
        while (line := self.rfile.readline().decode().strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        path = re.sub(r"^rtsp://[^/]*", "", url).removesuffix("/track").rstrip("/")
        self.server.note(f"{method} {path}")
        more, body = "", ""
        if method == "OPTIONS":
            more = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER\r\n"
        elif not self.server.allows(method, headers.get("authorization", "")):
            return self.reply(
                "401 Unauthorized",
                headers,
                'WWW-Authenticate: Digest realm="test", nonce="0123456789"\r\n',
            )
        elif method == "DESCRIBE":
            units = self.server.pictures(path)[0]
            sets = ",".join(base64.b64encode(u).decode() for u in units if u[0] & 31 in (7, 8))
            body = (
                "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
                "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
                f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}\r\n"
                "a=control:track\r\n"
            )
            more = f"Content-Base: {url}/\r\nContent-Type: application/sdp\r\n"
        elif method == "SETUP":
            asked = headers["transport"]
            ports = re.search(r"client_port=(\d+)", asked)
            if ports:
                self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                self.udp.bind(("127.0.0.1", 0))
                self.where = ("127.0.0.1", int(ports[1]))
                mine = self.udp.getsockname()[1]
                asked += f";server_port={mine}-{mine + 1}"
            more = f"Transport: {asked}\r\nSession: 1;timeout=60\r\n"
        elif method == "PLAY":
            more = "Session: 1\r\n"
        self.reply("200 OK", headers, more, body)
        if method == "PLAY":
            threading.Thread(target=self.play, args=(path,), daemon=True).start()
        return None

    def reply(self, status: str, headers: dict[str, str], more: str = "", body: str = "") -> None:
        text = f"RTSP/1.0 {status}\r\nCSeq: {headers.get('cseq', '0')}\r\n{more}"
        if body:
            text += f"Content-Length: {len(body)}\r\n"
        with self.lock:
            self.wfile.write(f"{text}\r\n{body}".encode())

    def play(self, path: str) -> None:
        """Send pictures at their times."""
        kind = path.split("/")[1]
        pictures, seq, began = self.server.pictures(path), 0, time.monotonic()
        for i in itertools.count():
            if kind in ("short", "silent") and i == 10:
                break
            stamp = i * _CLOCK // self.server.fps
            if kind == "jump":
                stamp = [stamp, 0, stamp, 2**32 - 9000 + stamp, stamp][i // 10 % 5]
            packets = rtp(pictures[i % len(pictures)], seq, stamp)
            seq += len(packets)
            try:
                for packet in packets:
                    self.send(packet)
            except OSError:
                return
            if self.over.wait(max(0.0, began + (i + 1) / self.server.fps - time.monotonic())):
                return
        if kind == "short":
            self.connection.shutdown(socket.SHUT_RDWR)

    def send(self, packet: bytes) -> None:
        if self.where is not None:
            self.udp.sendto(packet, self.where)
        else:
            with self.lock:
                self.wfile.write(b"$\0" + struct.pack(">H", len(packet)) + packet)


class Server(socketserver.ThreadingTCPServer):
    """The server; `port` 0 finds a free one."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, port: int = 0, user: str = "", password: str = "", fps: int = 25, log: str = ""
    ) -> None:
        self.user, self.password, self.fps, self.log = user, password, fps, log
        with tempfile.TemporaryDirectory() as folder:
            options = {"bf": "0"}
            self._clips = [
                nals(clip(Path(folder, f"{i}.h264"), FRAMES, size, codec_options=options))
                for i, size in enumerate(SIZES)
            ]
        super().__init__(("127.0.0.1", port), Handler)

    def pictures(self, path: str) -> list[list[bytes]]:
        """The pictures to send for a path."""
        chosen = self._clips if path.startswith("/odd") else self._clips[:1]
        return [picture for one in chosen for picture in one]

    def note(self, line: str) -> None:
        """Write a line to the log."""
        if self.log:
            with open(self.log, "a") as file:
                print(line, file=file)

    def allows(self, method: str, given: str) -> bool:
        """Whether this is the right answer to our nonce."""
        if not self.user:
            return True
        said = dict(re.findall(r'(\w+)="([^"]*)"', given))
        one = hashlib.md5(f"{self.user}:test:{self.password}".encode()).hexdigest()
        two = hashlib.md5(f"{method}:{said.get('uri')}".encode()).hexdigest()
        right = hashlib.md5(f"{one}:0123456789:{two}".encode()).hexdigest()
        return said.get("response") == right


class ServerProcess:
    """The server as a process that can be stopped, killed and started again on its port."""

    def __init__(self, folder: Path, **options: object) -> None:
        self.log = folder / "rtsp.log"
        self.log.touch()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start(**options)

    def start(self, **options: object) -> None:
        """Start it, and wait until it listens."""
        command = [sys.executable, "-m", "tests.support.rtsp", str(self.port)]
        command += ["--log", str(self.log)]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        wait_for(lambda: self.process.poll() is not None or self._listens(), "the RTSP server")
        assert self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL, whatever state it is in."""
        self.process.kill()
        self.process.wait()

    def requests(self, line: str) -> int:
        """How often the log has this line."""
        return self.log.read_text().splitlines().count(line)

    def url(self, path: str) -> str:
        """The address of a path."""
        return f"rtsp://127.0.0.1:{self.port}{path}"

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--user", default="")
    parser.add_argument("--password", default="")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--log", default="")
    Server(**vars(parser.parse_args())).serve_forever()
