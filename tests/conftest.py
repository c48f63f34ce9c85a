"""For all tests: importing openvino starts no telemetry process, whoever runs them."""

import os

os.environ.setdefault("CI", "true")

pytest_plugins = ["ovpipe.testing.plugin"]
