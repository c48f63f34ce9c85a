"""Infer: frames through a model, several at a time, results in stream order.

A job is one frame under way: fed (this thread), inferred (the device), its outputs copied
(the slot's thread, which then says `done` and is free again), decoded (this thread, in order).

Law: each job ends exactly once, well or badly, and its buffer comes back then. What goes wrong
with one frame fails that frame: an unfit input, a failed inference, an output that is all NaN,
a decoder that raises. Frames pass by reference: only what was found is new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from ovpipe.detections import Detections
from ovpipe.errors import FrameError
from ovpipe.frame import Frame
from ovpipe.stages.base import Result
from ovpipe.stages.infer import choose
from ovpipe.stages.infer.alone import Alone
from ovpipe.stages.infer.batch import WAIT_S, Batch, Batches, arrays_of, splits_of
from ovpipe.stages.infer.decode import Decoded
from ovpipe.stages.infer.direct import DirectFeed
from ovpipe.stages.infer.feed import ArraysFeed, Fed, PictureFeed
from ovpipe.stages.infer.labels import Keep, read_labels
from ovpipe.stages.infer.model import (
    Source,
    cache_properties,
    compile_model,
    core_properties,
    first_that_takes,
    read,
    reason,
    refused,
    shared_tensor,
)
from ovpipe.stages.infer.picture import Plan, Wish, plan
from ovpipe.stages.infer.runner import Ahead, Outputs, Pool, Pools, Runner
from ovpipe.stages.infer.watch import Watch

AHEAD = 1
"""Frames held ready beside those in requests."""


@dataclass(eq=False)
class _Job:
    """One frame under way; `outputs` or `error` is set before `done` is called."""

    frame: Frame
    done: Callable[[], None]
    fed: Fed | None = None
    outputs: Outputs = field(default_factory=dict)
    error: BaseException | None = None


class Infer(Alone):
    """Finds objects in each frame with a model of yours, on any OpenVINO device.

    In an application, without a pipeline: see `ovpipe.stages.infer.alone`.
    """

    model: Annotated[str, "path of the model: .xml (with its .bin), .onnx or .tflite"]
    device: Annotated[str, "OpenVINO device: CPU, GPU, NPU, AUTO, HETERO:GPU,CPU"] = "CPU"
    fallback: Annotated[
        list[str], "devices tried in this order where `device` is not there or refuses the model"
    ] = field(default_factory=list)
    jobs: Annotated[int, Ge(0), "infer requests; 0: as many as keep the device busy"] = 0
    batch: Annotated[
        Batch, "frames of any streams inferred as one: {size: frames, wait: how long for them}"
    ] = field(default_factory=Batch)
    hint: Annotated[Literal["throughput", "latency", "none"], "what the device is tuned for"] = (
        "throughput"
    )
    config: Annotated[
        dict[str, str | int | float | bool], "OpenVINO properties, as INFERENCE_NUM_THREADS: 2"
    ] = field(default_factory=dict)
    decode: Annotated[
        str,
        "ssd, yunet, ultraface, yolox, yolo, keypoints, segmentation, classification, embedding, "
        "raw, or your own module:function; empty: by evidence",
    ] = ""
    labels: Annotated[
        list[str] | dict[int, str] | str,
        "names of the classes: a list, a mapping id: name, or a text file with a name per line",
    ] = field(default_factory=list)
    keep: Annotated[
        dict[Literal["classes", "score"], float | list[str | int]],
        "what is passed on: {classes: [names or ids], score: the least score}",
    ] = field(default_factory=dict)
    nms: Annotated[
        Annotated[float, Ge(0), Le(1)] | None,
        "overlap above which the weaker of two boxes goes; default by decoder",
    ] = None
    feed: Annotated[
        Literal["", "image", "arrays"],
        "what of a frame goes into the model; empty: the image where the model takes one",
    ] = ""
    resize: Annotated[
        Literal["", "stretch", "letterbox"], "how the image is fitted; empty: by decoder"
    ] = ""
    colour: Annotated[
        Literal["", "bgr", "rgb"], "what the model was trained on; empty: by evidence"
    ] = ""
    mean: Annotated[list[float], "subtracted from the pixels, one number or one a channel"] = field(
        default_factory=list
    )
    scale: Annotated[list[float], "then the pixels are divided by it; as mean"] = field(
        default_factory=list
    )
    preprocess: Annotated[
        Literal["", "host", "planes", "graph"],
        "where pictures are resized and their colour converted: by this process (empty, too); "
        "planes: there, resized before they are converted; or in the model's graph, by the device",
    ] = ""
    cache: Annotated[str, "folder of compiled models; empty: ~/.cache/ovpipe/models; off: none"] = (
        ""
    )

    _runner: Runner | None = None
    _watch: Watch | None = None
    _feed: Any = None
    _decoder: Any = None
    _keep: Keep = Keep()
    _labels: Mapping[int, str] = field(default_factory=dict)
    _names: tuple[str, ...] = ()

    @property
    def capacity(self) -> int:
        """As many frames as there are infer requests, or as their batches take.

        Without batches, and unless the hint is `latency`, two more: they are made ready meanwhile.
        """
        assert self._runner is not None, "the stage is not open"
        return len(self._runner)

    def open(self) -> None:
        """Read, compile, warm up. PreflightError for whatever is wrong with the options."""
        source = read(self.model, self.config, self._gather)
        facts = source.facts
        written = read_labels(self.labels)
        kind = choose.kind_of(self.decode, facts, written)
        self._labels = choose.labels_of(kind, facts, written)
        self._keep = Keep.read(self.keep, self._labels)
        decoder = choose.make(kind, facts, self._keep, self.nms, self.context.stage)
        self._decoder = decoder
        self._names = tuple(output.name for output in facts.outputs)

        prepare = self.feed, self.resize, self.colour, self.mean, self.scale, self.preprocess
        picture = plan(Wish(*prepare, batch=source.batch > 1), facts, decoder.fit)
        self._runner = first_that_takes(
            [self.device, *self.fallback],
            lambda device: self._load(source, device, picture),
            self.context.stage,
        )
        self._watch = Watch(source.seen, self.context.stage)

    @property
    def _gather(self) -> int | None:
        """Frames of a batch, 0: as the model says; None: none are gathered."""
        return self.batch.get("size", 0) if self.batch else None

    def _load(self, source: Source, device: str, picture: Plan | None) -> Runner:
        """Compile for `device` and warm up."""
        facts = source.facts
        properties = (
            self._properties()
            | cache_properties(self.cache)
            | core_properties(device, self.config)
            | self.config
        )

        def pool(blank: Any, pixels: str = "", batch: int = 1) -> Pool:
            compiled = compile_model(source, device, properties, picture, pixels, batch)
            try:
                requests = self._requests(compiled)
                self.context.report({"device": device, "requests": requests})
                return Pool(compiled, requests, self._names, blank)
            except RuntimeError as error:
                raise refused(source, device, error) from None

        size, labels = facts.input_size, self._labels
        if picture is None:
            self._feed = ArraysFeed(facts.inputs, size, labels)
        elif picture.in_graph:
            self._feed = direct = DirectFeed(size, picture.colour, labels, shared_tensor)
            return self._ahead(
                Pools(lambda pixels: pool(direct.blank(pixels), pixels), direct.usual)
            )
        else:
            wrap = np.asarray if source.batch > 1 else shared_tensor
            self._feed = PictureFeed(
                size, picture.fit, picture.colour, labels, wrap, picture.planes_first
            )
        one = pool(self._feed.blank())
        return self._batches(source, one, pool) if source.batch > 1 else self._ahead(one)

    def _requests(self, compiled: Any) -> int:
        """`jobs`, or one more than the device works on at a time.

        The device begins with that one by itself, before this process knows that another ended.
        """
        if self.jobs:
            return self.jobs
        optimal = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        return optimal + (self.hint == "throughput")

    def _ahead(self, pools: Pool | Pools) -> Runner:
        """Frames held ready cost their waiting time; who wants low latency has none."""
        return pools if self.hint == "latency" else Ahead(pools, AHEAD)

    def _batches(self, source: Source, one: Pool, pool: Callable[..., Pool]) -> Runner:
        """Frames gathered for a second model, which takes them together."""
        size, wait_s = source.batch, self.batch.get("wait", WAIT_S)
        try:
            splits = splits_of(source, size)
            rows = arrays_of(self._feed.blank())
            many = pool([np.repeat(row, size, axis=0) for row in rows], batch=size)
        except BaseException:
            one.close()
            raise
        return Batches(many, one, size, wait_s, rows, splits, shared_tensor)

    def close(self) -> None:
        """Wait for what is under way and release the device."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()

    def submit(self, frame: Frame, done: Callable[[], None]) -> Callable[[], Result]:
        """Start the inference of `frame`; see AsyncTransform."""
        assert self._runner is not None, "the stage is not open"
        assert self._watch is not None
        self._watch.look()
        job = _Job(frame, done)
        try:
            job.fed = self._feed.take(frame)
            self._runner.start(job.fed, partial(self._end, job))
        except (FrameError, RuntimeError, TypeError, ValueError) as error:
            self._end(job, {}, error)
        return partial(self._finish, job)

    def _end(self, job: _Job, outputs: Outputs, error: BaseException | None) -> None:
        """In the slot's thread, or in this one where nothing was started."""
        # Without its traceback, which refers to the job and so to itself: what is freed by the
        # garbage collector only holds the frame's slot for as long as that does not come.
        job.outputs, job.error = outputs, error and error.with_traceback(None)
        if job.fed is not None:
            self._feed.give_back(job.fed)
        job.done()

    def _finish(self, job: _Job) -> Result:
        """In stream order: decode, or raise what went wrong."""
        error, job.error = job.error, None
        try:
            if isinstance(error, FrameError):
                raise error
            if error is not None:
                raise FrameError(f"the inference failed: {reason(error)}") from error
        finally:
            del error  # or it refers to itself, by way of this frame
        for name, output in job.outputs.items():
            if _all_nan(output):
                raise FrameError(f"the model's output '{name}' is all NaN", "nan_output")
        assert job.fed is not None  # a job that was not fed has an error
        return self._publish(job.frame, self._decoder(job.outputs, job.fed.info))

    def _publish(self, frame: Frame, decoded: Decoded) -> Frame:
        if isinstance(decoded, Detections):
            return frame.with_(detections=self._wanted(decoded))
        if isinstance(decoded, Frame):
            found = decoded.detections
            return decoded if found is None else decoded.with_(detections=self._wanted(found))
        if decoded is None:
            return frame
        arrays = {name: v for name, v in decoded.items() if isinstance(v, np.ndarray)}
        meta = {name: v for name, v in decoded.items() if name not in arrays}
        return frame.with_(arrays=arrays, meta=meta)

    def _wanted(self, found: Detections) -> Detections:
        named = found if found.labels else replace(found, labels=self._labels)
        return self._keep.apply(named)

    def _properties(self) -> dict[str, Any]:
        """The hint, with the number of jobs that it is to be tuned for."""
        if self.hint == "none":
            return {}
        properties: dict[str, Any] = {"PERFORMANCE_HINT": self.hint.upper()}
        if self.jobs:
            properties["PERFORMANCE_HINT_NUM_REQUESTS"] = self.jobs
        return properties


def _all_nan(output: NDArray[Any]) -> bool:
    if output.dtype.kind != "f" or not output.size:
        return False
    first = output.item(0)  # a number of Python's, at a tenth of the price of one of numpy's
    return first != first and bool(np.isnan(output).all())
