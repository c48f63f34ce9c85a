"""What tests of stages and of whole pipelines are made with; see docs/testing.md.

    run_stage                a stage alone, in this process, as its worker would run it
    Script, ScriptedTransform, ScriptedSink, Recorder
                             stages that do what they are told, also the worst
    paint, check             frames that prove whose pixels they carry
    ovpipe.testing.plugin    pytest: the fixture `leak_check`
    ovpipe.testing.chaos     a pipeline whose workers are killed at random
    ovpipe.testing.verify    what its sinks wrote against its ledger

Law: nothing here imports pytest, but for the plugin.
"""

from ovpipe.testing.drive import Result, push, run_stage
from ovpipe.testing.misbehave import misbehave
from ovpipe.testing.paint import Painted, check, paint
from ovpipe.testing.recorder import Recorder
from ovpipe.testing.script import Script, ScriptedSink, ScriptedTransform

__all__ = [
    "Painted",
    "Recorder",
    "Result",
    "Script",
    "ScriptedSink",
    "ScriptedTransform",
    "check",
    "misbehave",
    "paint",
    "push",
    "run_stage",
]
