"""doctor: what it finds on machines that lack things, and that it always answers."""

import copy
import json
import os
import resource
import subprocess
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from ovpipe.cli import doctor, group, health, probe
from ovpipe.cli.host import Host
from ovpipe.graph import resolve
from ovpipe.loader import loads
from ovpipe.stages.registry import BUILT_IN, stage_class
from tests.cli.test_commands import ovpipe

__all__ = ["ovpipe"]
OPENVINO = {"version": "2026.4.1", "devices": {"CPU": {"FULL_DEVICE_NAME": "some CPU"}}}
VIDEO = {"version": "18", "libavcodec": "62", "hardware": [],
         "decoders": {"h264": True, "hevc": True}, "encoders": {"libx264": True}}  # fmt: skip
INFER = (
    "version: 1\nstages:\n  a: {kind: synthetic}\n  b: {kind: infer, model: m.xml, device: GPU}\n"
)


@pytest.fixture(autouse=True)
def probes(monkeypatch):
    """What the children say; a test may change it."""
    said = copy.deepcopy({"openvino": OPENVINO, "video": VIDEO})
    monkeypatch.setattr(probe, "ask", lambda what: said[what])
    return said


def put(root, files):
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return Host(root)


def found(check, where, graph=None):
    return list(getattr(health, check)(where, graph))


def only(findings, level):
    return [f for f in findings if f.level == level]


def test_an_empty_machine_raises_nowhere(tmp_path):
    told = doctor.examine(Host(tmp_path), None)
    assert list(told) == list(doctor.CHECKS)
    assert not any("cannot be looked at" in f.what for each in told.values() for f in each)
    assert told["memory"][0].level == "warn"
    assert all(f.do for each in told.values() for f in each if f.level == "bad")


def test_one_that_hangs_or_fails_keeps_none_from_answering(monkeypatch, tmp_path):
    release = threading.Event()

    def hangs(host, graph):
        yield health.Finding("ok", "so far")
        release.wait(60)

    def fails(host, graph):
        yield health.Finding("ok", "so far")
        raise KeyError("x")

    monkeypatch.setitem(doctor.CHECKS, "clock", hangs)
    monkeypatch.setitem(doctor.CHECKS, "caches", fails)
    told = doctor.examine(Host(tmp_path), None, timeout_s=1.0)
    release.set()
    assert [f.what for f in told["clock"]] == [
        "so far",
        "not answered within 1 s: a disk or a driver hangs",
    ]
    assert told["caches"][1].what == "cannot be looked at: KeyError: 'x'"
    assert told["system"][0].level == "ok"


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/cpu.max": "50000 100000"}, "0.5 processors"),
        ({"proc/self/cgroup": "4:cpu,cpuacct:/x", "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "50000",
          "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000"}, "0.5 processors"),
        ({"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave"}, "powersave"),
    ],
)  # fmt: skip
def test_processors_that_are_held_back(tmp_path, files, says):
    warned = only(found("processors", put(tmp_path, files)), "warn")
    (finding,) = [f for f in warned if not f.what.startswith("load")]
    assert says in finding.what
    assert finding.do


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/memory.max": str(100 << 20), "sys/fs/cgroup/a/memory.current": "4096"},
        {"proc/self/cgroup": "9:memory:/a/b", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": str(100 << 20)},
        {"sys/fs/cgroup/memory.max": str(100 << 20)},
    ],
)  # fmt: skip
def test_memory_that_is_limited(tmp_path, files):
    files["proc/meminfo"] = "MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\n"
    (finding,) = only(found("memory", put(tmp_path, files)), "warn")
    assert "a cgroup limits memory to 0.1 GiB" in finding.what
    assert "--memory" in finding.do


@pytest.mark.parametrize("text", ["max", "", "many", "9223372036854771712"])
def test_no_limit_is_none(tmp_path, text):
    files = {
        "sys/fs/cgroup/memory.max": text,
        "proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\nx\n",
    }
    assert not only(found("memory", put(tmp_path, files)), "warn")


