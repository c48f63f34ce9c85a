"""What a hop costs: ovpipe's beside its peers', in one run.

    python benchmarks/hop.py [--only bare,ovpipe] [--size 1080p] [--seconds 2] [--rounds 3]
                             [--json FILE] [--peers FOLDER]

A chain of two or three stages hands on u8 frames of 3 bytes per pixel. The source writes a
stamp of 16 bytes and leaves the rest as it lies (who cannot loan sends prepared frames); what
stands between passes on, by reference where it can; the sink reads one byte of every 4 KiB page.
Each stage is a process, but for `inline`: ovpipe's stages, all in one.

    frames/s   as fast as it goes, counted by the sink after half a second
    CPU us     processor time per frame at that speed, user and system, of all processes of the
               session: stages, supervisor or daemon, helper threads
    p50, p99   from before the source asks for memory to after the sink's touch, at 30 frames/s
    lost       frames that never arrived, at full speed, in per cent of those sent

The sides take turns within each round; medians over the rounds, and p99 over all of them, are
shown, and ratios to `bare`, a loop over pyzmq and shared memory without any framework. Peers
live in an environment of their own, made when first needed. Figures compare within one run; between
machines, and between busy hours of one, they mean little.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chains import CHAINS
from support import Job

HERE = Path(__file__).parent
SIZES = {"640x480": (640, 480), "1080p": (1920, 1080), "4K": (3840, 2160)}
PEERS = {  # what to install, and what to import to see that it is there
    "ezmsg": (["ezmsg", "numpy"], "ezmsg.core"),
    "dora": (["dora-rs", "dora-rs-cli", "numpy", "pyarrow"], "dora, pyarrow"),
    "iceoryx2": (["iceoryx2", "numpy"], "iceoryx2"),
}
PACE = 30.0
Figures = dict[str, Any]


class Unable(Exception):
    """A chain cannot be installed, or does not run; says why."""


def interpreter(name: str, folder: Path) -> str:
    """The Python that `name` runs in, with it installed. Raises Unable.

    What needs pyzmq and numpy only runs where ovpipe does, so that both use the same ones.
    """
    if name not in PEERS:
        return sys.executable
    packages, modules = PEERS[name]
    python = folder / "bin" / "python"
    try:
        if not python.exists():
            print(f"making an environment for the peers in {folder}", flush=True)
            venv.create(folder, with_pip=True)
        check = [str(python), "-c", f"import {modules}"]
        if subprocess.run(check, capture_output=True, check=False).returncode:
            print(f"installing {' '.join(packages)}", flush=True)
            pip = [str(python), "-m", "pip", "install", "-q", *packages]
            subprocess.run(pip, capture_output=True, check=True, text=True, timeout=600)
            subprocess.run(check, capture_output=True, check=True, text=True)
    except subprocess.CalledProcessError as error:
        raise Unable(last_line(error.stderr)) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unable(str(error)) from None
    return str(python)


def last_line(text: str) -> str:
    """The end of what a process said."""
    lines = text.strip().splitlines()
    return lines[-1][-300:] if lines else "no message"


def run(name: str, python: str, size: str, stages: int, fps: float, seconds: float) -> Figures:
    """One chain, once. Raises Unable where it gives no figures."""
    width, height = SIZES[size]
    before = set(os.listdir("/dev/shm"))
    with tempfile.TemporaryDirectory() as folder:
        report, output = Path(folder) / "report.json", Path(folder) / "output"
        job = Job(width, height, stages, fps, seconds, str(report))
        command = [python, str(HERE / "chains.py"), name, json.dumps(asdict(job))]
        environment = {**os.environ, "TMPDIR": folder}
        with output.open("w") as file:
            process = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
            try:
                process.wait(seconds + 30)
            except subprocess.TimeoutExpired:
                pass
            finally:
                end_session(process)
                for left in set(os.listdir("/dev/shm")) - before:
                    if left.startswith("iox2_"):  # of those who were ended in the middle
                        os.unlink(f"/dev/shm/{left}")
        if not report.exists():
            raise Unable(f"no figures: {last_line(output.read_text(errors='replace'))}")
        figures: Figures = json.loads(report.read_text())
        return figures


def end_session(process: subprocess.Popen[bytes]) -> None:
    """End whatever is left of a session that we started."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if os.getsid(int(entry.name)) == process.pid:
                    os.kill(int(entry.name), signal.SIGKILL)
    process.wait()


