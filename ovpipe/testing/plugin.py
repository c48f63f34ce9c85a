"""pytest: the fixture `leak_check`.

    pytest_plugins = ["ovpipe.testing.plugin"]     # in conftest.py

Law: after a test that uses it nothing is left that was not there before: no child process, no
descriptor, no shared memory, no folder of a run. The runs of the test have a runtime folder of
their own. Whoever takes it first in a test is looked at whole.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovpipe.testing.leaks import holdings

SETTLE_S = 10.0


@pytest.fixture
def leak_check(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Fails the test that leaves something behind; gives the folder where runs have theirs."""
    runtime = tmp_path_factory.mktemp("run")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    before = holdings(runtime)
    yield runtime
    deadline = time.monotonic() + SETTLE_S
    while True:
        gc.collect()
        left = holdings(runtime).beyond(before)
        if not left or time.monotonic() > deadline:
            break
        time.sleep(0.02)
    assert not left, "left behind: " + "; ".join(left)