def test_limits_are_held_against_what_the_configuration_needs(tmp_path, monkeypatch):
    many = "".join(f"    s{i}: {{}}\n" for i in range(100))
    text = f"version: 1\nstages:\n  a:\n    kind: synthetic\n    for_each:\n{many}".replace(
        "    s", "      s"
    )
    graph = resolve(loads(text + "  b: {kind: log}\n", folder=tmp_path, environ={}))
    where = put(tmp_path, {"sys/fs/cgroup/pids.max": "500", "sys/fs/cgroup/pids.current": "400"})
    monkeypatch.setattr(resource, "getrlimit", lambda what: (256, 512))
    files, threads = found("files", where, graph)
    assert (files.level, threads.level) == ("bad", "warn")
    assert "at most 512, 872 needed for 101 workers" in files.what
    assert "a cgroup allows 100 more" in threads.what
    assert not only(found("files", Host(tmp_path / "none")), "bad")


def test_a_run_folder_that_cannot_be(tmp_path, monkeypatch):
    monkeypatch.setattr(
        health, "base_folder", lambda: (_ for _ in ()).throw(health.PreflightError("no folder"))
    )
    (finding,) = found("run_folder", Host(tmp_path))
    assert (finding.level, finding.what) == ("bad", "no folder")


def test_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "0 MiB" in found("caches", Host())[0].what
    models = tmp_path / "ovpipe" / "models"
    models.mkdir(parents=True)
    (models / "x.blob").write_bytes(b"x" * (3 << 20))
    assert "3 MiB" in found("caches", Host())[0].what
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert found("caches", Host())[0].level == "warn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(
        Path, "expanduser", lambda self: (_ for _ in ()).throw(RuntimeError("no home"))
    )
    assert "no home" in found("caches", Host())[0].what


def test_devices_and_what_is_asked_of_them(tmp_path, probes, monkeypatch):
    monkeypatch.setattr(health, "may_use", lambda node: node.name != "renderD128")
    where = put(tmp_path, {"dev/dri/renderD128": "", "dev/accel/accel0": ""})
    gpu, npu = only(found("openvino", where), "warn")
    assert "may not be used by you" in gpu.what
    assert "usermod -aG" in gpu.do
    assert "OpenVINO sees no NPU" in npu.what
    graph = resolve(loads(INFER, folder=tmp_path, environ={}))
    device, model = only(found("openvino", Host(tmp_path / "none"), graph), "bad")
    assert device.what == "stage 'b': device 'GPU' is not there"
    assert model.what == "stage 'b': model 'm.xml' is not there"
    probes["openvino"]["devices"]["GPU.0"] = {}
    assert len(only(found("openvino", Host(tmp_path / "none"), graph), "bad")) == 1


@pytest.mark.parametrize(
    ("device", "there"),
    [("AUTO", True), ("CPU", True), ("AUTO:GPU,CPU", True), ("AUTO:-GPU,NPU", False),
     ("HETERO:GPU,CPU", False), ("HETERO:CPU", True), ("GPU.1", False)],
)  # fmt: skip
def test_devices_that_are_put_together(tmp_path, device, there):
    text = INFER.replace("device: GPU", f"device: '{device}'")
    graph = resolve(loads(text, folder=tmp_path, environ={}))
    bad = [f for f in found("openvino", Host(tmp_path), graph) if "device" in f.what]
    assert bool(bad) != there


def test_libraries_that_cannot_be_asked(tmp_path, probes):
    probes["openvino"] = {"error": "gave no answer within 25 s"}
    probes["video"] = {"error": "cannot be imported: No module named 'av'", "missing": True}
    assert only(found("openvino", Host(tmp_path)), "bad")[0].do
    assert found("video", Host(tmp_path))[0].level == "warn"
    text = "version: 1\nstages:\n  a: {kind: video, url: x.mp4}\n  b: {kind: log}\n"
    graph = resolve(loads(text, folder=tmp_path, environ={}))
    (finding,) = found("video", Host(tmp_path), graph)
    assert (finding.level, finding.do) == ("bad", "pip install 'ovpipe[video]'")
    probes["video"] = {**VIDEO, "decoders": {"h264": False, "hevc": True}}
    assert [f.what for f in only(found("video", Host(tmp_path)), "warn")] == ["no h264"]


