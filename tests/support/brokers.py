"""Real brokers on loopback ports, started, stopped and killed by a test; and who reads from them.

Law: what a broker keeps lies in a folder of the test; a broker that was stopped starts again on the
same port with what it kept. Nothing outlives `close`. Where the program is not installed, the test
is skipped and says what to install.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.processes import wait_for

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def program(name, package):
    """The path of a system program; skips the test where it is missing."""
    found = shutil.which(name) or shutil.which(name, path=_PATH)
    if found is None:
        pytest.skip(f"needs the program '{name}': apt-get install {package}")
    return found


def free_port():
    """A port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def self_signed(folder):
    """(key, certificate) of localhost."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [program("openssl", "openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True,
    )  # fmt: skip
    return key, certificate


class Server:
    """A server process that can be stopped and started again on the same port."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(exist_ok=True)
        self.port = free_port()
        self.process = None

    def command(self):
        raise NotImplementedError

    def start(self):
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_for(self._answers, f"{type(self).__name__} on port {self.port}")
        return self

    def _answers(self):
        assert self.process.poll() is None, (self.folder / "server.log").read_text()
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self):
        """An orderly end: what it keeps is written."""
        self.process.terminate()
        self.process.wait(timeout=30)

    def kill(self):
        self.process.kill()
        self.process.wait(timeout=30)

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.kill()


class Mosquitto(Server):
    """`users`: name -> password; without any, everybody may come. `tls`: (key, certificate)."""

    def __init__(self, folder, users=None, tls=None):
        super().__init__(folder)
        self._program = program("mosquitto", "mosquitto")
        lines = [
            f"listener {self.port} 127.0.0.1",
            f"persistence_location {self.folder}/",
            "persistence true",
            "autosave_on_changes true",
            "autosave_interval 1",
            "max_queued_messages 0",
            "max_inflight_messages 0",
            "allow_anonymous " + ("false" if users else "true"),
        ]
        if tls:
            self.tls_port = free_port()
            lines += [
                f"listener {self.tls_port} 127.0.0.1", f"keyfile {tls[0]}", f"certfile {tls[1]}",
            ]  # fmt: skip
        if users:
            passwords = self.folder / "passwords"
            for name, password in users.items():
                subprocess.run(
                    [program("mosquitto_passwd", "mosquitto"), "-b", *([] if passwords.exists() else ["-c"]),
                     str(passwords), name, password], check=True, capture_output=True,
                )  # fmt: skip
            passwords.chmod(0o644)
            lines.append(f"password_file {passwords}")
        self._config = self.folder / "mosquitto.conf"
        if hasattr(self.folder, "owner") and self.folder.owner() == "root":
            lines.append("user root")  # it would give up the right to write here
        self._config.write_text("\n".join(lines) + "\n")

    def command(self):
        return [self._program, "-c", str(self._config)]


class RedisServer(Server):
    """Keeps nothing on disk unless `keep`."""

    def __init__(self, folder, *arguments):
        super().__init__(folder)
        self._program = program("redis-server", "redis-server")
        self._arguments = arguments

    def command(self):
        return [
            self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir",
            str(self.folder), "--save", "", *self._arguments,
        ]  # fmt: skip


class Subscriber:
    """An independent reader of MQTT, with a session that outlives the broker's absence."""

    def __init__(self, port, topic="#", username=None, password=None):
        import paho.mqtt.client as mqtt

        self.messages = []
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._paho = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id="reader", clean_session=False
        )
        if username:
            self._paho.username_pw_set(username, password)
        self._paho.reconnect_delay_set(1, 1)
        self._paho.on_connect = lambda client, *_: client.subscribe(topic, 1)
        self._paho.on_subscribe = lambda *_: self._ready.set()
        self._paho.on_message = self._on_message
        self._paho.connect_async("127.0.0.1", port)
        self._paho.loop_start()
        assert self._ready.wait(30)

    def _on_message(self, _client, _data, message):
        with self._lock:
            self.messages.append(message)

    @property
    def documents(self):
        with self._lock:
            return [json.loads(message.payload) for message in self.messages]

    def close(self):
        paho, self._paho = self._paho, None  # the last reference, which holds descriptors
        paho.disconnect()
        paho.loop_stop()


_MOCK = """
import confluent_kafka, sys
owner = confluent_kafka.Producer(
    {"bootstrap.servers": "", "test.mock.num.brokers": 1, "log_level": 0}
)
brokers = owner.list_topics(timeout=30).brokers.values()
print(",".join(f"{broker.host}:{broker.port}" for broker in brokers), flush=True)
sys.stdin.read()
"""


class KafkaCluster:
    """librdkafka's mock cluster, in a process of its own, so that it can be stopped."""

    def __init__(self):
        pytest.importorskip("confluent_kafka")
        self.process = subprocess.Popen(
            [sys.executable, "-c", _MOCK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.servers = self.process.stdout.readline().strip()

    def close(self):
        self.process.kill()
        self.process.communicate()

    def read(self, topic, count):
        """The first records of a topic, so many different ones, by a consumer of its own."""
        import confluent_kafka

        consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": self.servers, "group.id": "reader", "log_level": 0}
        )
        partitions = wait_for(
            lambda: consumer.list_topics(topic, timeout=30).topics[topic].partitions,
            f"the topic '{topic}'",
        )
        consumer.assign(
            [
                confluent_kafka.TopicPartition(topic, number, confluent_kafka.OFFSET_BEGINNING)
                for number in partitions
            ]
        )
        records = []

        def enough():
            found = consumer.consume(500, 0.2)
            records.extend(record for record in found if record.error() is None)
            return len({record.value() for record in records}) >= count

        try:
            wait_for(enough, f"{count} records of '{topic}'")
        finally:
            consumer.close()
        return records
