"""A blueprint: the stages of a pipeline, from YAML, in Python, or both; and as YAML again.

Law: what `to_yaml` gives, `from_yaml_text` makes the same graph of. A value that a variable gave
is not written, but the variable.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from ovpipe.errors import ConfigError
from ovpipe.graph import Graph, resolve
from ovpipe.loader import Document, document, open_document, stage_spec, writing
from ovpipe.spec import PipelineSpec, StageSpec


class Blueprint:
    """What is to be run. `from_yaml` reads one; `add` builds one in Python."""

    def __init__(self, name: str = "pipeline", folder: str | Path = ".") -> None:
        self._name = name
        self._folder = Path(folder).absolute()
        self._document: Document | None = None
        self._stages: list[StageSpec] = []
        self._lock = threading.RLock()  # of the start, and of what must be said before it

    @classmethod
    def from_yaml(cls, path: str | Path, environ: Mapping[str, str] | None = None) -> Self:
        """Read a configuration; `environ` (default: os.environ) is what `${VAR}` refers to.

        Raises ConfigError with everything that is wrong in it.
        """
        return cls._of(open_document(path, os.environ if environ is None else environ))

    @classmethod
    def from_yaml_text(
        cls, text: str, folder: str | Path = ".", environ: Mapping[str, str] | None = None
    ) -> Self:
        """The same, from a text; `folder` is where modules of your own are looked up."""
        environ = os.environ if environ is None else environ
        return cls._of(document(text, folder=Path(folder), environ=environ))

    @classmethod
    def _of(cls, read: Document) -> Self:
        resolve(read.spec)  # what is wrong with the graph is said here, not at the start
        pipeline = cls(read.spec.name, read.spec.folder)
        pipeline._document = read
        return pipeline

    def to_yaml(self) -> str:
        """The configuration of this pipeline: `from_yaml_text` makes the same graph of it.

        What was read from YAML stands as it was written there: `${VAR}` and no value of it.
        """
        root = None if self._document is None else self._document.root
        return writing.write(self._name, root, self._stages)

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
        read = () if self._document is None else self._document.spec.stages
        file = "" if self._document is None else self._document.spec.file
        return resolve(PipelineSpec(self._name, (*read, *self._stages), self._folder, file))
