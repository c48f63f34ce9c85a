"""The child process that imports a user's own kinds and says what they are.

`python -P -m ovpipe.loader.describe FOLDER SECONDS`: questions as one JSON list on stdin,
answers as one JSON line each on stdout, in order. Law: it ends by itself after SECONDS, with a
traceback of where it was, whoever asked and whether or not that one still lives; whatever the
modules print goes to stderr.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from dataclasses import asdict

from ovpipe.loader.kinds import Question, answer


def main(folder: str, seconds: float) -> None:
    """Answer all questions, then end without waiting for threads that a module has started."""
    faulthandler.dump_traceback_later(seconds, exit=True)
    sys.path.insert(0, folder)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for asked in json.load(sys.stdin):
        told = answer(Question(asked["kind"], tuple(asked["options"]), asked.get("card", False)))
        print(json.dumps(asdict(told)), file=out, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
