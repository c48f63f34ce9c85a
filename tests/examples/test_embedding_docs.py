"""The snippets of docs/embedding.md run as they stand, and print what they should."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SNIPPETS = re.findall(r"```python\n(.*?)```", Path("docs/embedding.md").read_text(), re.S)
PRINTED = [
    "".join(f"cam {i} 640\n" for i in range(20)),
    f"{[*range(10)]}\n",
    f"{[*range(8)]}\n",
]


@pytest.mark.parametrize(("body", "printed"), [*zip(SNIPPETS, PRINTED, strict=True)], ids=range(3))
def test_embedding(body, printed):
    ended = subprocess.run(
        [sys.executable, "-c", body], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stdout == printed, ended.stderr
