"""`python -P -m ovpipe.web FD PARENT NAME`: started by the supervisor, by exec.

FD is a socket that listens, PARENT the supervisor's process id, NAME the run's, there for lists of
processes only. What is to be shown comes on stdin, as JSON; the token is in it and nowhere else.

Law: it never outlives its supervisor, and gives way to the stages where processors are few.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
from typing import Any

from ovpipe.worker.parent import arm_parent_death

_NICE = 10


async def _serve(listening: socket.socket, told: dict[str, Any]) -> None:
    import uvicorn

    from ovpipe.web.page import page
    from ovpipe.web.serving import config

    watch, app = page(told)
    server = uvicorn.Server(config(app))
    watching = asyncio.create_task(watch.watch())
    await server.serve(sockets=[listening])
    watching.cancel()


if __name__ == "__main__":
    arm_parent_death(int(sys.argv[2]))
    os.nice(_NICE)
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    asyncio.run(_serve(socket.socket(fileno=int(sys.argv[1])), json.load(sys.stdin)))
