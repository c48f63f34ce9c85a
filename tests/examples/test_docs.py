"""The snippets of docs/testing.md and docs/embedding.md run as they stand, and do what is said."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = Path("docs/testing.md").read_text()
SNIPPETS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.S)


def snippets(language):
    return [body for name, body in SNIPPETS if name == language]


@pytest.mark.parametrize("body", snippets("python"), ids=range(len(snippets("python"))))
def test_python(body):
    exec(compile(body, "docs/testing.md", "exec"), {"__name__": "docs"})


def test_yaml(tmp_path):
    (body,) = snippets("yaml")
    (tmp_path / "c.yaml").write_text(body)
    ended = subprocess.run(
        [sys.executable, "-m", "ovpipe", "run", "c.yaml", "--json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    work, _ = json.loads(ended.stdout)["ledger"]
    assert work["failed"] == {"decode_error": 1, "infer_error": 3}
    seen = [json.loads(line) for line in (tmp_path / "seen.jsonl").read_text().splitlines()]
    assert [x["seq"] for x in seen[:-1]] == [i for i in range(26) if i not in (3, 13, 20, 23)]
    assert seen[-1]["end"]


def test_the_words_of_the_script_are_all_there():
    from ovpipe.testing.script import _WORDS

    assert all(f"`{word}" in TEXT for word in _WORDS)


EMBEDDING = re.findall(r"```python\n(.*?)```", Path("docs/embedding.md").read_text(), re.S)
PRINTED = [
    "".join(f"cam {i} 640\n" for i in range(20)),
    f"{[*range(10)]}\n",
    f"{[*range(8)]}\n",
]


@pytest.mark.parametrize(("body", "printed"), [*zip(EMBEDDING, PRINTED, strict=True)], ids=range(3))
def test_embedding(body, printed):
    ended = subprocess.run(
        [sys.executable, "-c", body], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stdout == printed, ended.stderr
