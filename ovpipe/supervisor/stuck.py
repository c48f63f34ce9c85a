"""What does not get on: hung stages are ended, stalled edges named.

Law: a process is condemned once. It is asked where it is (its stacks, to its standard error)
before it is killed, unless it does not know that signal yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ovpipe.supervisor.accountant import Accountant
from ovpipe.supervisor.crew import Crew
from ovpipe.supervisor.post import Post
from ovpipe.supervisor.watch import HangWatch, Reminder

STACKS_S = 1.0
"""How long a worker that hangs may take to print its stacks."""


class Stuck:
    """Looks after the crew of a run. `announce` is told what people should know."""

    def __init__(self, crew: Crew, accountant: Accountant, announce: Callable[[str], None]) -> None:
        self._crew = crew
        self._accountant = accountant
        self._announce = announce
        self._hangs = HangWatch({w.index: w.stall_timeout_s for w in crew.plan.workers})
        self._stalls = Reminder()

    def look(self, now_s: float) -> None:
        """End what hangs; name what is stalled."""
        posts = self._crew.posts
        workers = [p for p in posts if p.state == "up" and p.process and not p.process.verdict]
        signs = self._crew.signs(workers)
        for index, seconds in self._hangs.look(now_s, signs).items():
            post, doing = posts[index], signs[index][0]
            if post.process is None or post.process.verdict:
                continue  # another of the same process was found before it
            self._announce(
                f"stage '{post.plan.name}' hangs: no progress for {seconds:g} s while {doing}; "
                f"if a frame may take longer, raise `run: {{stall_timeout: ...}}`"
            )
            self.condemn(post, f"made no progress for {seconds:g} s", hung=True)
        for post in workers:
            blocked = self._accountant.blocked(post.plan.index)
            if blocked is not None and self._stalls.due(now_s, *blocked):
                self._announce(self._crew.describe_stall(*blocked))

    def condemn(self, post: Post, verdict: str, *, hung: bool = False) -> None:
        """End the process of a stage that does not get on."""
        worker = post.process
        assert worker is not None
        worker.verdict, worker.hung, worker.accused = verdict, hung, post.plan.index
        worker.kill_at_s = time.monotonic()
        if self._accountant.doing(post.plan.index) != "starting":  # it knows the signal
            worker.kill_at_s += STACKS_S
            worker.print_stacks()
