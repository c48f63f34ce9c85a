"""What Ultralytics writes about a model that it exports.

    OpenVINO    `metadata.yaml` in the folder of the .xml (YOLOv5: `<model>.yaml`), block style
    ONNX        metadata_props of the file, which OpenVINO shows as rt_info `framework`;
                each value is the text of a Python literal

Only a few keys are wanted, so this reads those few forms that the exporters write, not YAML: a
worker imports no YAML parser.

Law: nothing in these files can fail or hang a start. What is not a plain file, too long or not
of the known form is no evidence.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ovpipe.stages.infer.facts import Export

MOST_BYTES = 1 << 20
_KEY = re.compile(r"([A-Za-z_]\w*):(?: +(.*))?")
_PAIR = re.compile(r" +(\w+): +(.*)")
_ITEM = re.compile(r" *- +(.*)")


def beside(model: Path) -> Export | None:
    """The export's description in the folder of `model`, None where there is none."""
    for file in (model.with_name("metadata.yaml"), model.with_suffix(".yaml")):
        text = _text(file)
        found = export(read_block(text)) if text else None
        if found is not None:
            return found
    return None


def export(said: Mapping[str, Any]) -> Export | None:
    """From keys and their values: text, lists and mappings of text, or literals of Python."""
    names = _names(_value(said.get("names")))
    if not names or "stride" not in said:
        return None
    args = _value(said.get("args"))
    final = _is_true(said.get("end2end")) or (
        isinstance(args, Mapping) and _is_true(args.get("nms"))
    )
    return Export(str(said.get("task", "")), names, final, _pair(_value(said.get("kpt_shape"))))


def read_block(text: str) -> dict[str, Any]:
    """Block YAML of scalars and of lists or mappings of scalars; all else is left out."""
    found: dict[str, Any] = {}
    key = ""
    for line in text.splitlines():
        if match := _KEY.fullmatch(line):
            key, value = match[1], match[2]
            found[key] = _scalar(value) if value else None
        elif key and (match := _ITEM.fullmatch(line)):
            if found[key] is None:
                found[key] = []
            if isinstance(found[key], list):
                found[key].append(_scalar(match[1]))
        elif key and (match := _PAIR.fullmatch(line)):
            if found[key] is None:
                found[key] = {}
            if isinstance(found[key], dict):
                found[key][match[1]] = _scalar(match[2])
    return found


def _text(file: Path) -> str:
    try:
        if not file.is_file():  # a pipe would never end
            return ""
        with file.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
    except OSError:
        return ""
    return data.decode("utf-8", "replace") if len(data) <= MOST_BYTES else ""


def _scalar(written: str) -> str:
    text = written.strip()
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            return str(json.loads(text))
        except ValueError:
            return text[1:-1]
    return text


def _value(said: Any) -> Any:
    """The literal of Python that a text is, else what it was."""
    if not isinstance(said, str) or len(said) > MOST_BYTES or said[:1] not in ("{", "["):
        return said
    try:
        return ast.literal_eval(said)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _names(said: Any) -> dict[int, str]:
    if isinstance(said, list):
        return {i: str(name) for i, name in enumerate(said)}
    if not isinstance(said, Mapping):
        return {}
    try:
        return {int(i): str(name) for i, name in said.items()}
    except (TypeError, ValueError):
        return {}


def _pair(said: Any) -> tuple[int, int]:
    try:
        first, second = said
        return int(first), int(second)
    except (TypeError, ValueError):
        return 0, 0


def _is_true(said: Any) -> bool:
    return str(said).lower() == "true"
