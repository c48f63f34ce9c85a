"""What an application holds: a Pipeline, and what it reads from it and pushes into it.

    with ovpipe.Pipeline.from_yaml("yard.yaml") as pipeline:
        for frame in pipeline.read("detect"):
            print(frame.seq, len(frame.detections))

pipeline    Pipeline
blueprint   its graph: from YAML, in Python, to YAML
run         the supervisor's process, as the application that started it holds it
tap         the application as a member of the run that takes frames
reader      frames of a stage for a `for`, or an `async for`
callback    frames of a stage for a function
answers     frames of a stage for whoever pushed what they are made of: futures
entrance    all that is pushed into
source      the application as a member of the run that makes frames: kind `app`
stats       how a pipeline is doing

Law: the host's signals, arguments, logging, environment and folder are not touched; all threads
of ours are daemons. A pipeline that fails raises, from whatever call waits for it: StageError with
the stage's own traceback, PreflightError, DrainTimeout, or an ExceptionGroup of several, the first
cause first. Leaving the `with` block leaves no process, descriptor or file; a pipeline that was
forgotten ends when it is collected, or with the application, however that ends.
"""

from ovpipe.pipeline.pipeline import Pipeline
from ovpipe.pipeline.reader import Reader

__all__ = ["Pipeline", "Reader"]
