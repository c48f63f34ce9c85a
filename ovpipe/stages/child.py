"""Child: how a stage starts a process that never outlives it."""

from __future__ import annotations

import os
import sys

# The kernel ends the command with the thread that started it: no way out leaves it behind.
_LAUNCH = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, 9)\n"
    "if os.getppid() != int(sys.argv[1]): os._exit(1)\n"
    "try: os.execvp(sys.argv[2], sys.argv[2:])\n"
    "except OSError as error: sys.exit(f'{sys.argv[2]}: {error.strerror}')\n"
)


def launched(words: list[str]) -> list[str]:
    """The command to run for a command that is to die with the thread that runs it."""
    return [sys.executable, "-IS", "-c", _LAUNCH, str(os.getpid()), *words]
