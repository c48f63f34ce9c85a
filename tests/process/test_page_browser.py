"""The page in a real browser: what people see, and that nothing of a run becomes markup."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys

import cv2
import httpx
import numpy as np
import pytest

from ovpipe.stages.annotate import colour_of
from tests.process.conftest import S
from tests.process.test_page import ENDLESS, Page, drained
from tests.support.page import TOKEN, graph, now_s, post, reading, told
from tests.support.processes import wait_for

EVIL = '<img src=x onerror="window.hacked=1">'


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no browser: apt-get install chromium chromium-driver, to test the page in one")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.add_argument("--window-size=1400,1400")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(driver)
    found = webdriver.Chrome(options, service)
    yield found
    found.quit()


@pytest.fixture
def nothing_left(monkeypatch):
    """The browser's own processes and files are not the run's."""
    monkeypatch.setenv("PYTHONPATH", os.getcwd())


class Tab:
    """The page in a browser, once it shows a run."""

    def __init__(self, browser, url):
        self.browser = browser
        browser.get("about:blank")  # or the page before this one would go on asking for its run
        browser.get_log("browser")
        browser.get(url)
        self.until("document.getElementById('phase').textContent === 'running'", "a page that runs")

    def do(self, script):
        return self.browser.execute_script(script)

    def until(self, condition, what):
        return wait_for(lambda: self.do(f"return {condition}"), what)

    def text(self, selector):
        return self.do(f"return document.querySelector({selector!r}).textContent")

    def complaints(self):
        """What the console has: errors, and what the policy of the page has stopped."""
        return [entry["message"] for entry in self.browser.get_log("browser")]


def test_people_see_the_run_and_its_pictures(browser, ovpipe_run):
    stages = {
        "yard": {"kind": "tests.support.scene:Scene", "description": EVIL},
        "sink": {"kind": "log"},
    }
    process = ovpipe_run.start(stages, "--http", "127.0.0.1:0")
    page = Page(ovpipe_run, process)
    page.flows()
    tab = Tab(browser, page.url)
    assert browser.title == "config-0 · ovpipe"
    assert tab.do("return document.querySelectorAll('#graph .stage').length") == 2
    tab.until("parseFloat(document.querySelector('.edge .words').textContent) > 1", "a rate")
    assert tab.text(".stream h3").startswith("yard")
    tab.until("document.querySelector('.spark .curve').getAttribute('d').includes('L')", "a plot")
    tab.until("/ms|s/.test(document.querySelectorAll('.stream dd')[4].textContent)", "a p95")
    assert tab.text("#ledger tbody td") == "yard → sink"
    assert page.get("api/v1/status").json()["viewers"] == 0

    tab.do("document.querySelector('.edge').dispatchEvent(new MouseEvent('click'))")
    tab.until("document.getElementById('picture').naturalWidth === 320", "a picture")
    tab.until("/1 found/.test(document.getElementById('caption').textContent)", "its facts")
    assert page.get("api/v1/status").json()["viewers"] == 1
    shot = browser.find_element("id", "picture").screenshot_as_png
    shown = cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR).astype(int)
    height, width = shown.shape[:2]
    for x, colour in ((width // 20, (26, 26, 230)), (width * 3 // 4, (230, 26, 26))):
        near = shown[height * 8 // 10, x - 3 : x + 4].mean(axis=0)
        assert np.abs(near - colour).max() < 14, (x, near)
    edge = shown[height // 2 : height // 2 + 20, width * 40 // 320 - 4 : width * 40 // 320 + 5]
    assert np.abs(edge - colour_of(1)).sum(axis=2).min() < 250  # the box; all red would be 500

    tab.do("const b = document.getElementById('watch'); if (b.textContent === 'Stop') b.click()")
    wait_for(lambda: page.get("api/v1/status").json()["viewers"] == 0, "nobody watching")
    assert tab.do("return window.hacked === undefined")
    assert EVIL in tab.text(".stage title")
    assert tab.complaints() == []
    assert drained(ovpipe_run, process).balanced().code == 0


def test_the_end_of_a_run_is_told_and_the_next_one_found(browser, ovpipe_run):
    """And both are seen by those only who know the token: browsers ask for it as a password."""
    token = f"http.token={TOKEN}"
    first = ovpipe_run.start(ENDLESS, "--http", "127.0.0.1:0", "--set", token)
    page = Page(ovpipe_run, first, auth=("me", TOKEN))
    page.flows()
    tab = Tab(browser, page.url.replace("//", f"//me:{TOKEN}@"))
    assert tab.do("return document.getElementById('notice').hidden")
    assert drained(ovpipe_run, first).code == 0
    tab.until("!document.getElementById('notice').hidden", "a word about the end")
    assert tab.text("#notice").startswith("The run has ended, or cannot be reached")
    assert tab.text("#phase") == "no contact"
    address = page.url.removeprefix("http://").strip("/")
    longer = {"src": ENDLESS["src"], "keep": {"kind": S + "Keep"}, "sink": ENDLESS["sink"]}
    second = ovpipe_run.start(longer, "--http", address, "--set", token)
    Page(ovpipe_run, second, auth=("me", TOKEN)).flows()
    tab.until("document.getElementById('notice').hidden", "the next run")
    assert tab.do("return document.querySelectorAll('#graph .stage').length") == 3
    second.send_signal(signal.SIGINT)
    assert ovpipe_run.finish(second).code == 0


def test_names_are_words_also_where_they_are_markup(browser, tmp_path):
    """Stage and stream names that no configuration may have, shown by the page's own process."""
    evil = graph(name=EVIL, description=EVIL)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ovpipe.web", str(listening.fileno()), str(os.getpid()), "x"],
            stdin=subprocess.PIPE, pass_fds=(listening.fileno(),),
        )  # fmt: skip
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        try:
            process.stdin.write(json.dumps(told(tmp_path, of=evil)).encode())
            process.stdin.close()
            say = {"name": EVIL, "camera": "reconnecting", "why": EVIL}
            post(tmp_path, evil, reading(now_s(), 10, **say))
            wait_for(
                lambda: httpx.get(url + "api/v1/status", timeout=30).json()["name"], "the page"
            )
            tab = Tab(browser, url)
            post(tmp_path, evil, reading(now_s(), 20, dropped=5, **say))
            tab.until("/queue full/.test(document.getElementById('streams').textContent)", "drops")
            for selector in (
                ".stage title",
                ".stream h3",
                ".stream .why",
                "#source",
                "#stages",
                "#ledger",
            ):
                assert "<img src=x" in tab.text(selector), selector
            assert "camera reconnecting" in tab.text("#stages")
            assert tab.do("return document.images.length") == 2  # the mark, and the live picture
            assert tab.do("return window.hacked === undefined")
            assert tab.complaints() == []
            browser.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True},
            )
            assert tab.do("return document.documentElement.scrollWidth") <= 360  # a phone
        finally:
            browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
            process.kill()
            process.wait()
