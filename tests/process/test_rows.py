"""Fault rows as a table: a pipeline, what is done around it, and what must follow.

`pytest -k B02` finds a row by its id. Rows that need signals or a second process are in
test_faults, those of sockets in test_hostile, those of applications in test_pipeline, those of
configurations in tests/cli/test_hostile_configs.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.process.conftest import S, T

SINK = {"kind": T + "ScriptedSink"}


def script(*items, **options):
    return {"kind": T + "Script", "items": list(items), **options}


def recorder(path="seen", **options):
    return {"kind": T + "Recorder", "path": path, **options}


@dataclass
class Row:
    """`within`: commands of a shell that has file systems of its own, run first (needs root).

    `environ`: variables set; None takes one away. `check(ended, lines)`: what must follow, with
    what the recorder wrote.
    """

    id: str
    stages: dict[str, Any]
    check: Callable[[Any, list[dict[str, Any]]], None]
    code: int = 0
    within: str = ""
    environ: dict[str, str | None] = field(default_factory=dict)
    umask: int = -1
    marks: tuple[Any, ...] = ()


def delivered(*counts):
    """All frames of each row of the ledger, and in the recorder's file whole and in order."""

    def check(ended, lines):
        rows = ended.ledger.values()
        assert tuple(row["delivered"] for row in rows) == counts
        assert all(row["claimed"] == row["delivered"] for row in rows)
        frames = [line for line in lines if "seq" in line]
        assert len(frames) in (0, counts[-1])
        assert all(line["ok"] and line["seq"] == line["painted"] for line in frames)
        assert [line["seq"] for line in frames] == sorted({line["seq"] for line in frames})

    return check


def says(*texts):
    def check(ended, lines):
        errors = [x for x in ended.err.splitlines() if x.startswith("error: ")]
        assert len(errors) == 1, ended.err
        assert all(text in errors[0] for text in texts), errors
        assert "Traceback" not in ended.err

    return check


def live_and_slow(ended, lines):
    """C01: the source never waits, drops are exact, what is delivered was young when taken."""
    row = ended.ledger["cam", "slow"]
    frames = [line for line in lines if "seq" in line]
    assert row["claimed"] == 100
    assert row["delivered"] == len(frames) < 100
    assert set(row["dropped"]) <= {"queue_full", "stale"}
    assert row["delivered"] + sum(row["dropped"].values()) == 100
    assert ended.stages["cam"]["blocked_ns"] == 0
    assert ended.stages["slow"]["age_ns"] <= 100e6
    assert [line["seq"] for line in frames] == sorted({line["seq"] for line in frames})
    assert lines[-1]["end"]


def sizes_change(ended, lines):
    """B09: every frame whole, those of a view that is kept over the change too."""
    delivered(90, 90)(ended, lines)
    assert lines[-1]["end"]


def empty(ended, lines):
    """C06."""
    assert [line.get("end") for line in lines] == [True]
    assert "warning: stream 'cam' gave no frame" in ended.err


def not_text(ended, lines):
    """G08."""
    delivered(30, 30)(ended, lines)
    assert "\\xff" in ended.err


def full_disk(ended, lines):
    """F01: each frame that finds no room is one that failed, and the run goes on."""
    for sink in ("table", "events"):
        row = ended.ledger["cam", sink]
        assert set(row["failed"]) == {"disk_full"}, row
        assert 0 < row["delivered"] < row["claimed"] == 300, row
    assert "left in 'out/spool'" in ended.err


MEMORY = "mount --bind {folder} /sys/fs/cgroup"
LARGE = "1920x1080"
BYTES = os.fsdecode(b"\xff\xfe")

