"""A few seconds of chaos; `make chaos` has a minute of it."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("seed", ["1", "2"], ids=["inline", "process"])
def test_a_short_chaos_run_adds_up(nothing_left, seed):
    command = [sys.executable, "-m", "ovpipe.testing.chaos", "--minutes", "0.1", "--seed", seed]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "0 differences" in ended.stdout
