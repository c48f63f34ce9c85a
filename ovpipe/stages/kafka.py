"""Kafka: what was found, as records of Kafka topics, the stream as their key.

Law: a message is confirmed by its delivery report, when all replicas in sync have it (`acks=all`,
idempotent: what librdkafka repeats by itself is there once). Records of one stream have one key,
so one partition and one order. After a failure the producer is made anew, and what was not
confirmed is sent again. Only this file imports confluent_kafka.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Any, ClassVar, Literal

from ovpipe.errors import PreflightError
from ovpipe.stages.messenger import Messenger
from ovpipe.stages.outbox import Away, Client, Denied, Settled, scrubbed
from ovpipe.stages.paths import STREAM
from ovpipe.stages.spool import Message

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_OURS = ("bootstrap.servers", "enable.idempotence", "acks", "message.timeout.ms", "error_cb")
_POLL_S = 0.05


class Kafka(Messenger):
    """Sends what was found to topics of Kafka."""

    requires: ClassVar[dict[str, str]] = {"confluent_kafka": "kafka"}

    servers: Annotated[str, "where to find the cluster: host:9092,other:9092"]
    topic: Annotated[str, "of the messages; {stream} in it is the frame's stream"] = "ovpipe"
    username: Annotated[str, "who we are, for SASL"] = ""
    password: Annotated[str, "best a variable: ${KAFKA_PASSWORD}"] = ""
    security: Annotated[
        Literal["", "plaintext", "ssl", "sasl_plaintext", "sasl_ssl"],
        "of the connection; none: sasl_ssl with a username, plaintext without",
    ] = ""
    mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], "how to prove the password"
    ] = "PLAIN"
    options: Annotated[
        dict[str, str | int | float | bool], "any further ones of librdkafka, as it names them"
    ] = field(default_factory=dict)

    def client(self) -> tuple[Client, str]:
        """PreflightError for names that cannot be, and options that librdkafka refuses."""
        if not all(_is_address(one.strip()) for one in self.servers.split(",")):
            raise PreflightError(f"servers '{self.servers}': write host:port, with commas between")
        if not _TOPIC.fullmatch(_topic(self.topic, "cam")):
            raise PreflightError(
                f"topic '{self.topic}': has letters, digits, '.', '_' and '-' only, 249 at most"
            )
        for name in self.options:
            if name in _OURS:
                raise PreflightError(f"options: '{name}' cannot be changed")
        if bool(self.username) != bool(self.password):
            raise PreflightError("username and password belong together; give both or none")
        client = _Client(self._settings(), self.topic, self.secrets())
        client.check()
        return client, f"kafka at {self.servers}"

    def secrets(self) -> list[str]:
        """The password, and what options have one in their name."""
        hidden = ("password", "secret", "sasl", "pem", "token", "oauth")
        given = [str(v) for k, v in self.options.items() if any(word in k for word in hidden)]
        return [self.password, *(value for value in given if len(value) > 3)]

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "client.id": f"ovpipe-{self.context.stage}",
            "linger.ms": 0,
            "topic.metadata.propagation.max.ms": 5000,
            **self.options,
            "bootstrap.servers": self.servers,
            "enable.idempotence": True,
            "acks": "all",
            "message.timeout.ms": max(1000, round(self.timeout * 1000)),
        }
        if self.username:
            settings["sasl.username"] = self.username
            settings["sasl.password"] = self.password
            settings["sasl.mechanism"] = self.mechanism
        security = self.security or ("sasl_ssl" if self.username else "")
        if security:
            settings["security.protocol"] = security
        return settings


class _Client:
    """Of librdkafka, one producer a connection."""

    batch = 500

    def __init__(self, settings: dict[str, Any], topic: str, secrets: list[str]) -> None:
        self._settings = settings
        self._topic = topic
        self._secrets = secrets
        self._producer: Any = None
        self._down = self._denied = ""

    def check(self) -> None:
        """PreflightError where librdkafka does not take the settings; connects to nothing."""
        import confluent_kafka

        elsewhere = {**self._settings, "bootstrap.servers": "", "logger": _Silent()}
        try:
            confluent_kafka.Producer(elsewhere)
        except (confluent_kafka.KafkaException, ValueError, TypeError) as error:
            said = error.args[0] if error.args else error
            text = said.str() if isinstance(said, confluent_kafka.KafkaError) else str(said)
            raise PreflightError(f"options: {scrubbed(text, self._secrets)}") from None

    def connect(self, timeout_s: float) -> None:
        import confluent_kafka

        self.close()
        self._down = self._denied = ""
        self._producer = producer = confluent_kafka.Producer(
            {**self._settings, "error_cb": self._on_error, "logger": _Silent()}
        )
        # The cluster's own answer: a producer as such connects to nothing.
        deadline_s = time.monotonic() + timeout_s
        while True:
            left_s = deadline_s - time.monotonic()
            try:
                producer.list_topics(timeout=max(0.05, min(1.0, left_s)))
                return
            except confluent_kafka.KafkaException as error:
                producer.poll(0)
                if self._denied:
                    raise Denied(self._denied) from None
                if self._down or left_s <= 1.0:
                    raise Away(self._down or error.args[0].str()) from None

    def send(self, messages: Sequence[Message], settled: Settled, timeout_s: float) -> None:
        import confluent_kafka

        reports: dict[int, Any] = {}
        told = 0
        deadline_s = time.monotonic() + timeout_s

        def report(number: int) -> Any:
            return lambda error, _message: reports.__setitem__(number, error)

        for number, message in enumerate(messages):
            try:
                self._producer.produce(
                    _topic(self._topic, message.stream),
                    message.body,
                    message.stream,
                    headers={"id": message.id},
                    on_delivery=report(number),
                )
            except BufferError:
                raise Away("librdkafka's queue is full") from None
            except confluent_kafka.KafkaException as error:
                reports[number] = error.args[0]
        while told < len(messages):
            self._producer.poll(_POLL_S)
            while told in reports:
                settled(self._refusal(reports[told]))
                told += 1
            if told < len(messages) and (self._denied or self._down):
                raise Denied(self._denied) if self._denied else Away(self._down)
            if time.monotonic() >= deadline_s and told < len(messages):
                raise Away(f"it confirmed nothing within {timeout_s:.0f} s")

    def fault(self) -> str:
        self._producer.poll(0)
        return self._denied or self._down

    def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.poll(0)

    def _refusal(self, error: Any) -> str:
        """What Kafka has against a record; raises where it is not about the record."""
        from confluent_kafka import KafkaError

        if error is None:
            return ""
        code = error.code()
        if code in (
            KafkaError.MSG_SIZE_TOO_LARGE,
            KafkaError.INVALID_MSG,
            KafkaError.TOPIC_EXCEPTION,
            KafkaError.INVALID_RECORD,
            KafkaError.POLICY_VIOLATION,
        ):
            return str(error.str())
        if code in (
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
            KafkaError.CLUSTER_AUTHORIZATION_FAILED,
            KafkaError.SASL_AUTHENTICATION_FAILED,
            KafkaError._AUTHENTICATION,
        ):
            raise Denied(error.str())
        raise Away(error.str())

    def _on_error(self, error: Any) -> None:
        from confluent_kafka import KafkaError

        if error.code() in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED):
            self._denied = f"it refused us: {error.str()}"
        elif error.code() == KafkaError._ALL_BROKERS_DOWN or error.fatal():
            self._down = error.str()


class _Silent:
    """librdkafka's own log, which would say each failed attempt: the outbox says each change."""

    def log(self, *_: object) -> None:
        """Nothing."""


def _topic(pattern: str, stream: str) -> str:
    """`cam/gate` -> `cam.gate`: a topic has no slash."""
    return pattern.replace(STREAM, re.sub(r"[^A-Za-z0-9._-]", ".", stream))[:249]


def _is_address(text: str) -> bool:
    host, colon, port = text.rpartition(":")
    return bool(host and colon) and port.isascii() and port.isdigit() and 0 < int(port) < 65_536