ROWS = [
    Row(
        "F01-a-full-disk",
        {
            "cam": script({"frame": 300}),
            "table": {"kind": "sqlite", "inputs": "cam", "path": "out/found.db"},
            "events": {
                "kind": "webhook",
                "inputs": "cam",
                "url": "http://127.0.0.1:1/",
                "spool": {"path": "out/spool"},
                "flush_timeout": 0,
            },
        },
        full_disk,
        within="mkdir -p out && mount -t tmpfs -o size=160k tmpfs out",
    ),
    *(
        Row(
            f"F03-a-read-only-path-{kind}",
            {"cam": script({"frame": 3}), "sink": {"kind": kind, "path": f"out/{name}"}},
            says("stage 'sink': cannot write to 'out'", "Read-only file system", "give a path"),
            code=3,
            within="mkdir -p out && mount -t tmpfs -o ro tmpfs out",
        )
        for kind, name in (("jsonl", "{stream}.jsonl"), ("video-writer", "a.mp4"))
    ),
    Row(
        "B01-dev-shm-of-8-MB",
        {"cam": script({"frame": 20}, size=LARGE), "sink": recorder()},
        delivered(20),
        within="mount -t tmpfs -o size=8m tmpfs /dev/shm",
    ),
    Row(
        "B01-no-dev-shm",
        {"cam": script({"frame": 20}, size=LARGE), "sink": recorder()},
        delivered(20),
        within="mount -t tmpfs -o ro,size=0 tmpfs /dev/shm",
    ),
    Row(
        "B02-memory-limit-below-the-pools",
        {"cam": script({"frame": 60}, size="4000x4000"), "sink": SINK},
        says("not enough memory for ovpipe-cam", "are needed", "are available", "depth"),
        code=3,
        within=MEMORY,
    ),
    Row(
        "B02-known-before-the-first-frame",
        {
            "cam": {"kind": "synthetic", "count": 9, "size": "4000x4000"},
            "sink": {**SINK, "inputs": "cam"},
            "more": {**SINK, "inputs": {"from": "cam", "depth": 64}},
        },
        says(
            "not enough memory for the frames in flight", "are available", "'cam -> more'", "depth"
        ),
        code=3,
        within=MEMORY,
    ),
    Row(
        "B06-a-slot-kept-for-ever-is-never-overwritten",
        {
            "cam": script({"frame": 200}),
            "keeps": {"kind": T + "ScriptedTransform", "how": "keep", "at": 3},
            "sink": recorder(),
        },
        delivered(200, 200),
    ),
    Row(
        "B09-larger-and-smaller-in-mid-stream",
        {
            "cam": script(
                {"frame": 30, "size": "64x48"},
                {"frame": 30, "size": "640x480"},
                {"frame": 30, "size": "32x24"},
            ),
            "keeps": {"kind": T + "ScriptedTransform", "how": "keep", "at": 5, "every": 28},
            "sink": recorder(),
        },
        sizes_change,
    ),
    Row(
        "E09-frames-in-knots-that-only-the-garbage-collector-unties",
        {"cam": script({"frame": 60}), "knots": {"kind": S + "Knots"}, "sink": recorder()},
        delivered(60, 60),
    ),
    Row(
        "C01-live-source-slow-consumer",
        {
            "cam": script({"frame": 100}, fps=100, live=True),
            "slow": recorder(pause_s=0.15, inputs={"from": "cam", "depth": 4, "max_age": "100ms"}),
        },
        live_and_slow,
    ),
    Row(
        "C02-file-source-slow-consumer",
        {"cam": script({"frame": 60}), "slow": recorder(pause_s=0.01)},
        delivered(60),
    ),
    Row("C06-an-empty-source", {"cam": script("end"), "sink": recorder()}, empty),
    Row(
        "C06-an-empty-source-behind-a-transform",
        {"cam": script("end"), "mid": {"kind": S + "tag"}, "sink": recorder()},
        empty,
    ),
    Row(
        "C08-the-longest-path-that-fits",
        {"cam": script({"frame": 3}), "sink": recorder()},
        delivered(3),
        environ={"XDG_RUNTIME_DIR": "{long}"},
    ),
    Row(
        "C08-too-long-a-path-falls-back",
        {"cam": script({"frame": 3}), "sink": recorder()},
        delivered(3),
        environ={"XDG_RUNTIME_DIR": "/" + "x" * 120},
    ),
    Row(
        "G07-no-HOME-no-TMPDIR",
        {"cam": script({"frame": 3}), "sink": recorder()},
        delivered(3),
        environ={"HOME": None, "TMPDIR": "/nowhere", "XDG_RUNTIME_DIR": None, "USER": None},
    ),
    Row(
        "G07-umask-000",
        {"cam": script({"frame": 3}), "sink": recorder()},
        delivered(3),
        umask=0,
    ),
    Row(
        "G07-umask-777",
        {"cam": script({"frame": 3}), "sink": SINK},
        delivered(3),
        umask=0o777,
    ),
    Row(
        "G08-stderr-that-is-not-text",
        {"cam": script({"frame": 30}), "loud": {"kind": S + "Shouts"}, "sink": recorder()},
        not_text,
    ),
    Row(
        "G08-a-runtime-folder-that-is-not-text",
        {"cam": script({"frame": 3}), "sink": recorder()},
        delivered(3),
        environ={"XDG_RUNTIME_DIR": "{tmp}/" + BYTES},
    ),
    Row(
        "G08-stdout-that-takes-ASCII-only",
        {"cam": script({"preflight": "é"}), "sink": SINK},
        says("stage 'cam': "),
        code=3,
        environ={"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    ),
]


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id, marks=row.marks) for row in ROWS])
def test_row(ovpipe_run, row, tmp_path, monkeypatch, nothing_left):
    monkeypatch.chdir(tmp_path)
    options = {}
    if row.within:
        folder = tmp_path / "cgroup"
        folder.mkdir()
        (folder / "memory.current").write_text("1000000\n")
        (folder / "memory.max").write_text("40000000\n")
        options["before"] = alone(row.within.format(folder=folder))
    long = str(nothing_left)
    long += "/" + "x" * (107 - len("/ovpipe-0/4194304-ffffffff/w65535") - len(long) - 1)
    for name, value in row.environ.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
            continue
        value = value.replace("{tmp}", str(tmp_path)).replace("{long}", long)
        monkeypatch.setenv(name, value)
        if name == "XDG_RUNTIME_DIR" and len(value) <= 107 and value != "/nowhere":
            os.makedirs(value, exist_ok=True)
    ended = ovpipe_run(row.stages, umask=row.umask, **options)
    assert ended.code == row.code, ended.err
    assert "UnicodeDecodeError" not in ended.err
    ended.balanced()
    seen = tmp_path / "seen"
    row.check(
        ended, [json.loads(x) for x in seen.read_text().splitlines()] if seen.exists() else []
    )


