"""Who may ask the page what: I01 to I05, by every refusal and every way in."""

import base64

import pytest

from ovpipe.errors import OvpipeError
from ovpipe.web.page import page
from tests.support.page import TOKEN, Client, graph, now_s, post, reading, told


def no_frames(edge, stream):
    raise OvpipeError("no frames here")


def client(folder, **more):
    watch, app = page(told(folder, **more), no_frames)
    post(folder, graph(), reading(now_s()))
    watch.look()
    return Client(app)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8080", "localhost:9000", "LOCALHOST", "localhost.", "[::1]:8080", "127.0.0.5"],
)
def test_names_of_this_machine_are_answered(host, tmp_path):
    assert client(tmp_path).get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example",
     "192.168.1.7:8080", "", "localhost:8080:8080", "[::1", "localhost/", "user@localhost", "2130706433"],
)  # fmt: skip
def test_I01_another_name_is_refused_with_nothing_else(host, tmp_path):
    for path in ("/", "/api/v1/status", "/metrics", "/nothing"):
        answer = client(tmp_path).get(path, headers={"Host": host})
        assert answer.status_code == 421
        assert "yard" not in answer.text


def test_beyond_this_machine_addresses_and_given_names_are_answered(tmp_path):
    at = client(tmp_path, listen=("0.0.0.0", 8080), token=TOKEN, hosts=("cam.example",))
    key = {"Authorization": f"Bearer {TOKEN}"}
    for host in ("192.168.1.7:8080", "cam.example", "CAM.example:443", "localhost"):
        assert at.get("/", headers={**key, "Host": host}).status_code == 200
    assert at.get("/", headers={**key, "Host": "evil.example"}).status_code == 421


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"]
)
def test_I01_methods_that_are_not_offered(method, tmp_path):
    for path in ("/", "/api/v1/status", "/api/v1/edges/0/stream.mjpeg"):
        answer = client(tmp_path).request(method, path)
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "path", ["/", "/page.js", "/api/v1/status", "/api/v1/edges/0/stream.mjpeg"]
)
def test_head_answers_without_a_body(path, tmp_path):
    answer = client(tmp_path).head(path)
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    "path",
    ["/../../etc/passwd", "/static/page.js", "/page.py", "/app.py", "/..%2f..%2fetc%2fpasswd",
     "/page.css/", "//etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/index.html", "/api/v1/edges/0/../../../x",
     "/api/v1/edges/99/frame.json", "/api/v1/edges/-1/frame.json", "/api/v1/edges/x/frame.json",
     "/api/v1/edges/0/frame.json?stream=../../etc/passwd", "/api/v1/edges/0/frame.json?stream="],
)  # fmt: skip
def test_I02_no_file_is_served_from_what_a_request_says(path, tmp_path):
    answer = client(tmp_path).get(path)
    assert answer.status_code in (404, 307)
    assert "root:" not in answer.text
    assert "import" not in answer.text


@pytest.mark.parametrize(
    ("site", "mode", "status"),
    [("cross-site", "no-cors", 403), ("same-site", "cors", 403), ("cross-site", "cors", 403),
     ("cross-site", "navigate", 200), ("same-origin", "cors", 200), ("none", "navigate", 200)],
)  # fmt: skip
def test_pages_of_other_sites_get_nothing(site, mode, status, tmp_path):
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
    assert client(tmp_path).get("/api/v1/status", headers=headers).status_code == status


@pytest.mark.parametrize(
    "path", ["/", "/page.css", "/page.js", "/api/v1/status", "/metrics", "/nothing"]
)
def test_every_answer_says_what_a_browser_must_not_do(path, tmp_path):
    for more in ({}, {"Host": "evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        headers = client(tmp_path).get(path, headers=more).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers


def basic(password, user="anyone"):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    "given", [f"Bearer {TOKEN}", f"bearer  {TOKEN} ", basic(TOKEN), basic(TOKEN, "")]
)
def test_the_token_opens_everything(given, tmp_path):
    at = client(tmp_path, token=TOKEN)
    for path in ("/", "/page.js", "/api/v1/status", "/metrics", "/healthz"):
        assert at.get(path, headers={"Authorization": given}).status_code == 200


@pytest.mark.parametrize(
    "given",
    [None, "", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", basic(""),
     basic("wrong"), f"Basic {TOKEN}", "Basic ????", f"Digest {TOKEN}", TOKEN, f"Token {TOKEN}"],
)  # fmt: skip
def test_I05_without_it_nothing_is_answered(given, tmp_path):
    at = client(tmp_path, token=TOKEN)
    headers = {} if given is None else {"Authorization": given}
    for path in ("/", "/page.js", "/api/v1/status", "/metrics", "/healthz", "/nothing"):
        answer = at.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic")
        assert TOKEN not in answer.text
        assert "yard" not in answer.text


def test_a_token_in_the_address_is_no_token(tmp_path):
    assert client(tmp_path, token=TOKEN).get(f"/?token={TOKEN}").status_code == 401


def test_I03_the_page_holds_no_script_or_style_of_its_own(tmp_path):
    at = client(tmp_path)
    text = at.get("/").text
    assert "<script src=" in text
    assert text.count("<script") == 1
    assert "style=" not in text
    assert "<style" not in text
    assert "onclick" not in text
    script = at.get("/page.js").text
    for way_in in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
    ):
        assert way_in not in script
    for each in (text, script, at.get("/page.css").text, at.get("/icon.svg").text):
        assert "//" not in each.replace("http://www.w3.org/", "").replace(
            "// ", ""
        )  # nobody else's
