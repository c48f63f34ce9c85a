"""`http:` in a configuration: where the page listens, and that nobody listens widely by accident."""

import pytest

from ovpipe.errors import ConfigError
from ovpipe.graph import Graph, resolve
from ovpipe.loader import loads
from ovpipe.spec import HttpSpec

STAGES = "stages:\n  a: {kind: synthetic}\n  b: {kind: log}\n"
TOKEN = "0123456789abcdef"


def load(http, tmp_path, environ=None, overrides=()):
    text = f"version: 1\n{http}\n{STAGES}"
    return loads(text, folder=tmp_path, file="c.yaml", environ=environ or {}, overrides=overrides)


def problems(*given, **more):
    with pytest.raises(ConfigError) as error:
        load(*given, **more)
    return [str(problem) for problem in error.value.problems]


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("", None),
        ("http: {}", HttpSpec()),
        ("http: {listen: 127.0.0.1:8080}", HttpSpec("127.0.0.1", 8080)),
        ("http: {listen: 'localhost:0'}", HttpSpec("localhost", 0)),
        ("http: {listen: '[::1]:80'}", HttpSpec("::1", 80)),
        (
            f"http: {{listen: '0.0.0.0:80', token: {TOKEN}, hosts: [Cam.example]}}",
            HttpSpec("0.0.0.0", 80, TOKEN, ("cam.example",)),
        ),
    ],
)
def test_where_it_listens(text, spec, tmp_path):
    assert load(text, tmp_path).http == spec


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "[::]", "192.168.1.2", "cam.example", "127.0.0.1.example"]
)
def test_beyond_this_machine_a_token_is_needed(host, tmp_path):
    (line,) = problems(f"http: {{listen: '{host}:80'}}", tmp_path)
    assert line.startswith("c.yaml:2:16: http.listen: reaches beyond this machine without a token")
    assert load(f"http: {{listen: '{host}:80', token: {TOKEN}}}", tmp_path).http.token == TOKEN


@pytest.mark.parametrize(
    "listen",
    [
        "8080",
        "'8080'",
        "localhost",
        "'localhost:99999'",
        "':80'",
        "'a b:80'",
        "'::1:80'",
        "[1]",
        "null",
    ],
)
def test_what_is_no_address(listen, tmp_path):
    (line,) = problems(f"http: {{listen: {listen}}}", tmp_path)
    assert "http.listen: must be HOST:PORT, as 127.0.0.1:8080" in line


@pytest.mark.parametrize(
    "token",
    [
        "short",
        "''",
        "1234567890123456",
        "'has a space in it'",
        "[list-of-one-text]",
        "'ünïcödéünïcödé1'",
    ],
)
def test_a_token_that_is_none_is_never_shown(token, tmp_path):
    (line,) = problems(f"http: {{listen: '0.0.0.0:80', token: {token}}}", tmp_path)
    assert "http.token: must be text of 16 or more visible ASCII characters" in line
    assert token.strip("'[]") not in line or token == "''"


def test_a_token_from_a_variable(tmp_path):
    text = 'http: {listen: "0.0.0.0:80", token: "${T}"}'
    http = load(text, tmp_path, {"T": TOKEN}).http
    assert http.token == TOKEN
    assert TOKEN not in repr(http)
    (line,) = problems(text, tmp_path, {"T": "hunter2"})
    assert "hunter2" not in line
    (line,) = problems(text, tmp_path)
    assert "the variable T is not set" in line


def test_the_command_line_says_where_and_the_file_who(tmp_path):
    text = f"http: {{token: {TOKEN}}}"
    spec = load(text, tmp_path, overrides=["http.listen='0.0.0.0:90'"])
    assert spec.http == HttpSpec("0.0.0.0", 90, TOKEN)
    assert load("", tmp_path, overrides=["http.listen='127.0.0.1:90'"]).http.port == 90


def test_unknown_keys_are_told(tmp_path):
    (line,) = problems("http: {lisen: 1}", tmp_path)
    assert "http.lisen" in line
    assert "listen" in line


def test_a_missing_library_is_told_when_the_file_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("ovpipe.loader.options._installed", lambda module: module != "uvicorn")
    (line,) = problems("http: {}", tmp_path)
    assert line.endswith("the page needs the package 'uvicorn': pip install 'ovpipe[web]'")


def test_it_survives_the_way_to_another_process(tmp_path):
    spec = load(f"http: {{token: {TOKEN}, hosts: a.example}}", tmp_path)
    graph = resolve(spec)
    assert Graph.from_json(graph.to_json()).http == spec.http
    assert graph.with_tap("a", "tap").http == spec.http
