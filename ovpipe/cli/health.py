"""The checks of `ovpipe doctor`: what each looks at, what it makes of it, what is to be done.

Law: a check gives its findings or raises; whoever calls it bounds the time. None changes anything.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata, util
from itertools import islice
from pathlib import Path
from typing import Literal

from ovpipe.cli import probe
from ovpipe.cli.host import Host, group_of, may_use
from ovpipe.errors import PreflightError
from ovpipe.graph import Graph
from ovpipe.stages.paths import cache_folder
from ovpipe.supervisor.preflight import open_files_needed
from ovpipe.supervisor.rundir import base_folder

Level = Literal["ok", "warn", "bad"]
_MIB, _GIB = 2**20, 2**30
_LITTLE_MEMORY = 512 * _MIB
_LITTLE_DISK = 200 * _MIB
_MOST_FILES = 20_000
_THREADS_PER_WORKER = 24
_EXTRAS = {  # module -> (extra, distribution, what for)
    "av": ("video", "av", "video files, cameras and streams"),
    "cv2": ("draw", "opencv-python-headless", "drawing boxes, writing pictures"),
    "starlette": ("web", "starlette", "the page of a run"),
    "uvicorn": ("web", "uvicorn", "the page of a run"),
    "simplejpeg": ("web", "simplejpeg", "pictures on the page"),
    "rich": ("standard", "rich", "the live table on a terminal"),
    "paho": ("mqtt", "paho-mqtt", "sending to MQTT"),
    "confluent_kafka": ("kafka", "confluent-kafka", "sending to Kafka"),
    "redis": ("redis", "redis", "sending to Redis"),
    "supervision": ("annotate", "supervision", "to_supervision() and from_supervision()"),
}


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `do`: what is to be done, "" where there is nothing."""

    level: Level
    what: str
    do: str = ""


Findings = Iterator[Finding]


def system(host: Host, _: Graph | None) -> Findings:
    """The platform, and what of the kernel is used."""
    told = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    if not sys.platform.startswith("linux"):
        yield Finding("bad", told, "ovpipe runs on Linux; use a container or a virtual machine")
        return
    lacking = [n for n in ("memfd_create", "pidfd_open") if not hasattr(os, n)]
    if lacking:
        yield Finding("bad", f"{told}: no {', '.join(lacking)}", "use Linux 5.4 or newer")
    else:
        yield Finding("ok", told)


def processors(host: Host, _: Graph | None) -> Findings:
    """Cores, which of them are ours, how fast they are let run."""
    cores, ours = os.cpu_count() or 1, len(os.sched_getaffinity(0))
    quota = host.processor_quota()
    model = next(
        (x.partition(":")[2].strip() for x in (host.text("/proc/cpuinfo") or "").splitlines()
         if x.startswith("model name")), "processor",
    )  # fmt: skip
    yield Finding("ok", f"{model}: {cores} cores, {ours} of them for this process")
    if quota is not None and quota < ours:
        yield Finding(
            "warn", f"a cgroup allows {quota:.3g} processors' worth of time, of {ours} cores",
            f"`config: {{INFERENCE_NUM_THREADS: {max(1, int(quota))}}}` of each infer stage, "
            "or raise the limit (docker run --cpus)",
        )  # fmt: skip
    governor = host.text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor == "powersave":
        yield Finding(
            "warn", "governor 'powersave': cores may stay slow under load that comes in bursts",
            "sudo cpupower frequency-set -g performance",
        )  # fmt: skip
    elif governor:
        yield Finding("ok", f"governor '{governor}'")
    load = os.getloadavg()[0]
    if load > ours:
        yield Finding(
            "warn", f"load {load:.1f} on {ours} cores: others keep this machine busy",
            "end what is not needed, before you measure anything",
        )  # fmt: skip