def test_packages_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(health.util, "find_spec", lambda name: None)
    findings = found("packages", Host(tmp_path))
    assert all("is not installed" in f.what and "pip install 'ovpipe[" in f.do for f in findings)
    monkeypatch.setattr(
        health.util, "find_spec", lambda name: (_ for _ in ()).throw(ValueError(name))
    )
    assert len(found("packages", Host(tmp_path))) == len(findings)


def test_the_extras_are_those_of_the_project():
    import tomllib

    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra, distribution, _ in health._EXTRAS.values():
        assert any(line.startswith(distribution) for line in extras[extra]), (extra, distribution)
    for kind in BUILT_IN:
        needs = {
            module.partition(".")[0]: extra for module, extra in stage_class(kind).requires.items()
        }
        assert needs.items() <= {m: row[0] for m, row in health._EXTRAS.items()}.items(), kind


def test_cameras(tmp_path, monkeypatch):
    monkeypatch.setattr(health, "may_use", lambda node: node.name == "video0")
    sys = "sys/class/video4linux/"
    where = put(tmp_path, {
        "dev/video0": "", "dev/video1": "", "dev/video2": "", f"{sys}video0/name": "good one",
        f"{sys}video1/index": "1", f"{sys}video2/index": "0",
    })  # fmt: skip
    good, other = found("cameras", where)
    assert good.what.endswith("video0: good one")
    assert (other.level, "usermod" in other.do) == ("warn", True)


def test_a_child_that_hangs_crashes_or_is_not_there(monkeypatch):
    monkeypatch.undo()  # the real one
    assert "no answer within 0.01 s" in probe.ask("video", 0.01)["error"]
    assert "KeyError" in probe.ask("nothing of the kind")["error"]
    monkeypatch.setattr(probe.sys, "executable", "/nowhere/python")
    assert "cannot be asked" in probe.ask("video")["error"]
    monkeypatch.setattr(probe.sys, "executable", "/bin/false")
    assert probe.ask("video")["error"] == "no answer (exit 1)"


def test_the_whole_and_its_exit_code(ovpipe, tmp_path):
    ended = ovpipe("doctor", "c.yaml", "--json", config=INFER)
    told = json.loads(ended.stdout)
    assert ended.returncode == 3, ended.stderr
    assert told["ok"] is False
    assert any(
        f["level"] == "ok" and f["what"].startswith("CPU: ") for f in told["areas"]["devices"]
    )
    assert any(f["what"].startswith("PyAV ") for f in told["areas"]["video"])


def test_text_and_a_wrong_configuration(monkeypatch):
    monkeypatch.setattr(
        doctor, "examine", lambda host, graph: {"clock": [health.Finding("warn", "slow", "fix it")]}
    )
    ended = CliRunner().invoke(group, ["doctor"])
    assert (ended.exit_code, ended.stdout) == (0, "clock\n  warn  slow\n        to do: fix it\n")
    ended = CliRunner().invoke(
        group, ["doctor", "-"], input="version: 1\nstages:\n  a: {kind: lgo}\n"
    )
    assert ended.exit_code == 3
    assert "bad   -:3:13: stages.a.kind: unknown kind 'lgo'" in ended.stdout


def test_it_runs_where_nothing_of_openvino_can_be_imported(tmp_path):
    (tmp_path / "openvino.py").write_text("raise ImportError('broken')\n")
    said = subprocess.run(
        [probe.sys.executable, "-P", "-m", "ovpipe.cli.probe", "openvino"],
        capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
    ).stdout  # fmt: skip
    assert json.loads(said) == {"error": "cannot be imported: broken", "missing": True}
