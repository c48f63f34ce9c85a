"""The configurations of docs/page.md are right, and its tables name what there is."""

import re
from pathlib import Path

import yaml

from ovpipe.loader import loads
from ovpipe.supervisor.bulletin import Run
from ovpipe.web.app import App
from ovpipe.web.live import Live
from ovpipe.web.metrics import exposition
from ovpipe.web.watch import Watch
from tests.support.page import graph, reading

TEXT = Path("docs/page.md").read_text()
YAML = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)


def test_configurations(tmp_path):
    first, second, prometheus = YAML
    assert loads(first, folder=tmp_path, environ={}).http.port == 8080
    wide = loads(second, folder=tmp_path, environ={"PAGE_TOKEN": "0123456789abcdef"})
    assert wide.http.hosts == ("cams.example.org",)
    assert yaml.safe_load(prometheus)["scrape_configs"][0]["job_name"] == "ovpipe"


def test_paths(tmp_path):
    routes = App(Watch(graph(), tmp_path), Live(lambda edge, stream: None)).routes().routes
    there = {route.path.replace("{edge:int}", "N") for route in routes}
    named = set(re.findall(r"`(/[a-z0-9/.]+[a-zN/._0-9]*)[?`]", TEXT))
    assert there - {"/", "/page.css", "/page.js", "/icon.svg"} == named


def test_metrics():
    failed = reading(100, 5, dropped=2)
    failed.accounts[0].failed["stage_crash"] = 1
    text = exposition(Run("yard", 1, "running", 0.0, Path(), failed), True)
    there = set(re.findall(r"# TYPE (\S+)", text))
    named = set(re.findall(r"`(ovpipe_\w+)`", TEXT))
    named |= {f"ovpipe_worker_{what}_seconds_total" for what in ("blocked", "idle")}
    assert there == named
