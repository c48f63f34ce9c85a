"""`python -P -m ovpipe.cli.probe openvino|video`: what a library says, as JSON on stdout.

A process of its own, since drivers that these load may hang or crash.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

TIMEOUT_S = 25.0


def ask(what: str, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """What the child says; {"error": ...} where it cannot say it."""
    command = [sys.executable, "-P", "-m", "ovpipe.cli.probe", what]
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False,
            env={**os.environ, "CI": "true"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"error": f"gave no answer within {timeout_s:g} s"}
    except OSError as error:
        return {"error": f"cannot be asked: {error.strerror}"}
    try:
        said: dict[str, Any] = json.loads(ended.stdout)
        return said
    except ValueError:
        lines = ended.stderr.decode(errors="replace").strip().splitlines()
        how = f"signal {-ended.returncode}" if ended.returncode < 0 else f"exit {ended.returncode}"
        return {"error": f"{lines[-1] if lines else 'no answer'} ({how})"}


def _openvino() -> dict[str, Any]:
    from importlib.metadata import version

    from ovpipe.stages.infer.devices import devices

    return {"version": version("openvino"), "devices": devices()}


def _video() -> dict[str, Any]:
    import av
    from av.codec.hwaccel import hwdevices_available

    def can(name: str, mode: Any) -> bool:
        try:
            av.codec.Codec(name, mode)
        except (ValueError, av.error.FFmpegError):
            return False
        return True

    decoders = ("h264", "hevc", "av1", "vp9", "mpeg4", "mjpeg")
    encoders = ("libx264", "libx265", "libvpx-vp9", "h264_vaapi", "h264_nvenc", "h264_qsv")
    avcodec = ".".join(map(str, av.library_versions["libavcodec"]))
    return {
        "version": av.__version__,
        "libavcodec": avcodec,
        "decoders": {name: can(name, "r") for name in decoders},
        "encoders": {name: can(name, "w") for name in encoders},
        "hardware": list(hwdevices_available()),
    }


if __name__ == "__main__":
    out = os.dup(1)
    os.dup2(2, 1)  # what a library prints is not our answer
    try:
        said = {"openvino": _openvino, "video": _video}[sys.argv[1]]()
    except ImportError as error:
        said = {"error": f"cannot be imported: {error}", "missing": True}
    except Exception as error:  # noqa: BLE001 - whatever it is, that is the answer
        said = {"error": f"{type(error).__name__}: {error}"}
    os.write(out, json.dumps(said).encode())
    os._exit(0)
