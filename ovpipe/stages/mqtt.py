"""Mqtt: what was found, as messages to an MQTT broker.

Law: a message is confirmed when the broker has acknowledged it (PUBACK; with `qos: 0`, when it was
handed to the network). A connection that breaks is never mended but made anew, so that nothing is
sent on it in another order. Only this file imports paho.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le

from ovpipe.errors import PreflightError
from ovpipe.options import Duration
from ovpipe.stages.messenger import Messenger
from ovpipe.stages.outbox import Away, Client, Denied, Settled
from ovpipe.stages.paths import STREAM
from ovpipe.stages.server import Server, server, tls_context
from ovpipe.stages.spool import Message

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_BATCH = 100
_WRONG_ID, _WRONG_PASSWORD, _NOT_AUTHORIZED, _BANNED = 133, 134, 135, 138
_DENIED = (_WRONG_ID, _WRONG_PASSWORD, _NOT_AUTHORIZED, _BANNED)
_NOT_NOW = (136, 137, 151)  # unavailable, busy, quota exceeded
_MAX_TOPIC_BYTES = 65_535


class Mqtt(Messenger):
    """Sends what was found to an MQTT broker."""

    requires: ClassVar[dict[str, str]] = {"paho.mqtt": "mqtt"}

    url: Annotated[str, "the broker: mqtt://host:1883, or mqtts:// with TLS"]
    topic: Annotated[str, "of the messages; {stream} in it is the frame's stream"] = (
        "ovpipe/{stream}"
    )
    qos: Annotated[Literal[0, 1, 2], "1 and 2 are confirmed by the broker, 0 is not"] = 1
    retain: Annotated[bool, "the broker keeps the last message of a topic for who comes later"] = (
        False
    )
    username: Annotated[str, "who we are; may stand in the url"] = ""
    password: Annotated[str, "best a variable: ${MQTT_PASSWORD}"] = ""
    client_id: Annotated[str, "name of this client at the broker; none: one of its own"] = ""
    version: Annotated[Literal["5", "3.1.1"], "of the protocol"] = "5"
    keepalive: Annotated[Duration, Ge(1), Le(65_535), "how often to show that one is alive"] = 15.0
    ca_file: Annotated[str, "certificates to trust instead of the system's (mqtts)"] = ""

    _server: Any = None

    def client(self) -> tuple[Client, str]:
        """PreflightError for a url or topic that cannot be."""
        self._server = server(self.url, _PORTS, self.username, self.password)
        if not self.topic or any(c in self.topic for c in "+#\0"):
            raise PreflightError(f"topic '{self.topic}': must not be empty, nor have + or # in it")
        if len(self.topic.encode("utf-8", "replace")) > _MAX_TOPIC_BYTES // 2:
            raise PreflightError("topic is too long")
        if self.ca_file and self._server.scheme != "mqtts":
            raise PreflightError("ca_file is for mqtts:// only")
        if self._server.password and not self._server.username:
            raise PreflightError(f"{self._server.shown}: password without username")
        client_id = self.client_id or f"ovpipe-{self.context.stage}-{secrets.token_hex(4)}"
        tls = tls_context(self.ca_file) if self._server.scheme == "mqtts" else None
        return _Client(self, self._server, client_id, tls), self._server.shown

    def secrets(self) -> list[str]:
        """The password."""
        return [self._server.password]


class _Client:
    """Of paho, one client a connection."""

    batch = _BATCH

    def __init__(self, options: Mqtt, place: Server, client_id: str, tls: Any) -> None:
        self._options = options
        self._place = place
        self._client_id = client_id
        self._tls = tls
        self._paho: Any = None
        self._news = threading.Condition()
        self._answer: Any = None  # what the broker said to CONNECT
        self._over = ""
        self._acknowledged: dict[int, Any] = {}

    def connect(self, timeout_s: float) -> None:
        self.close()
        self._answer, self._over = None, ""
        self._acknowledged = {}
        self._paho = paho = self._made(timeout_s)
        try:
            paho.connect(self._place.host, self._place.port, round(self._options.keepalive))
        except OSError as error:
            raise Away(error.strerror or str(error)) from None
        paho.loop_start()
        with self._news:
            self._news.wait_for(lambda: self._answer is not None or self._over, timeout_s)
        code = self._answer
        if code is None:
            raise Away(self._over or f"it did not answer within {timeout_s:.0f} s")
        if code.value in _DENIED:
            raise Denied(f"it refused us: {code}")
        if code.is_failure:
            raise Away(f"it refused the connection: {code}")

    def send(self, messages: Sequence[Message], settled: Settled, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        self._acknowledged.clear()
        numbers = [self._publish(message) for message in messages]
        for number in numbers:
            if number is None:
                settled("it is too large, or its topic is none")
                continue
            with self._news:
                self._news.wait_for(
                    lambda n=number: n in self._acknowledged or self._over,  # type: ignore[misc]
                    max(0.0, deadline_s - time.monotonic()),
                )
                code = self._acknowledged.get(number)
            if code is None:
                raise Away(self._over or f"it confirmed nothing within {timeout_s:.0f} s")
            if code.is_failure and code.value in _NOT_NOW:
                raise Away(f"it cannot take more now: {code}")
            settled(str(code) if code.is_failure else "")

    def fault(self) -> str:
        return self._over

    def close(self) -> None:
        paho, self._paho = self._paho, None
        if paho is not None:
            paho.disconnect()
            paho.loop_stop()

    def _made(self, timeout_s: float) -> Any:
        import paho.mqtt.client as mqtt

        options = self._options
        five = options.version == "5"
        paho = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,  # type: ignore[attr-defined]
            client_id=self._client_id,
            clean_session=None if five else True,
            protocol=mqtt.MQTTv5 if five else mqtt.MQTTv311,
            reconnect_on_failure=False,
        )
        paho.connect_timeout = timeout_s
        paho.max_inflight_messages_set(_BATCH)
        if self._place.username:
            paho.username_pw_set(self._place.username, self._place.password or None)
        if self._tls is not None:
            paho.tls_set_context(self._tls)
        paho.on_connect = self._on_connect
        paho.on_disconnect = self._on_disconnect
        paho.on_publish = self._on_publish
        return paho

    def _publish(self, message: Message) -> int | None:
        """Its number; None where it cannot be sent at all."""
        topic = self._options.topic.replace(STREAM, message.stream)
        try:
            info = self._paho.publish(topic, message.body, self._options.qos, self._options.retain)
        except ValueError:
            return None
        if info.rc:  # it is queued none the less, in a client that is about to be closed
            raise Away(self._over or "the connection is closed")
        return int(info.mid)

    # -- on paho's thread; of a client that was closed, nothing counts -----------------------

    def _on_connect(self, paho: Any, _data: Any, _flags: Any, code: Any, _more: Any) -> None:
        with self._news:
            if paho is self._paho:
                self._answer = code
                self._news.notify_all()

    def _on_disconnect(self, paho: Any, _data: Any, _flags: Any, code: Any, _more: Any) -> None:
        with self._news:
            if paho is self._paho:
                self._over = f"the connection broke: {code}"
                self._news.notify_all()

    def _on_publish(self, paho: Any, _data: Any, number: int, code: Any, _more: Any) -> None:
        with self._news:
            if paho is self._paho:
                self._acknowledged[number] = code
                self._news.notify_all()
