"""What holds for every test with real processes: nothing is left behind."""

import json
import os
import subprocess
import sys

import pytest
import yaml

import ovpipe
from tests.support.placement import inlined
from tests.support.processes import wait_for

S = "tests.support.stages:"
T = "ovpipe.testing:"


@pytest.fixture(autouse=True)
def nothing_left(leak_check, monkeypatch):
    """No process, descriptor, shared memory or run folder outlives the test."""
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    return leak_check


both = pytest.mark.parametrize("ovpipe_run", ["process", "inline"], indirect=True)
"""For tests of what holds wherever stages live: each in a process, and as few as there can be."""

everywhere = pytest.mark.parametrize("ovpipe_run", ["process", "inline", "threads"], indirect=True)
"""And all of them on threads of this process."""

apart = pytest.mark.parametrize("ovpipe_run", ["process", "threads"], indirect=True)
"""For tests in which a frame waits for its receiver: in front of a guest none does."""


class Runs:
    """`ovpipe run` as a process, on a graph given as a dict."""

    def __init__(self, folder, inline=False):
        self.folder = folder
        self.inline = inline
        self.started = []

    def config(self, stages):
        if self.inline:
            stages = inlined(stages)
        path = self.folder / f"config-{len(self.started)}.yaml"
        path.write_text(yaml.safe_dump({"version": 1, "stages": stages}, sort_keys=False))
        return path

    def start(self, stages, *arguments, before=(), **popen):
        """`before`: what stands in front of the command (`unshare ...`)."""
        command = [
            *before,
            sys.executable,
            "-m",
            "ovpipe",
            "run",
            str(self.config(stages)),
            "--json",
        ]
        log = self.folder / f"stderr-{len(self.started)}"
        with open(log, "w") as stderr:
            process = subprocess.Popen(
                [*command, *arguments], stdout=subprocess.PIPE, stderr=stderr, text=True, **popen
            )
        process.log = log
        self.started.append(process)
        return process

    def until(self, process, text):
        """Wait until `text` has been written to the run's stderr."""
        wait_for(lambda: text in said(process) or process.poll() is not None, f"{text!r} on stderr")
        assert text in said(process)

    def finish(self, process, timeout_s=60):
        out, _ = process.communicate(timeout=timeout_s)
        return Ended(process.returncode, out, said(process))

    def __call__(self, stages, *arguments, **options):
        return self.finish(self.start(stages, *arguments, **options))


class RunsHere(Runs):
    """The same runs, on threads of this process; none can be started and left to itself."""

    def __call__(self, stages):
        with ovpipe.Pipeline.from_yaml(self.config(stages)) as pipeline:
            error = None
            try:
                pipeline.run(placement="inline")
            except ovpipe.OvpipeError as raised:
                error = raised
        code = 0 if error is None else error.exit_code
        return Ended(code, json.dumps({"ledger": pipeline.ledger}), f"error: {error}")


def said(process):
    return process.log.read_text(errors="backslashreplace")


class Ended:
    """How a run ended. `ledger`: rows by (source, target)."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err
        try:
            self.summary = json.loads(out.splitlines()[-1])
        except (IndexError, ValueError):
            self.summary = None

    @property
    def stages(self):
        return {stage["name"]: stage for stage in self.summary["stages"]}

    @property
    def ledger(self):
        assert self.summary is not None, self.err
        return {(row["source"], row["target"]): row for row in self.summary["ledger"]}

    def balanced(self):
        for row in self.ledger.values():
            ended = row["delivered"] + sum(row["dropped"].values()) + sum(row["failed"].values())
            assert row["claimed"] == ended + row["in_flight"], row
            assert row["in_flight"] == 0, row
        return self


@pytest.fixture
def ovpipe_run(request, tmp_path, nothing_left):
    where = getattr(request, "param", "process")
    runs = RunsHere(tmp_path) if where == "threads" else Runs(tmp_path, where == "inline")
    yield runs
    for process in runs.started:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
