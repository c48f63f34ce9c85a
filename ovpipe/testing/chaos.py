"""A pipeline whose workers are killed and stopped at random, and what becomes of its frames.

    python -m ovpipe.testing.chaos --minutes 1 --seed 1

    a, b (wait)  -> one -> two -> far       forwarded by reference over two hops
                 -> near                    the same frames to one more reader
    cam (live)   -> view -> late            a slow reader, so that edges drop

In about every second run only one file is read, nothing is replicated, and some of the stages live
in the process of the one that they read.

Runs it with `ovpipe run` as a child, sends SIGKILL, or SIGSTOP and SIGCONT, to random workers at
random moments, and has another process (`ovpipe.testing.verify`) compare what the sinks wrote
with the ledger. Where a kill ends a run, the next one begins with the next seed.

Law: the same seed makes the same decisions (not the same moments of the machine). Exit code 0
where all runs add up and leave nothing behind, else 1, and the folder of each bad run is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ovpipe.testing.leaks import command_line, descendants, holdings

RUN_S = 30.0
"""How long one run lasts that no kill ends."""
END_S = 30.0
"""How long it may take to end, when asked to; then it hangs, and that is a difference."""
CALM_S = 20.0
OUTCOMES = (0, 4, 5)
"""Exit codes that a run may have: ended well, a stage gave up, the drain took too long."""


@dataclass
class Tally:
    """What was done and seen, over all runs."""

    runs: int = 0
    kills: int = 0
    stops: int = 0
    frames: int = 0
    missing: int = 0
    codes: dict[int, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)


INLINE = ("far", "late", "near", "one", "two", "view")
"""Stages that may live in their neighbour's process, where that is one only."""


def graph(folder: Path, rng: random.Random) -> dict[str, Any]:
    """The pipeline, as YAML has it (JSON is YAML); sinks write below `folder`.

    By chance some stages live with the one that they read; then nothing is replicated, and there
    is one stream where there are two.
    """
    kind = "ovpipe.testing:{}".format
    script = {"kind": kind("Script"), "items": ["frame"], "repeat": True, "size": "320x240"}
    passes = {"kind": kind("ScriptedTransform")}

    def sink(name: str, **options: Any) -> dict[str, Any]:
        return {"kind": kind("Recorder"), "path": str(folder / f"{name}.jsonl"), **options}

    stages: dict[str, dict[str, Any]] = {
        "file": {**script, "for_each": {"a": {"fps": 400.0}, "b": {}}},
        "cam": {**script, "live": True, "fps": 200.0},
        "one": {**passes, "inputs": "file"},
        "two": {**passes, "inputs": "one"},
        "far": sink("far", inputs="two"),
        "near": sink("near", inputs="file"),
        "view": {**passes, "inputs": "cam"},
        "late": sink("late", inputs="view", pause_s=0.008),
    }
    for name, stage in stages.items():
        # Few restarts, and those who are killed most often would be given up.
        stage["run"] = {"max_restarts": 100_000, "replicas": 2 if name in ("two", "view") else 1}
    if rng.random() < 0.5:
        stages["file"] = {**script, "run": stages["file"]["run"]}
        for name in INLINE:
            placement = rng.choice(["inline", "inline", "process"])
            stages[name]["run"] |= {"placement": placement, "replicas": 1}
    return {"version": 1, "name": "chaos", "stages": stages}


def processes(config: dict[str, Any]) -> int:
    """How many worker processes a graph has."""
    count = 0
    for stage in config["stages"].values():
        run = stage["run"]
        if run.get("placement") != "inline":
            count += len(stage.get("for_each", ())) or run["replicas"]
    return count


def workers(pid: int) -> list[int]:
    """The living workers below a process, oldest first."""
    return sorted(p for p in descendants(pid) if "ovpipe.worker" in command_line(p).split())


def disturb(process: subprocess.Popen[str], rng: random.Random, until_s: float) -> Iterator[str]:
    """Kill and stop workers until that time, or the end of the process; yields what was done."""
    while process.poll() is None and time.monotonic() < until_s:
        pause_s = min(rng.expovariate(1 / 0.4), max(0.0, until_s - time.monotonic()))
        whom, kill, stop_s = rng.random(), rng.random() < 0.6, rng.uniform(0.1, 2)
        try:
            process.wait(pause_s)
            return
        except subprocess.TimeoutExpired:
            pass
        alive = workers(process.pid)
        if not alive or time.monotonic() >= until_s:
            continue
        pid = alive[int(whom * len(alive))]
        try:
            os.kill(pid, signal.SIGKILL if kill else signal.SIGSTOP)
            if not kill:
                time.sleep(stop_s)
                os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:  # it ended by itself meanwhile
            continue
        yield "kill" if kill else "stop"


