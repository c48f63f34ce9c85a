"""Frames that an application pushes: kind `app`, `push`, `loan`, `submit`, `aio`, `end`."""

import asyncio
import os
import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest

import ovpipe
from tests.process.conftest import S, T
from tests.support.processes import wait_for


def pipeline_of(*kinds, options=None, name="test", **source):
    """`in`, and a stage for each of `kinds` behind it, called by its name in lower case."""
    pipeline = ovpipe.Pipeline(name, folder=os.getcwd()).add("in", "app", **source)
    for kind in kinds:
        pipeline.add(kind.rpartition(":")[2].lower(), kind, options or {})
    return pipeline


def picture(value):
    return np.full((48, 64, 3), value, np.uint8)


def push_on(pipeline):
    for _ in range(1000):
        pipeline.push("in", picture(0))


def balanced(pipeline):
    for row in pipeline.ledger:
        ended = row["delivered"] + sum(row["dropped"].values()) + sum(row["failed"].values())
        assert row["claimed"] == ended + row["in_flight"], row
        assert row["in_flight"] == 0, row
    return {(row["source"], row["target"]): row for row in pipeline.ledger}


def test_what_is_pushed_comes_out_as_it_was_then():
    with pipeline_of(S + "tag") as pipeline:
        reader = pipeline.read("tag", depth=64)
        array = picture(0)
        for i in range(20):
            array[:] = i
            assert pipeline.push("in", array, pts_ns=1000 * i, meta={"i": i}) == i
        array[:] = 99
        pipeline.push("in", ovpipe.Image(np.full((24, 32), 7, np.uint8), "i420"))
        pipeline.push("in", np.arange(6, dtype=np.float32))
        pipeline.push("in", {"a": np.ones(2), "b": np.zeros((0, 3), np.int32)})
        pipeline.push("in", ovpipe.Frame(arrays={"x": np.ones(3)}, seq=40, pts_ns=5), meta={"k": 1})
        pipeline.end("in")
        frames = list(reader)
    for i, frame in enumerate(frames[:20]):
        assert (frame.seq, frame.pts_ns, frame.meta) == (i, 1000 * i, {"i": i, "tag": "seen"})
        assert (frame.image.format, frame.image.data.shape) == ("bgr", (48, 64, 3))
        assert (frame.image.data == i).all()
        assert frame.stream == "in"
    i420, floats, two, whole = frames[20:]
    assert (i420.image.format, i420.image.height) == ("i420", 16)
    assert floats.arrays["array"].tolist() == [0, 1, 2, 3, 4, 5]
    assert two.arrays["b"].shape == (0, 3)
    assert (whole.seq, whole.pts_ns, whole.meta["k"]) == (40, 5, 1)
    assert array.flags.writeable
    assert balanced(pipeline)["in", "tag"]["delivered"] == 24


def test_a_loan_is_pushed_as_it_lies_there():
    with pipeline_of(S + "tag") as pipeline:
        reader = pipeline.read("tag")
        for i in range(30):
            array = pipeline.loan("in", (48, 64, 3), np.uint8)
            array[:] = i
            pipeline.push("in", array)
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1  # that is what others read now: no copy was made
            del array
            frame = next(reader)
            assert (frame.image.data == i).all()
            assert frame.seq == i


def test_without_room_push_waits_and_a_timeout_has_claimed_nothing():
    with pipeline_of() as pipeline:
        reader = pipeline.read("in", depth=2)
        for i in range(3):  # what may wait, and what the reader works on
            assert pipeline.push("in", picture(i), timeout=30) == i
        with pytest.raises(TimeoutError, match=r"no room for a frame of stream 'in' within 0\.2 s"):
            pipeline.push("in", picture(0), timeout=0.2)
        with pytest.raises(TimeoutError):
            pipeline.push("in", picture(0), timeout=0)
        (edge,) = pipeline.stats().edges
        assert (edge.claimed, edge.in_flight) == (3, 3)
        assert next(reader).seq == 0
        assert next(reader).seq == 1  # so the first one is done with
        assert pipeline.push("in", picture(3), timeout=30) == 3
        pipeline.end("in")
        assert [frame.seq for frame in reader] == [2, 3]
    assert balanced(pipeline)["in", "read-0-in"]["delivered"] == 4


def test_a_live_source_never_waits_and_what_makes_room_is_counted():
    pipeline = ovpipe.Pipeline("live").add("in", "app", {"live": True})
    with pipeline:
        reader = pipeline.read("in", depth=2)
        for i in range(200):
            pipeline.push("in", picture(i % 256))
        pipeline.end("in")
        seen = [frame.seq for frame in reader]
    row = balanced(pipeline)["in", "read-0-in"]
    assert seen == [197, 198, 199]
    assert (row["claimed"], row["delivered"], row["dropped"]) == (200, 3, {"queue_full": 197})


