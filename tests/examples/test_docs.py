"""Every snippet of README.md and docs/ does what it says.

    python      runs, in a process of its own
    sh          runs, line by line; each must end well
    yaml        loads and resolves; one whose sources are files at hand runs as well. A part of a
                configuration gets the stages that it reads
    console     commands for a pipeline that runs, or that need what a test has not: their options
                are checked
    json ini toml          are read
    text dockerfile promql are prose, or for other programs

They run in a folder that has what the documents speak of: road.mp4, model.xml, road.yaml, ...
Commands in indented blocks are checked as `console` is. What needs more than a folder is run by the
test of its own page (ELSEWHERE).
"""

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from ovpipe.cli import group
from ovpipe.graph import resolve
from ovpipe.loader import loads
from ovpipe.loader.kinds import STAGE_KEYS
from tests.support.clips import clip
from tests.support.models import ssd

FILES = [Path("README.md"), *sorted(Path("docs").glob("*.md"))]
LANGUAGES = {
    "python",
    "sh",
    "yaml",
    "console",
    "json",
    "ini",
    "text",
    "dockerfile",
    "promql",
    "toml",
}
ELSEWHERE = {
    ("embedding.md", "python"): "test_embedding_docs.py",
    ("observe.md", "python"): "../process/test_asking.py",
    ("sources.md", "python"): "test_docs_sources.py",
    ("recording.md", "python"): "test_recording_docs.py",
    ("terminal.md", "python"): "test_terminal_doc.py",
    ("terminal.md", "sh"): "test_terminal_doc.py",
}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)
COMMAND = re.compile(r"^ {4}(ovpipe [a-z].*)$", re.M)
ROAD = """\
version: 1
stages:
  road: {kind: video, url: road.mp4}
  cars: {kind: infer, model: model.xml, jobs: 2, cache: "off"}
  out: {kind: jsonl, path: cars.jsonl}
"""
# What a snippet may take for granted: pictures, and a run that goes on without top-level `await`.
PRELUDE = """\
import ast, asyncio, inspect, sys
import numpy as np
scope = {"__name__": "__main__", "images": [np.zeros((48, 64, 3), np.uint8)] * 3}
scope["image"] = scope["images"][0]
text = open(sys.argv[1]).read()
code = compile(text, sys.argv[1], "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
if code.co_flags & inspect.CO_COROUTINE:
    asyncio.run(eval(code, scope))
else:
    exec(code, scope)
"""


def found(*languages):
    """The text of every snippet in one of these languages, named by its file and line."""
    snippets = []
    for path in FILES:
        text = path.read_text()
        for match in FENCE.finditer(text):
            assert match[1] in LANGUAGES, f"{path}: a snippet in '{match[1]}'"
            if match[1] in languages and (path.name, match[1]) not in ELSEWHERE:
                line = text.count("\n", 0, match.start()) + 1
                snippets.append(pytest.param(match[2], id=f"{path.name}:{line}"))
    return snippets


