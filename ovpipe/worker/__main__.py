"""`python -P -m ovpipe.worker FDS PARENT NAME`: started by the supervisor, by exec.

FDS are the ends of its stages' control channels (`5`, or `5,7`), PARENT is the supervisor's process
id, NAME the stages', there for lists of processes only.

Law: a worker never outlives its supervisor (`ovpipe.worker.parent`, before anything heavy is
imported); end-of-file on the control channel is the second layer. SIGUSR1 makes it print the
stacks of all its threads to stderr, from within the signal handler, whatever native code they are
stuck in.
"""

from __future__ import annotations

import faulthandler
import signal
import sys

from ovpipe.worker.parent import arm_parent_death

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    arm_parent_death(int(sys.argv[2]))

    from ovpipe.worker.process import main

    main([int(fd) for fd in sys.argv[1].split(",")])