def summary(full: list[Figures], paced: list[Figures]) -> Figures:
    """Medians over the rounds of one chain."""
    sent = sum(f["lost"] + f["frames"] for f in full)
    every = sorted(us for f in paced for us in f["latencies_us"])
    return {
        "rate": statistics.median(f["rate"] for f in full),
        "cpu_us": statistics.median(f["cpu_us"] for f in full),
        "p50_us": statistics.median(statistics.median(f["latencies_us"]) for f in paced),
        "p99_us": every[int(len(every) * 0.99)],
        "lost": sum(f["lost"] for f in full) / sent,
        "rounds": len(full),
    }


def show(size: str, stages: int, results: dict[str, Figures]) -> None:
    """The rows of one size and length, with ratios to `bare` where it was run."""
    floor = results.get("bare")
    for name, r in results.items():
        row = f"{size:>8} {stages:>6} {name:>9} {r['rate']:>9.0f} {r['cpu_us']:>8.0f}"
        row += f" {r['p50_us']:>8.0f} {r['p99_us']:>8.0f} {r['lost']:>6.1%}"
        if floor is not None:
            row += f" {r['rate'] / floor['rate']:>8.3f} {r['cpu_us'] / floor['cpu_us']:>8.2f}"
            row += f" {r['p50_us'] / floor['p50_us']:>8.2f}"
        print(row)


def measure(
    pythons: dict[str, str], sizes: list[str], chains: list[int], seconds: float, rounds: int
) -> list[tuple[str, int, dict[str, Figures]]]:
    """All rounds of all sides, in turns; who fails once is out, and it is said."""
    table = []
    for size in sizes:
        for stages in chains:
            runs: dict[str, tuple[list[Figures], list[Figures]]] = {n: ([], []) for n in pythons}
            for turn in range(rounds):
                for name in list(runs):
                    began = time.monotonic()
                    try:
                        for kind, fps in enumerate((0.0, PACE)):
                            figures = run(name, pythons[name], size, stages, fps, seconds)
                            runs[name][kind].append(figures)
                    except Unable as error:
                        print(f"SKIPPED: {name} at {size}, {stages} stages: {error}", flush=True)
                        del runs[name]
                        continue
                    print(
                        f"{size} {stages} stages, round {turn + 1}/{rounds}: {name} "
                        f"{runs[name][0][-1]['rate']:.0f} frames/s "
                        f"{runs[name][0][-1]['cpu_us']:.0f} us "
                        f"({time.monotonic() - began:.0f} s)",
                        flush=True,
                    )
            table.append((size, stages, {name: summary(*r) for name, r in runs.items()}))
    return table


def main() -> None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help=f"some of {','.join(CHAINS)}")
    parser.add_argument("--size", help=f"some of {','.join(SIZES)}")
    parser.add_argument("--stages", default="2,3", help="processes in the chain")
    parser.add_argument("--seconds", type=float, default=2.0, help="per measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--peers", type=Path, default=cache / "ovpipe" / "benchmarks")
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else list(CHAINS)
    sizes = arguments.size.split(",") if arguments.size else list(SIZES)
    for given, known in ((names, CHAINS), (sizes, SIZES)):
        if unknown := set(given) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    pythons = {}
    for name in names:
        try:
            pythons[name] = interpreter(name, arguments.peers)
        except Unable as error:
            print(f"SKIPPED: {name} cannot be installed: {error}", flush=True)
    chains = [int(n) for n in arguments.stages.split(",")]
    table = measure(pythons, sizes, chains, arguments.seconds, arguments.rounds)
    print(
        f"\n{'size':>8} {'stages':>6} {'':>9} {'frames/s':>9} {'CPU us':>8} {'p50 us':>8} "
        f"{'p99 us':>8} {'lost':>6}   ratios to bare: frames/s, CPU, p50"
    )
    for size, stages, results in table:
        show(size, stages, results)
    if arguments.json:
        rows = [
            {"size": size, "stages": stages, "name": name, **figures}
            for size, stages, results in table
            for name, figures in results.items()
        ]
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
