"""Redis: what was found, as entries of Redis streams.

    XADD ovpipe:cam MAXLEN ~ 100000 * id 5f0c…/cam/7 stream cam seq 7 json {"v":1,…}

Law: a message is confirmed when Redis has answered with the entry's id. What Redis says of itself
(it loads, is full, only to be read) is waited out; what it says of the entry refuses the message.
Only this file imports redis.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from annotated_types import Ge

from ovpipe.errors import PreflightError
from ovpipe.options import Duration
from ovpipe.stages.messenger import Messenger
from ovpipe.stages.outbox import Away, Client, Denied, Settled
from ovpipe.stages.paths import STREAM
from ovpipe.stages.server import Server, server, tls_context
from ovpipe.stages.spool import Message

_PORTS = {"redis": 6379, "rediss": 6379}
_NOT_NOW = ("OOM", "LOADING", "READONLY", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN",
            "MISCONF", "NOREPLICAS", "UNKILLABLE")  # fmt: skip
_DENIED = ("NOAUTH", "WRONGPASS", "NOPERM")
_LOOK_S = 5.0


class Redis(Messenger):
    """Adds what was found to streams of Redis."""

    requires: ClassVar[dict[str, str]] = {"redis": "redis"}

    url: Annotated[str, "the server: redis://host:6379/0, or rediss:// with TLS"]
    key: Annotated[str, "of the stream; {stream} in it is the frame's stream"] = "ovpipe:{stream}"
    max_entries: Annotated[int, Ge(0), "about how many entries a stream keeps; 0: all"] = 0
    max_age: Annotated[Duration, Ge(0), "about how long a stream keeps an entry; 0: for ever"] = 0.0
    username: Annotated[str, "who we are; may stand in the url"] = ""
    password: Annotated[str, "best a variable: ${REDIS_PASSWORD}"] = ""
    ca_file: Annotated[str, "certificates to trust instead of the system's (rediss)"] = ""

    _server: Any = None

    def client(self) -> tuple[Client, str]:
        """PreflightError for a url, or limits, that cannot be."""
        place = server(self.url, _PORTS, self.username, self.password, path=True)
        self._server = place
        number = place.path.strip("/")
        if number and not (number.isascii() and number.isdigit()):
            raise PreflightError(f"{place.shown}: behind host and port stands a number, or nothing")
        if place.target.partition("?")[2]:
            raise PreflightError(f"{place.shown}: options in the url are not read; leave them out")
        if not self.key:
            raise PreflightError("key is empty; give the stream a name")
        if self.max_entries and self.max_age:
            raise PreflightError("max_entries and max_age: Redis takes one of them, not both")
        if self.ca_file and place.scheme != "rediss":
            raise PreflightError("ca_file is for rediss:// only")
        if place.scheme == "rediss":
            tls_context(self.ca_file)
        return _Client(self, place, int(number or 0)), place.shown

    def secrets(self) -> list[str]:
        """The password."""
        return [self._server.password]


class _Client:
    """Of redis-py, which is not to try again by itself."""

    batch = 100

    def __init__(self, options: Redis, place: Server, database: int) -> None:
        self._options = options
        self._place = place
        self._database = database
        self._redis: Any = None
        self._looked_s = 0.0

    def connect(self, timeout_s: float) -> None:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self.close()
        place = self._place
        more: dict[str, Any] = {}
        if place.scheme == "rediss":
            more = {"ssl": True, "ssl_ca_certs": self._options.ca_file or None}
        self._redis = redis.Redis(
            host=place.host,
            port=place.port,
            db=self._database,
            username=place.username or None,
            password=place.password or None,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            client_name="ovpipe",
            **more,
        )
        self._call(self._redis.ping)
        self._looked_s = time.monotonic()

    def send(self, messages: Sequence[Message], settled: Settled, timeout_s: float) -> None:
        pipe = self._redis.pipeline(transaction=False)
        limit = self._limit()
        for message in messages:
            key = self._options.key.replace(STREAM, message.stream)
            pipe.execute_command("XADD", key, *limit, "*", *_fields(message))
        replies = self._call(lambda: pipe.execute(raise_on_error=False))
        self._looked_s = time.monotonic()
        for reply in replies:
            settled(_refusal(reply) if isinstance(reply, Exception) else "")

    def fault(self) -> str:
        if time.monotonic() - self._looked_s < _LOOK_S:
            return ""
        self._looked_s = time.monotonic()
        try:
            self._call(self._redis.ping)
        except (Away, Denied) as error:
            return str(error)
        return ""

    def close(self) -> None:
        client, self._redis = self._redis, None
        if client is not None:
            client.close()

    def _limit(self) -> list[str | int]:
        if self._options.max_entries:
            return ["MAXLEN", "~", self._options.max_entries]
        if self._options.max_age:
            # The ids of entries are of the server's clock, and so is what is old.
            seconds, _ = self._call(self._redis.time)
            return ["MINID", "~", max(0, int((seconds - self._options.max_age) * 1000))]
        return []

    @staticmethod
    def _call(command: Any) -> Any:
        import redis

        try:
            return command()
        except redis.AuthenticationError as error:
            raise Denied(f"it refused us: {error}") from None
        except redis.ResponseError as error:
            _refusal(error)
            raise Away(str(error)) from None
        except redis.TimeoutError:
            raise Away("it did not answer in time") from None
        except (redis.RedisError, OSError) as error:
            raise Away(str(error)) from None


def _fields(message: Message) -> list[str | bytes]:
    seq = message.id.rpartition("/")[2]
    return ["id", message.id, "stream", message.stream, "seq", seq, "json", message.body]


def _refusal(error: Exception) -> str:
    """What Redis has against an entry; raises where it is not about the entry."""
    from redis import exceptions

    text = str(error)
    word = text.partition(" ")[0].rstrip(":")
    if (
        isinstance(error, exceptions.AuthenticationError | exceptions.NoPermissionError)
        or word in _DENIED
    ):
        raise Denied(f"it refused us: {text}")
    if not isinstance(error, exceptions.ResponseError):
        raise Away(text)
    if (
        isinstance(error, exceptions.OutOfMemoryError | exceptions.ReadOnlyError)
        or word in _NOT_NOW
    ):
        raise Away(text)
    return text
