"""The three standard descriptors of a process of ours, which whoever started it may have closed.

Law: afterwards 0, 1 and 2 are open. Else the next socket, pool or file that is opened becomes
standard output, and what somebody prints is written into it.
"""

from __future__ import annotations

import os
import sys


def hold_standard() -> None:
    """Have what is closed of stdin, stdout and stderr be /dev/null."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - for good
