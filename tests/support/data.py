"""Where the test data with known answers is: real videos and models, not part of this project.

The folder is named by OVPIPE_TEST_DATA, or lies at ../shared/data beside the repository.
Law: a test that needs a file that is not there is skipped, and says which file and how to
give it; it never passes in silence.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "OVPIPE_TEST_DATA"
REPOSITORY = Path(__file__).resolve().parents[2]


def data_dir() -> Path | None:
    """The folder with the test data, or None where there is none."""
    named = os.environ.get(VARIABLE)
    folder = Path(named).expanduser() if named else REPOSITORY.parent / "shared" / "data"
    return folder if folder.is_dir() else None


def need(relative: str) -> Path:
    """The path of one file or folder of the test data; skips the test where it is missing."""
    folder = data_dir()
    path = folder / relative if folder else None
    if path is None or not path.exists():
        pytest.skip(f"needs the test data file '{relative}': set {VARIABLE} to its folder")
    return path
