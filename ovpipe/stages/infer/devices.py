"""Devices: what OpenVINO finds on this machine, and what of each matters to a pipeline."""

from __future__ import annotations

from typing import Any

from ovpipe.stages.infer.model import the_core

_PROPERTIES = (
    "FULL_DEVICE_NAME", "DEVICE_TYPE", "DEVICE_ARCHITECTURE", "OPTIMIZATION_CAPABILITIES",
    "RANGE_FOR_STREAMS", "RANGE_FOR_ASYNC_INFER_REQUESTS", "INFERENCE_PRECISION_HINT",
    "GPU_DEVICE_TOTAL_MEM_SIZE", "NPU_DRIVER_VERSION",
)  # fmt: skip


def devices() -> dict[str, dict[str, Any]]:
    """Each device by the name that `device:` takes -> its properties, as plain values.

    A property that a device does not have, or refuses to tell, is not there.
    """
    core = the_core()
    found: dict[str, dict[str, Any]] = {}
    for device in core.available_devices:
        found[device] = {}
        for name in _PROPERTIES:
            try:
                found[device][name] = _plain(core.get_property(device, name))
            except RuntimeError:
                continue
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple | set):
        return [_plain(v) for v in value]
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    return getattr(value, "get_type_name", lambda: str(value))()
