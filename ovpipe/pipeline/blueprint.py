"""A blueprint: the stages of a pipeline, from YAML, in Python, or both; and as YAML again.

Law: what `to_yaml` gives, `from_yaml_text` makes the same graph of. A value that a variable gave
is not written, but the variable.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from ovpipe.errors import ConfigError
from ovpipe.graph import Graph, resolve
from ovpipe.loader import spec_of, stage_spec, tree_of, written
from ovpipe.loader.tree import Node, parse
from ovpipe.spec import PipelineSpec, StageSpec


class Blueprint:
    """What is to be run. `from_yaml` reads one; `add` builds one in Python."""

    def __init__(self, name: str = "pipeline", folder: str | Path = ".") -> None:
        self._name = name
        self._folder = Path(folder).absolute()
        self._root: Node | None = None
        self._read: PipelineSpec | None = None
        self._stages: list[StageSpec] = []
        self._lock = threading.RLock()  # of the start, and of what must be said before it

    @classmethod
    def from_yaml(cls, path: str | Path, environ: Mapping[str, str] | None = None) -> Self:
        """Read a configuration; `environ` (default: os.environ) is what `${VAR}` refers to.

        Raises ConfigError with everything that is wrong in it.
        """
        root = tree_of(path)
        return cls._of(root, spec_of(root, path, os.environ if environ is None else environ))

    @classmethod
    def from_yaml_text(
        cls, text: str, folder: str | Path = ".", environ: Mapping[str, str] | None = None
    ) -> Self:
        """The same, from a text; `folder` is where modules of your own are looked up."""
        root = parse(text, "text")
        environ = os.environ if environ is None else environ
        return cls._of(root, spec_of(root, Path(folder) / "pipeline.yaml", environ))

    @classmethod
    def _of(cls, root: Node, spec: PipelineSpec) -> Self:
        resolve(spec)  # what is wrong with the graph is said here, not at the start
        pipeline = cls(spec.name, spec.folder)
        pipeline._root, pipeline._read = root, spec
        return pipeline

    def to_yaml(self) -> str:
        """The configuration of this pipeline: `from_yaml_text` makes the same graph of it.

        What was read from YAML stands as it was written there: `${VAR}` and no value of it.
        """
        return written.write(self._name, self._root, self._stages)

    def add(
        self,
        name: str,
        kind: str,
        options: Mapping[str, Any] | None = None,
        *,
        inputs: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] | None = None,
        for_each: Mapping[str, Mapping[str, Any]] | None = None,
        run: Mapping[str, Any] | None = None,
        description: str = "",
    ) -> Self:
        """Add a stage, with the words of YAML: `kind`, its options, its inputs. Returns self.

        Without any `inputs` each stage reads the one added before it. Raises ConfigError.
        """
        stage = stage_spec(
            name,
            kind,
            options or {},
            inputs=inputs,
            for_each=for_each,
            run=run,
            description=description,
            folder=self._folder,
        )
        with self._lock:
            if self._started:
                raise ConfigError("stages are added before the pipeline starts")
            self._stages.append(stage)
        return self

    @property
    def _started(self) -> bool:
        """Whether it is too late to change anything."""
        return False

    @property
    def graph(self) -> Graph:
        """The resolved graph, without readers. Raises ConfigError."""
        read = self._read or PipelineSpec(self._name, (), self._folder)
        return resolve(replace(read, stages=(*read.stages, *self._stages)))