def test_threads_push_side_by_side():
    seqs = []

    def push(value):
        for _ in range(40):
            seqs.append((pipeline.push("in", picture(value)), value))

    with pipeline_of(S + "tag") as pipeline:
        reader = pipeline.read("tag")
        threads = [threading.Thread(target=push, args=(value,)) for value in range(4)]
        pipeline.start()
        for thread in threads:
            thread.start()
        frames = (next(reader) for _ in range(160))
        seen = [(frame.seq, int(frame.image.data[0, 0, 0])) for frame in frames]
        for thread in threads:
            thread.join()
    assert [seq for seq, _ in seen] == list(range(160))
    assert sorted(seqs) == seen


def test_streams_have_names_ends_and_numbers_of_their_own():
    with pipeline_of(S + "tag", for_each={"gate": {}, "dock": {}}) as pipeline:
        reader = pipeline.read("tag", depth=32)
        for i in range(5):
            assert pipeline.push("in", picture(i), stream="gate") == i
        assert pipeline.push("in", picture(0), stream="in/dock") == 0
        assert pipeline.push("in", ovpipe.Frame(arrays={"x": np.ones(1)}, stream="in/dock")) == 1
        with pytest.raises(ovpipe.ConfigError, match="streams: say stream=, one of gate, dock"):
            pipeline.push("in", picture(0))
        with pytest.raises(ovpipe.ConfigError, match="no stream 'gat'; did you mean 'gate'"):
            pipeline.push("in", picture(0), stream="gat")
        pipeline.end("in", "gate")
        with pytest.raises(ovpipe.PipelineClosed, match="the end of stream 'in/gate' was said"):
            pipeline.push("in", picture(0), stream="gate")
        pipeline.push("in", picture(2), stream="dock")
        pipeline.end("in")
        seen = [(frame.stream, frame.seq) for frame in reader]
        pipeline.wait(60)
    assert sorted(seen) == sorted(
        [("in/gate", i) for i in range(5)] + [("in/dock", i) for i in range(3)]
    )
    balanced(pipeline)


def test_what_cannot_be_pushed_is_told_and_the_next_goes_on():
    with pipeline_of(S + "tag") as pipeline:
        reader = pipeline.read("tag")
        with pytest.raises(TypeError, match="cannot push a list"):
            pipeline.push("in", [1, 2])
        with pytest.raises(ovpipe.FrameError, match="dtype object"):
            pipeline.push("in", np.array([{}], object))
        with pytest.raises(ValueError, match="pts_ns must be a whole number of 64 bits"):
            pipeline.push("in", picture(0), pts_ns=1 << 70)
        with pytest.raises(ovpipe.OvpipeError):
            pipeline.push("in", picture(0), meta={"set": {1, 2}})
        with pytest.raises(ovpipe.ConfigError, match="only a stage of kind 'app'"):
            pipeline.push("tag", picture(0))
        with pytest.raises(ovpipe.ConfigError, match="did you mean 'in'"):
            pipeline.push("inn", picture(0))
        assert pipeline.push("in", ovpipe.Frame(arrays={"x": np.ones(1)}, seq=7)) == 7
        with pytest.raises(ValueError, match="frame 7 of stream 'in' after frame 7: seq rises"):
            pipeline.push("in", ovpipe.Frame(arrays={"x": np.ones(1)}, seq=7))
        pipeline.end("in")
        assert [frame.seq for frame in reader] == [7]
    assert balanced(pipeline)["in", "tag"]["claimed"] == 1


def test_a_drain_ends_a_push_that_waits_and_finishes_what_was_claimed():
    with pipeline_of() as pipeline:
        reader = pipeline.read("in", depth=1)
        for i in range(2):
            pipeline.push("in", picture(i))
        failed = []

        def wait():
            try:
                pipeline.push("in", picture(9))
            except ovpipe.PipelineClosed as error:
                failed.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        wait_for(lambda: any(s.state == "blocked" for s in pipeline.stats().stages), "a wait")
        pipeline.drain()
        thread.join()
        assert failed
        assert [frame.seq for frame in reader] == [0, 1]
        pipeline.wait(30)
    assert balanced(pipeline)["in", "read-0-in"]["claimed"] == 2


def test_submit_gives_each_frame_its_answer():
    with pipeline_of(S + "tag", T + "ScriptedTransform") as pipeline:
        futures = [pipeline.submit("in", picture(i), "scriptedtransform") for i in range(60)]
        frames = [future.result(30) for future in futures]  # none of them holds a slot
    assert [frame.seq for frame in frames] == list(range(60))
    assert all((frame.image.data == i).all() for i, frame in enumerate(frames))
    frames[0].image.data[:] = 1  # memory of its own