def commands():
    """The commands in indented blocks."""
    lines = []
    for path in FILES:
        text = path.read_text()
        for match in COMMAND.finditer(FENCE.sub("", text)):
            lines.append(pytest.param(match[1], id=f"{path.name}:{match[1][:40]}"))
    return lines


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A folder with what the documents speak of."""
    folder = tmp_path_factory.mktemp("docs")
    clip(folder / "road.mp4")
    for name in ("yard.mp4", "clip.mp4"):
        shutil.copy(folder / "road.mp4", folder / name)
    made = ssd(folder, [(0, 1, 0.9, 0.1, 0.1, 0.5, 0.5), (-1, 0, 0, 0, 0, 0, 0)], "model")
    (folder / "models").mkdir()
    names = ("person-vehicle-bike-detection-2000", "faces", "pose")
    for name in (*names, *(f"models/{n}" for n in names)):
        for suffix in (".xml", ".bin"):
            shutil.copy(made.with_suffix(suffix), folder / f"{name}{suffix}")
    (folder / "road.yaml").write_text(ROAD)
    (folder / "yard.yaml").write_text(ROAD.replace("cars:", "detect:").replace("road:", "cam:"))
    return folder


@pytest.fixture
def folder(prepared, tmp_path, monkeypatch):
    """A copy of it for one test."""
    shutil.copytree(prepared, tmp_path / "docs")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    return tmp_path / "docs"


def run(arguments, folder):
    ended = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, f"{arguments}\n{ended.stdout}\n{ended.stderr}"


@pytest.mark.parametrize("text", found("python"))
def test_python(text, folder):
    (folder / "snippet.py").write_text(text)
    run([sys.executable, "-c", PRELUDE, "snippet.py"], folder)


@pytest.mark.parametrize("text", found("sh"))
def test_sh(text, folder):
    for line in filter(None, (line.partition(" #")[0].strip() for line in text.splitlines())):
        words = shlex.split(line)
        assert words[0] == "ovpipe", f"only our own commands run here: {line}"
        run([sys.executable, "-m", "ovpipe", *words[1:]], folder)


@pytest.mark.parametrize("text", found("yaml"))
def test_yaml(text, folder):
    given = yaml.safe_load(text)
    if {"apiVersion", "scrape_configs"} & set(given):
        return  # another program's
    whole = complete(given)
    (folder / "snippet.yaml").write_text(
        text if whole is given else yaml.safe_dump(whole, sort_keys=False)
    )
    (folder / "crowd.py").write_text("import ovpipe\nclass Crowd(ovpipe.Transform):\n"
        "    limit: int = 1\n    def process(self, frame): return frame\n")  # fmt: skip
    environ = dict.fromkeys(re.findall(r"\$\{(\w+)", text), "a123456789" * 4)
    environ = {name: word for name, word in environ.items() if f"{name}:-" not in text}
    graph = resolve(loads((folder / "snippet.yaml").read_text(), folder=folder, environ=environ))
    sources = [s for s in graph.stages if s.role == "producer"]
    at_hand = [
        (folder / str(w.options.get("url", "-"))).is_file() for s in sources for w in s.workers
    ]
    if whole is given and all(at_hand):
        run([sys.executable, "-m", "ovpipe", "run", "snippet.yaml", "--duration", "20"], folder)


def complete(given):
    """A part of a configuration with what it lacks: a version, and the stages that it reads."""
    if "version" in given:
        return given
    if "stages" in given:
        return {"version": 1, **given}
    if not any(isinstance(v, dict) and "kind" in v for v in given.values()):
        top = {k: v for k, v in given.items() if k not in STAGE_KEYS}
        own = {k: v for k, v in given.items() if k in STAGE_KEYS}
        start = {"start": {"kind": "synthetic", "count": 1}}
        if own:
            start |= {"snippet": {"kind": "log", "inputs": "start", **own}}
        return {"version": 1, "stages": start, **top}
    stages = {}
    for stage in given.values():
        entries = stage.get("inputs", [])
        for entry in entries if isinstance(entries, list) else [entries]:
            name = entry["from"] if isinstance(entry, dict) else entry
            if name not in given:
                stages[name] = {"kind": "synthetic", "count": 1}
    alone = not any("inputs" in stage for stage in given.values())
    first = next(iter(given.values()))
    if alone and not stages and not {"url", "for_each", "command", "count", "items"} & set(first):
        stages["start"] = {"kind": "synthetic", "count": 1}
    return {"version": 1, "stages": {**stages, **given}}


@pytest.mark.parametrize("text", [*found("console"), *commands()])
def test_console(text):
    for line in filter(None, (line.strip() for line in text.splitlines())):
        words = shlex.split(line.partition("   ")[0].partition(" #")[0].partition(" | ")[0])
        if words[0] != "ovpipe":
            assert words[0] in (
                "python",
                "make",
                "pip",
                "systemctl",
                "sudo",
                "curl",
                "mosquitto_sub",
            ), line
            continue
        command = group.get_command(None, words[1])
        assert command is not None, f"no command '{words[1]}': {line}"
        command.make_context(words[1], words[2:])


@pytest.mark.parametrize("text", found("json"))
def test_json(text):
    for line in text.strip().splitlines() if text.startswith("{") else [text]:
        json.loads(line) if line.startswith("{") and line.endswith("}") else json.loads(text)


@pytest.mark.parametrize("text", found("ini"))
def test_ini(text):
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read_string(text)
    assert parser.sections()


@pytest.mark.parametrize("text", found("toml"))
def test_toml(text):
    assert tomllib.loads(text)


@pytest.mark.parametrize(("page", "language"), ELSEWHERE)
def test_what_is_run_elsewhere(page, language):
    test = Path("tests/examples", ELSEWHERE[page, language]).read_text()
    assert f"docs/{page}" in test
    assert f'"{language}"' in test or f"```{language}" in test, page


def test_the_chaos_of_testing_md(folder):
    """What docs/testing.md says of its script comes out so."""
    text = Path("docs/testing.md").read_text()
    body = next(match[2] for match in FENCE.finditer(text) if match[1] == "yaml")
    (folder / "c.yaml").write_text(body)
    ended = subprocess.run(
        [sys.executable, "-m", "ovpipe", "run", "c.yaml", "--json"],
        cwd=folder, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    work, _ = json.loads(ended.stdout)["ledger"]
    assert work["failed"] == {"decode_error": 1, "infer_error": 3}
    seen = [json.loads(line) for line in (folder / "seen.jsonl").read_text().splitlines()]
    assert [x["seq"] for x in seen[:-1]] == [i for i in range(26) if i not in (3, 13, 20, 23)]
    assert seen[-1]["end"]


def test_the_words_of_the_script_are_all_there():
    from ovpipe.testing.script import _WORDS

    text = Path("docs/testing.md").read_text()
    assert all(f"`{word}" in text for word in _WORDS)


def test_links_lead_somewhere():
    for path in FILES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path}: {target}"