def alone(commands):
    """What stands before a command that is to have mounts of its own."""
    before = ["unshare", "--mount", "sh", "-c", f'{commands} && exec "$@"', "sh"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*before, "true"], capture_output=True).returncode
    ):
        pytest.skip("needs to mount: run it as root")
    return before


JUMPING = """
import datetime, random, time
true = time.time
def jumping():
    return true() + random.choice((-3600, 0, 3600))
time.time, time.time_ns = jumping, lambda: int(jumping() * 1e9)
class datetime_(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(jumping(), tz)
datetime.datetime = datetime_
open("jumped", "a").write("here\\n")
"""
"""A clock of the wall that is an hour off, now this way and now that, each time it is read."""


def test_G01_the_wall_clock_jumps_by_an_hour(ovpipe_run, tmp_path, monkeypatch):
    """In every process of the run. No restart, no drop, no time that is over too soon."""
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(JUMPING)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'clock'}:{os.getcwd()}")
    monkeypatch.chdir(tmp_path)
    source = {"from": "cam", "max_age": "20s", "depth": 64}
    ended = ovpipe_run(
        {
            "cam": script({"frame": 60}, fps=60, live=True),
            "table": {"kind": "sqlite", "inputs": source, "path": "found.db"},
            "sink": recorder(inputs=source),
        }
    ).balanced()
    assert ended.code == 0, ended.err
    assert len((tmp_path / "jumped").read_text().splitlines()) >= 4  # the supervisor, the workers
    assert [row["delivered"] for row in ended.ledger.values()] == [60, 60]
    assert {stage["restarts"] for stage in ended.stages.values()} == {0}
    assert [x for x in ended.err.splitlines() if x.startswith("[ovpipe]")] == []


def test_G08_a_configuration_whose_name_is_not_text(ovpipe_run, tmp_path, monkeypatch):
    folder = tmp_path / BYTES
    folder.mkdir()
    monkeypatch.chdir(folder)
    ovpipe_run.folder = folder
    ended = ovpipe_run({"cam": script({"frame": 3}), "sink": recorder()}).balanced()
    assert ended.code == 0, ended.err
    assert len((folder / "seen").read_text().splitlines()) == 4


def test_C08_no_folder_is_short_enough(monkeypatch, tmp_path):
    """What is tried last is /tmp; so this is looked at alone."""
    from ovpipe.errors import PreflightError
    from ovpipe.supervisor import rundir

    monkeypatch.setattr(rundir, "_MAX_SOCKET_PATH", 20)
    with pytest.raises(
        PreflightError, match=r"too long for the path of a socket .*set XDG_RUNTIME_DIR"
    ):
        rundir.base_folder()