def outcome(future):
    """The seq that came, or the reason why none did."""
    try:
        return future.result(30).seq
    except ovpipe.FrameError as error:
        return error.reason, str(error).partition(" did not reach ")[2]


def test_a_frame_that_is_dropped_or_fails_ends_its_future():
    with pipeline_of(S + "Fails", S + "even") as pipeline:
        told = [outcome(pipeline.submit("in", picture(i), "even")) for i in range(4)]
        many = [outcome(f) for f in [pipeline.submit("in", picture(i), "even") for i in range(20)]]
    failed = "infer_error", "'even': it ended as infer_error"
    assert told == [failed, ("", "'even': a stage passed nothing on for it"), 2, failed]
    assert [x for x in many if isinstance(x, int)] == [4, 8, 10, 14, 16, 20, 22]
    # Of many at a time not all can be told from one another, but none is told wrong.
    for i, x in enumerate(many, 4):
        assert isinstance(x, int) or x[0] in ("", "infer_error" if i % 3 == 0 else "")


def test_a_frame_that_its_stage_dies_with_ends_its_future_and_the_next_comes():
    pipeline = pipeline_of().add("bad", S + "Dies", {"how": "kill", "at": 2})
    with pipeline:
        assert pipeline.submit("in", picture(0), "bad").result(30).seq == 0
        assert pipeline.submit("in", picture(1), "bad").result(30).seq == 1
        with pytest.raises(ovpipe.FrameError, match="frame 2 of stream 'in'") as error:
            pipeline.submit("in", picture(2), "bad").result(60)
        assert error.value.reason == "stage_crash"
        assert pipeline.submit("in", picture(3), "bad").result(60).seq == 3


def test_a_stage_that_is_given_up_ends_futures_and_pushes_with_its_error():
    pipeline = pipeline_of().add("bad", S + "Dies", {"at": 2}, run={"restart": "never"})
    with pipeline:
        futures = [pipeline.submit("in", picture(i), "bad") for i in range(3)]
        assert [f.result(30).seq for f in futures[:2]] == [0, 1]
        with pytest.raises((ovpipe.StageError, ovpipe.FrameError)):
            futures[2].result(60)
        with pytest.raises(ovpipe.StageError, match="on purpose"):
            push_on(pipeline)
        with pytest.raises(ovpipe.StageError, match="on purpose"):
            pipeline.wait(60)


def test_a_stop_cancels_what_is_still_waited_for():
    with pipeline_of().add("slow", S + "StuckAsync", {"at": 0}) as pipeline:
        future = pipeline.submit("in", picture(0), "slow")
        pipeline.stop()
    with pytest.raises(CancelledError):
        future.result(0)
    with pytest.raises(ovpipe.PipelineClosed):
        pipeline.push("in", picture(0))


def test_results_must_be_named_before_the_start_and_be_within_reach():
    pipeline = pipeline_of(S + "tag").add("other", S + "Count", {"count": 1})
    with pipeline:
        pipeline.results("other").start()
        with pytest.raises(ovpipe.PipelineClosed, match=r"say pipeline\.results\('tag'\) before"):
            pipeline.submit("in", picture(0), "tag")
        with pytest.raises(ovpipe.ConfigError, match="no frame of 'in' can reach 'other'"):
            pipeline.submit("in", picture(0), "other")


def test_aio_waits_for_room_and_for_the_answer_in_the_loop():
    async def host():
        async with pipeline_of(S + "tag") as pipeline:
            beats = 0

            async def beat():
                nonlocal beats
                while True:
                    beats += 1
                    await asyncio.sleep(0.001)

            beating = asyncio.create_task(beat())
            frames = await asyncio.gather(
                *(pipeline.aio("in", picture(i), "tag") for i in range(50))
            )
            beating.cancel()
            assert beats > 1
            return [(int(f.image.data[0, 0, 0]), f.meta["tag"]) for f in frames]

    assert asyncio.run(host()) == [(i, "seen") for i in range(50)]


YAML = """
version: 1
stages:
  in:
    kind: app
    live: ${LIVE:-false}
  seen: {kind: "tests.support.stages:tag", text: "${TEXT}"}
"""


def test_a_configuration_with_an_app_source_is_embedded():
    pipeline = ovpipe.Pipeline.from_yaml_text(YAML, os.getcwd(), {"TEXT": "yes"})
    with pipeline.add("even", S + "even"):
        frame = pipeline.submit("in", picture(4), "even").result(30)
    assert frame.meta["tag"] == "yes"


def test_on_its_own_it_is_valid_and_does_not_run(ovpipe_run):
    stages = {"in": {"kind": "app"}, "log": {"kind": "log"}}
    ended = ovpipe_run(stages)
    assert ended.code == 2
    assert "stage 'in' gets its frames from an application, and none runs this" in ended.err
    assert "Traceback" not in ended.err
