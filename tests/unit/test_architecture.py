"""The shape of the house: imports point down, hazardous imports stay in named files."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path("ovpipe")

# From the top; a module may import from lower layers and from its own, siblings are blind.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"bench"},
    {"pipeline", "testing", "web"},
    {"supervisor"},
    {"worker"},
    {"loader", "drawing"},
    {"graph"},
    {"transport", "stages"},
    {"queue"},
    {"frame"},
    {"image", "detections"},
    {"spec", "options"},
    {"errors", "hint", "descriptors", "__init__"},
]
LEVEL = {name: i for i, names in enumerate(LAYERS) for name in names}

FENCED = {
    "yaml": {"loader/tree.py", "loader/writing.py"},
    "pydantic": {"loader/options.py"},
    "zmq": {"transport/inbox.py", "stages/zmq_socket.py"},
    "mmap": {"transport/pool.py"},
    "openvino": {"queue/", "stages/infer/"},
    "click": {"cli/"},
    "rich": {"cli/"},
    "starlette": {"web/"},
    "uvicorn": {"web/"},
    "simplejpeg": {"web/"},
    "paho": {"stages/mqtt.py"},
    "confluent_kafka": {"stages/kafka.py"},
    "redis": {"stages/redis.py"},
    "sqlite3": {
        "stages/sqlite.py",
        "stages/sqlite_errors.py",
        "stages/sqlite_place.py",
        "stages/spool.py",
    },
    "signal": {
        "stages/pipe.py",
        "cli/run.py",
        "worker/__main__.py",
        "worker/parent.py",
        "supervisor/__main__.py",
        "supervisor/process.py",
        "testing/misbehave.py",
        "testing/chaos.py",
    },
    "ctypes": {"transport/token.py", "worker/parent.py", "queue/", "testing/misbehave.py"},
    "pytest": {"testing/plugin.py"},
    "pickle": set(),
    "marshal": set(),
    "multiprocessing": set(),
}

FILES = sorted(ROOT.rglob("*.py"))


def imports(path):
    """(module, line) of every import in a file, also inside of functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield node.module, node.lineno
            if node.module == "ovpipe":
                yield from ((f"ovpipe.{alias.name}", node.lineno) for alias in node.names)


def layer(path):
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else path.stem


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_point_down(path):
    if path == ROOT / "__init__.py":
        return  # names things lazily, for whoever asks
    here = layer(path)
    for module, line in imports(path):
        parts = module.split(".")
        if parts[0] != "ovpipe" or len(parts) == 1 or parts[1] not in LEVEL:
            continue
        there = parts[1]
        assert there == here or LEVEL[there] > LEVEL[here], f"{path}:{line}: {here} imports {there}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_hazardous_imports_stay_in_their_files(path):
    name = path.relative_to(ROOT).as_posix()
    for module, line in imports(path):
        allowed = FENCED.get(module.split(".")[0])
        if allowed is not None:
            assert any(name.startswith(a) for a in allowed), f"{path}:{line} imports {module}"


def test_files_can_be_held_in_the_head():
    long = {str(p): n for p in FILES if (n := len(p.read_text().splitlines())) > 450}
    assert not long


def test_a_worker_imports_nothing_that_it_does_not_need():
    script = (
        "import sys, ovpipe.worker.run, ovpipe.stages.registry\n"
        "print([m for m in ('pydantic', 'yaml', 'click', 'openvino', 'cv2', 'av') if m in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "[]\n"


def test_the_public_names():
    import ovpipe

    assert sorted(ovpipe.__all__) == [
        "ConfigError", "Consumer", "Detection", "Detections", "DrainTimeout", "Frame",
        "FrameError", "Image", "LedgerError", "OvpipeError", "Pipeline", "PipelineClosed",
        "PreflightError", "Producer", "StageError", "Transform", "__version__",
    ]  # fmt: skip
    assert all(getattr(ovpipe, name) is not None for name in ovpipe.__all__)