def clock(host: Host, _: Graph | None) -> Findings:
    """How dear it is to ask for the time, which happens several times a frame."""
    source = host.text("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    if source in ("hpet", "acpi_pm", "pit"):
        yield Finding(
            "warn", f"clock source '{source}' is slow",
            "boot with clocksource=tsc, or have the virtual machine offer kvm-clock",
        )  # fmt: skip
    else:
        yield Finding("ok", f"clock source '{source or 'not told'}'")


def memory(host: Host, _: Graph | None) -> Findings:
    """What there is, and what limits it. Frames lie in memfds: no other limit touches them."""
    all_of_it, available = host.memory_bytes()
    if available is None or all_of_it is None:
        yield Finding("warn", "/proc/meminfo does not say how much memory there is")
    else:
        few = available < _LITTLE_MEMORY
        text = f"{available / _GIB:.1f} of {all_of_it / _GIB:.1f} GiB available"
        yield Finding("warn" if few else "ok", text, "free some, or use smaller frames" * few)
    limit, used = host.memory_limit()
    if limit is not None:
        left = limit - (used or 0)
        few = left < _LITTLE_MEMORY
        yield Finding(
            "warn" if few else "ok",
            f"a cgroup limits memory to {limit / _GIB:.1f} GiB, {left / _GIB:.1f} of it left",
            "raise it (docker run --memory), or use smaller frames and depths" * few,
        )
    soft, _hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        yield Finding(
            "warn", f"address space limited to {soft / _GIB:.1f} GiB", "ulimit -v unlimited"
        )
    locked, _hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    told = "unlimited" if locked == resource.RLIM_INFINITY else f"{locked // 1024} KiB"
    yield Finding("ok", f"limit of locked memory {told}: not used")
    with suppress(OSError):
        size = shutil.disk_usage(host.root / "dev/shm").total
        yield Finding("ok", f"/dev/shm of {size / _MIB:.0f} MiB: not used, frames lie in memfds")


def files(host: Host, graph: Graph | None) -> Findings:
    """Descriptors, processes and threads, against what the configuration needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    workers = 1 if graph is None else sum(len(stage.workers) for stage in graph.stages)
    need = open_files_needed(workers)
    whose = "" if graph is None else f", {need} needed for {workers} workers"
    if hard != resource.RLIM_INFINITY and hard < need:
        yield Finding(
            "bad", f"open files: at most {hard}{whose}",
            f"raise it to {need}: ulimit -n, LimitNOFILE=, docker run --ulimit nofile=",
        )  # fmt: skip
    else:
        most = "any number" if hard == resource.RLIM_INFINITY else str(hard)
        yield Finding("ok", f"open files: {soft}, can be raised to {most}{whose}")
    threads = host.process_limit()
    if threads is not None and threads < workers * _THREADS_PER_WORKER:
        yield Finding(
            "warn", f"a cgroup allows {threads} more processes and threads, for {workers} workers",
            "raise it (docker run --pids-limit, TasksMax of the service)",
        )  # fmt: skip


def run_folder(host: Host, _: Graph | None) -> Findings:
    """Where the sockets of runs are."""
    try:
        base = base_folder()
    except PreflightError as error:
        yield Finding("bad", str(error), "export XDG_RUNTIME_DIR=/some/short/folder/of/yours")
        return
    free = shutil.disk_usage(base).free
    if free < _MIB:
        yield Finding("bad", f"{base}: full", "free some space there, or set XDG_RUNTIME_DIR")
    else:
        yield Finding("ok", f"run directory {base}")


def caches(host: Host, _: Graph | None) -> Findings:
    """Compiled models."""
    try:
        folder = cache_folder("")
    except RuntimeError:
        yield Finding("warn", "no home folder, so no cache of models", "set HOME or XDG_CACHE_HOME")
        return
    there = next(p for p in (folder, *folder.parents) if p.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        yield Finding(
            "warn", f"{folder}: cannot be written, so each start compiles its models anew",
            f"sudo chown -R $USER {there}, or `cache: FOLDER` of the infer stages",
        )  # fmt: skip
        return
    size = 0
    for path in islice(folder.rglob("*"), _MOST_FILES):
        with suppress(OSError):
            size += path.lstat().st_size
    free = shutil.disk_usage(there).free
    few = free < _LITTLE_DISK
    text = f"compiled models {folder}: {size / _MIB:.0f} MiB, {free / _GIB:.1f} GiB free"
    yield Finding("warn" if few else "ok", text, "free some space there" * few)


def openvino(host: Host, graph: Graph | None) -> Findings:
    """The devices that models can run on, and drivers that seem to be missing."""
    said = probe.ask("openvino")
    if "error" in said:
        do = "pip install --force-reinstall openvino" if said.get("missing") else (
            "look at its driver: `ovpipe devices` shows the same; "
            "device: CPU works without those of others"
        )  # fmt: skip
        yield Finding("bad", f"OpenVINO {said['error']}", do)
        return
    yield Finding("ok", f"OpenVINO {said['version']}")
    for name, properties in said["devices"].items():
        driver = properties.get("NPU_DRIVER_VERSION")
        more = f", driver {driver}" if driver else ""
        yield Finding("ok", f"{name}: {properties.get('FULL_DEVICE_NAME', 'no name')}{more}")
    kinds = {name.partition(".")[0] for name in said["devices"]}
    for pattern, kind, package in (
        ("/dev/dri/renderD*", "GPU", "intel-opencl-icd (or level-zero)"),
        ("/dev/accel/accel*", "NPU", "the NPU driver (intel-driver-compiler-npu, level-zero)"),
    ):
        for node in host.entries(pattern):
            if not may_use(node):
                yield Finding(
                    "warn", f"{node} may not be used by you, so {kind} is not there",
                    f"sudo usermod -aG {group_of(node)} $USER, and log in again "
                    f"(docker run --device {node} --group-add ...)",
                )  # fmt: skip
            elif kind not in kinds:
                why = f"{node} is there, but OpenVINO sees no {kind}"
                yield Finding("warn", why, f"install {package}, if it is Intel's")
    for stage in graph.stages if graph is not None else ():
        if stage.kind == "infer":
            yield from _asked_for(stage.name, dict(stage.workers[0].options), kinds)


def _asked_for(stage: str, options: dict[str, object], kinds: set[str]) -> Findings:
    asked = [str(options.get("device", "CPU")), *_words(options.get("fallback"))]
    if not any(_there(device, kinds) for device in asked):
        yield Finding(
            "bad", f"stage '{stage}': device '{asked[0]}' is not there",
            f"device: AUTO, or one of {', '.join(sorted(kinds))}, or name a `fallback`",
        )  # fmt: skip
    model = str(options.get("model", ""))
    if model and not Path(model).expanduser().exists():
        what = f"stage '{stage}': model '{model}' is not there"
        yield Finding("bad", what, "paths are relative to the folder that you run in: check it")


def _there(device: str, kinds: set[str]) -> bool:
    """AUTO takes what there is of its list; HETERO needs all of them."""
    mode, _, listed = device.partition(":")
    there = [part.strip().lstrip("-").partition(".")[0] in kinds for part in listed.split(",")]
    if not listed:
        return mode.partition(".")[0] in kinds | {"AUTO"}
    return any(there) if mode in ("AUTO", "MULTI") else all(there)


def _words(value: object) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list | tuple) else []


def video(host: Host, graph: Graph | None) -> Findings:
    """What can be decoded and encoded."""
    needed = graph is not None and any(s.kind in ("video", "video-writer") for s in graph.stages)
    said = probe.ask("video")
    if "error" in said:
        level: Level = "bad" if needed or not said.get("missing") else "warn"
        yield Finding(level, f"PyAV {said['error']}", "pip install 'ovpipe[video]'")
        return
    yield Finding("ok", f"PyAV {said['version']}, libavcodec {said['libavcodec']}")
    for what in ("decoders", "encoders"):
        have = [name for name, there in said[what].items() if there]
        yield Finding("ok", f"{what}: {', '.join(have) or 'none of the usual ones'}")
    for name, kind in (("h264", "decoders"), ("hevc", "decoders"), ("libx264", "encoders")):
        if not said[kind][name]:
            yield Finding(
                "warn", f"no {name}", "install PyAV's own wheel: pip install --force-reinstall av"
            )
    hardware = ", ".join(said["hardware"]) or "none"
    yield Finding("ok", f"hardware decoders that this FFmpeg knows: {hardware}")


def packages(host: Host, graph: Graph | None) -> Findings:
    """Optional packages."""
    for module, (extra, distribution, use) in _EXTRAS.items():
        with suppress(ValueError):  # half of it is there
            if util.find_spec(module) is not None:
                try:
                    version = metadata.version(distribution)
                except metadata.PackageNotFoundError:
                    version = "of another name"
                yield Finding("ok", f"{module} {version}: {use}")
                continue
        yield Finding("ok", f"{module} is not installed: {use}", f"pip install 'ovpipe[{extra}]'")


def cameras(host: Host, _: Graph | None) -> Findings:
    """Cameras of this machine."""
    nodes = host.entries("/dev/video*")
    for node in nodes:
        name = host.text(f"/sys/class/video4linux/{node.name}/name") or "no name"
        if host.number(f"/sys/class/video4linux/{node.name}/index") not in (0, None):
            continue  # not pictures, but what is said of them
        if may_use(node):
            yield Finding("ok", f"{node}: {name}")
        else:
            yield Finding(
                "warn", f"{node}: {name}: may not be used by you",
                f"sudo usermod -aG {group_of(node)} $USER, and log in again "
                f"(docker run --device {node} --group-add {group_of(node)})",
            )  # fmt: skip
    if not nodes:
        yield Finding("ok", "no camera at /dev/video*")
