"""The generated pages of docs/ say what the classes say."""

import re
import subprocess
import sys
from pathlib import Path

from ovpipe.loader.options import model_of
from ovpipe.stages.registry import BUILT_IN, stage_class

SCRIPT = [sys.executable, "scripts/reference.py", "--check"]


def test_the_pages_are_what_the_classes_say():
    ended = subprocess.run(SCRIPT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout


def test_every_option_of_every_kind_is_there():
    parts = re.split(r"^## (.+)$", Path("docs/stages.md").read_text(), flags=re.M)[1:]
    of = dict(zip(parts[::2], parts[1::2], strict=True))
    assert list(of) == list(BUILT_IN)
    for kind, text in of.items():
        for name, field in model_of(stage_class(kind)).model_fields.items():
            assert f"| `{name}` |" in text, f"{kind}: {name}"
            assert field.description, f"{kind}: option '{name}' has no description"
