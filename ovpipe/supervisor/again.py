"""A restart that somebody asks for: no failure, and no part of a stage's restarts.

The process finishes what it has in hand, closes its stage and leaves; what was sent to it and it
has not taken is sent to its successor. One that does not leave in time is killed, and loses what
it had in hand, as in any death.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from ovpipe.errors import ConfigError, OvpipeError
from ovpipe.hint import near
from ovpipe.supervisor.crew import Crew
from ovpipe.supervisor.post import Post

LEAVE_S = 5.0


def posts_of(posts: Sequence[Post], name: str) -> list[Post]:
    """Those of a stage, or the one of a worker. Raises ConfigError where there is none."""
    found = [post for post in posts if name in (post.plan.stage, post.plan.name)]
    if found:
        return found
    names = [*dict.fromkeys(n for post in posts for n in (post.plan.stage, post.plan.name))]
    raise ConfigError(f"no stage '{name}'; {near(name, names)}")


def ask_to_leave(crew: Crew, name: str) -> None:
    """Have the processes of a stage leave, with all stages that live in them.

    Raises ConfigError, or OvpipeError where none can.
    """
    found = posts_of(crew.posts, name)
    if any(post.plan.external for post in found):
        raise OvpipeError(f"stage '{name}' lives in an application, which starts it by itself")
    if not all(map(crew.returns, found)):
        raise OvpipeError(
            f"stage '{name}', or one in its process, has `run: {{restart: never}}`: "
            f"nothing is kept for a successor"
        )
    here = [post for post in found if post.state in ("starting", "up", "away")]
    if not here:
        raise OvpipeError(f"stage '{name}' has ended")
    now = time.monotonic()
    for post in here:
        worker = post.process
        if post.state == "away":
            crew.together(post)[0].due_s = now
        elif worker is not None and not worker.asked:
            worker.asked = True
            worker.kill_at_s = min(worker.kill_at_s, now + LEAVE_S)
            if post.state == "up":
                worker.members[0].say("leave")
            else:
                worker.kill()
