"""Is this file a model? What can be said before OpenVINO is asked.

Law: a file that is missing, unreadable or plainly not what its suffix says ends in a
PreflightError that names the path and the reason. OpenVINO's own answer to most of these is
"unable to read the model", after it has tried every format it knows, aloud, on stderr.
"""

from __future__ import annotations

from pathlib import Path

from ovpipe.errors import PreflightError
from ovpipe.stages.paths import expanded

SUFFIXES = (".xml", ".onnx", ".tflite")

# First bytes of a serialised onnx ModelProto: the tag of any of its fields (number and wire
# type, onnx.proto). Serialisers write ir_version, 0x08, first, but need not.
_ONNX_TAGS = frozenset(b"\x08\x12\x1a\x22\x28\x32\x3a\x42\x72\xa2\xca")


def check_model_file(written: str) -> Path:
    """The model's path with `~` expanded; PreflightError where it cannot be a model."""
    if not written:
        raise PreflightError("no model: set `model` to the path of an .xml, .onnx or .tflite file")
    path = expanded(written)
    if path.is_dir():
        raise PreflightError(f"cannot read model '{path}': it is a folder; name the file in it")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise PreflightError(
            f"cannot read model '{path}': its suffix is '{suffix}', not {' or '.join(SUFFIXES)}"
        )
    head = _head(path)
    if not head:
        raise PreflightError(f"cannot read model '{path}': the file is empty")
    if not _LOOKS_RIGHT[suffix](head):
        raise PreflightError(f"cannot read model '{path}': the file is no {_NAMES[suffix]}")
    if suffix == ".xml":
        _check_weights(path)
    return path


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError as error:
        raise PreflightError(f"cannot read model '{path}': {error.strerror}") from None


def _check_weights(path: Path) -> None:
    """An IR without weights is legal (a model without constants), an unreadable .bin is not."""
    weights = path.with_suffix(".bin")
    if not weights.exists():
        return
    try:
        weights.open("rb").close()
    except OSError as error:
        raise PreflightError(
            f"cannot read the weights of '{path}': '{weights}': {error.strerror}"
        ) from None


def _is_ir(head: bytes) -> bool:
    return b"<net" in head


def _is_onnx(head: bytes) -> bool:
    if head[0] == 0x08:  # ir_version, a small number, and then another field
        return len(head) > 2 and head[1] < 0x80 and head[2] in _ONNX_TAGS
    return head[0] in _ONNX_TAGS


def _is_tflite(head: bytes) -> bool:
    return head[4:8] == b"TFL3"


_LOOKS_RIGHT = {".xml": _is_ir, ".onnx": _is_onnx, ".tflite": _is_tflite}
_NAMES = {".xml": "OpenVINO IR (no <net> in it)", ".onnx": "ONNX model", ".tflite": "TFLite model"}