def run_once(folder: Path, seed: int, until_s: float, tally: Tally) -> list[str]:
    """One run, disturbed, ended and judged; what is wrong with it."""
    config, rng = folder / "chaos.json", random.Random(seed)
    stages = graph(folder, rng)
    config.write_text(json.dumps(stages))
    before = holdings(folder)
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(folder)}
    command = [sys.executable, "-m", "ovpipe", "run", str(config), "--json"]
    with open(folder / "summary.json", "w") as out, open(folder / "stderr", "w") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environ, text=True)
    problems = []
    calm = False
    try:
        if rng.random() < 0.75:  # else the start itself is disturbed
            _flowing(process, folder)
        for done in disturb(process, rng, min(until_s, time.monotonic() + RUN_S)):
            tally.kills += done == "kill"
            tally.stops += done == "stop"
        calm = _calm(process, processes(stages))
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        problems.append(f"did not end within {END_S:g} s")
    finally:
        if process.poll() is None:
            process.kill()
        code = process.wait()
    tally.runs += 1
    tally.codes[code] = tally.codes.get(code, 0) + 1
    if code not in OUTCOMES:
        problems.append(f"exit code {code}")
    return problems + _judged(folder, calm, tally) + _left(folder, before)


def _flowing(process: subprocess.Popen[str], folder: Path) -> None:
    """Wait until frames have come to every sink."""
    sinks = [folder / f"{name}.jsonl" for name in ("far", "near", "late")]
    give_up_s = time.monotonic() + CALM_S
    while process.poll() is None and time.monotonic() < give_up_s:
        if all(sink.exists() and sink.stat().st_size for sink in sinks):
            return
        time.sleep(0.05)


def _calm(process: subprocess.Popen[str], count: int) -> bool:
    """Wait until all `count` workers are there and stay for a while, or there is no hope of it.

    Who is away when a run is asked to end is not started again, and its streams do not end. And
    a signal that comes before the run has its handlers is no drain.
    """
    give_up_s = time.monotonic() + CALM_S
    since_s, before = time.monotonic(), [-1]
    while process.poll() is None and time.monotonic() < give_up_s:
        now = [pid for pid in workers(process.pid) if _joined(pid)]
        if now != before:
            since_s, before = time.monotonic(), now
        if len(now) == count and time.monotonic() > since_s + 1:
            return True
        time.sleep(0.05)
    return False


def _joined(pid: int) -> bool:
    try:
        return "/memfd:ovpipe-ledger" in Path(f"/proc/{pid}/maps").read_text(errors="replace")
    except OSError:
        return False


def _judged(folder: Path, calm: bool, tally: Tally) -> list[str]:
    command = [sys.executable, "-m", "ovpipe.testing.verify", str(folder)]
    if not calm:
        command.append("--hasty")
    judged = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        verdict = json.loads(judged.stdout)
    except ValueError:
        return [f"cannot be judged: {(judged.stderr.strip().splitlines() or ['no output'])[-1]}"]
    tally.frames += verdict["frames"]
    tally.missing += verdict["missing"]
    return list(verdict["differences"])


def _left(folder: Path, before: Any) -> list[str]:
    deadline = time.monotonic() + 5
    while left := holdings(folder).beyond(before):
        if time.monotonic() > deadline:
            return [f"left behind: {what}" for what in left]
        time.sleep(0.05)
    return []


def chaos(minutes: float, seed: int) -> Tally:
    """Run after run until the time is over, each with the next seed."""
    tally = Tally()
    until_s = time.monotonic() + 60 * minutes
    while tally.runs == 0 or time.monotonic() < until_s:
        folder = Path(tempfile.mkdtemp(prefix="ovpipe-chaos-"))
        this = seed + tally.runs
        problems = run_once(folder, this, until_s, tally)
        if problems:
            tally.differences += [f"seed {this} ({folder}): {problem}" for problem in problems]
        else:
            shutil.rmtree(folder)
    return tally


def main(arguments: list[str]) -> int:
    """One summary on stdout; 0 where there is no difference."""
    parser = argparse.ArgumentParser(prog="ovpipe.testing.chaos")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(arguments)
    began = time.monotonic()
    tally = chaos(asked.minutes, asked.seed)
    for difference in tally.differences:
        print(f"difference: {difference}")
    codes = ", ".join(f"{code}: {count}" for code, count in sorted(tally.codes.items()))
    print(
        f"chaos: {time.monotonic() - began:.0f} s, seed {asked.seed}, {tally.runs} runs "
        f"(exit codes {codes}), {tally.kills} kills, {tally.stops} stops, "
        f"{tally.frames} frames written, {tally.missing} missing and explained, "
        f"{len(tally.differences)} differences"
    )
    return 1 if tally.differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
