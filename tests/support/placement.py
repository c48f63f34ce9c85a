"""A graph in as few processes as there can be."""

from ovpipe.stages.base import AsyncTransform
from ovpipe.stages.registry import stage_class


def inlined(stages):
    """A copy in which each stage that can live with the one it reads, does."""
    result, above = {}, None
    for name, stage in stages.items():
        run = stage.get("run", {})
        inputs = stage.get("inputs", above)
        inputs = [inputs] if isinstance(inputs, str | dict) else inputs
        cls = stage_class(stage["kind"])
        may = cls.role != "producer" and not issubclass(cls, AsyncTransform)
        if may and run.get("replicas", 1) == 1 and len(inputs) == 1:
            source = stages[inputs[0]["from"] if isinstance(inputs[0], dict) else inputs[0]]
            several = len(source.get("for_each", ())), source.get("run", {}).get("replicas", 1)
            if max(several) <= 1:
                run = {**run, "placement": "inline"}
        result[name] = {**stage, "run": run} if run else stage
        above = name
    return result
