"""The bond of a process of a run with the supervisor that started it.

Law: it never outlives its supervisor. To be called before anything heavy is imported, on the main
thread; ctypes alone is needed for it.
"""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def arm_parent_death(parent: int) -> None:
    """Have the kernel kill this process when the supervisor dies; die if it already has.

    The parent is looked at after the signal is armed, since it may have died in between.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
