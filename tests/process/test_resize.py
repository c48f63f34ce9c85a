"""Frames that change their size in mid-stream: old views stay, memory is bounded."""

import os
import signal
from pathlib import Path

import pytest

from tests.process.conftest import S, everywhere
from tests.support.processes import wait_for

E = "tests.support.edges:"
WILD = ["640x360", "1280x720", "640x360", "641x361", "33x17", "1x1", "1280x720", "640x360"]


def pools(process):
    """Bytes of each pool of the source, as the supervisor has them open."""
    found = {}
    for fd in Path(f"/proc/{process.pid}/fd").iterdir():
        name = os.readlink(fd)
        if name.startswith("/memfd:ovpipe-src"):
            found[name, os.stat(fd).st_ino] = os.stat(fd).st_size
    return list(found.values())


@everywhere
@pytest.mark.parametrize("middle", [None, S + "tag", E + "copied_image"])
def test_D06_B09_a_stream_that_changes_its_size_goes_on_and_old_views_stay(
    ovpipe_run, middle, tmp_path
):
    sizes = tmp_path / "sizes"
    stages = {"src": {"kind": E + "Resizes", "sizes": WILD, "each": 12}}
    if middle:
        stages["mid"] = {"kind": middle, "inputs": "src"}
    source = {"from": "mid" if middle else "src", "depth": 16}
    stages["sink"] = {"kind": E + "Album", "path": str(sizes), "inputs": source}
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    assert sizes.read_text().split() == WILD
    assert all(row["delivered"] == 12 * len(WILD) for row in ended.ledger.values())


def test_pools_of_sizes_seen_before_are_used_again(ovpipe_run, tmp_path):
    end, sizes = tmp_path / "end", ["640x360", "1280x720"]
    source = {"kind": E + "Resizes", "sizes": sizes, "rounds": 6, "until": str(end)}
    process = ovpipe_run.start(
        {"src": source, "sink": {"kind": E + "Album", "keep": 2, "path": str(tmp_path / "sizes")}}
    )
    ovpipe_run.until(process, "under way")
    assert len(pools(process)) == 2
    end.touch()
    assert ovpipe_run.finish(process).balanced().code == 0


def test_B09_memory_is_bounded_by_the_largest_size_and_not_by_the_number_of_sizes(
    ovpipe_run, tmp_path
):
    end = tmp_path / "end"
    sizes = [f"{32 * i}x{20 * i}" for i in range(1, 21)]
    largest = 640 * 400 * 3
    source = {"kind": E + "Resizes", "sizes": sizes, "each": 3, "rounds": 3, "until": str(end)}
    sink = {"kind": E + "Album", "keep": 0, "path": str(tmp_path / "sizes")}
    process = ovpipe_run.start({"src": source, "sink": sink})
    ovpipe_run.until(process, "under way")
    wait_for(lambda: pools(process), "pools")
    assert sum(pools(process)) <= 8 * 4 * largest
    process.send_signal(signal.SIGINT)
    end.touch()
    assert ovpipe_run.finish(process).balanced().code == 0
