"""A whole run on threads of this process: the same frames, the same ledger, no other process.

What holds for pipelines in processes is asserted of these in test_pipeline, too.
"""

import gc
import os
import threading

import pytest

import ovpipe
from tests.process.conftest import S, T
from tests.support.processes import family, wait_for

E = "tests.support.edges:"
INLINE = {"placement": "inline"}


def pipeline(**stages):
    """A chain, or what its stages' `inputs` say; each stage is its kind and options."""
    made = ovpipe.Pipeline(folder=os.getcwd())
    for name, stage in stages.items():
        options = dict(stage)
        words = {k: options.pop(k) for k in ("inputs", "run", "for_each") if k in options}
        made.add(name, options.pop("kind"), options, **words)
    return made


def run(made, fails=None):
    """Run it here; its rows by (source, target), each of which adds up."""
    with made:
        if fails is None:
            made.run(placement="inline")
        else:
            with pytest.raises(fails[0], match=fails[1]) as raised:
                made.run(placement="inline")
            rows(made)
            return raised.value
    return rows(made)


def rows(made):
    for row in made.ledger:
        ended = row["delivered"] + sum(row["dropped"].values()) + sum(row["failed"].values())
        assert row["claimed"] == ended + row["in_flight"], row
        assert row["in_flight"] == 0
    return {(row["source"], row["target"], row["stream"]): row for row in made.ledger}


def test_a_graph_of_everything_runs_without_a_process(tmp_path):
    """Streams, replicas, a fan-out, a join, guests, copies, views that are kept."""
    made = pipeline(
        src={"kind": S + "Count", "for_each": {"a": {"count": 150}, "b": {"count": 100}}},
        two={"kind": S + "tag", "run": {"replicas": 2}, "inputs": "src"},
        keep={"kind": S + "Keep", "inputs": "two"},
        fresh={"kind": S + "Fresh", "inputs": "two", "run": {"restart": "never"}},
        both={
            "kind": "join",
            "inputs": ["keep", "fresh"],
            "timeout": "1m",
        },  # on a busy machine, too
        sink={"kind": S + "Check", "inputs": "both", "path": str(tmp_path / "s"), "run": INLINE},
    )
    reader = made.read("fresh", when_full="block")
    with made:
        made.start(placement="inline")
        seen = [(next(reader).seq, len(family()))]
        seen += [(frame.seq, 0) for frame in reader]
        made.wait()
    assert len(seen) == 250
    assert seen[0][1] == 0, "a process was started"
    ledger = rows(made)
    for (source, target, stream), row in ledger.items():
        count = 150 if stream == "src/a" else 100
        assert row["delivered"] == row["claimed"] == count, (source, target)
    assert sorted((tmp_path / "s").read_text().splitlines()) == ["src/a 150 149", "src/b 100 99"]


def test_frames_for_a_model_and_back(tmp_path):
    from tests.support.models import ssd

    model = ssd(tmp_path, [[0, 1, 0.75, 0.25, 0.25, 0.75, 0.5], [-1, 0, 0, 0, 0, 0, 0]])
    out = tmp_path / "out.jsonl"
    ledger = run(
        pipeline(
            src={"kind": "synthetic", "size": "64x48", "count": 40},
            find={"kind": "infer", "model": str(model), "jobs": 3, "device": "CPU", "cache": "off"},
            lines={"kind": "jsonl", "path": str(out), "run": INLINE},
        )
    )
    assert [row["delivered"] for row in ledger.values()] == [40, 40]
    assert len(out.read_text().splitlines()) == 40


def test_a_frame_fails_alone_and_a_stage_is_restarted(tmp_path):
    ledger = run(
        pipeline(
            src={"kind": S + "Count", "count": 60},
            third={"kind": T + "ScriptedTransform", "how": "frame_error", "every": 3},
            bad={"kind": S + "Dies", "at": 20},
            sink={"kind": S + "Check", "path": str(tmp_path / "seen")},
        )
    )
    assert ledger["src", "third", "src"]["failed"] == {"infer_error": 20}
    assert ledger["third", "bad", "src"]["failed"] == {"stage_crash": 1}
    assert ledger["bad", "sink", "src"]["delivered"] == 39
    assert (tmp_path / "seen").read_text() == "src 39 59\n"


def test_what_a_stage_raises_comes_through_with_its_traceback():
    made = pipeline(
        src={"kind": S + "Count", "count": 60}, bad={"kind": S + "Dies", "run": {"max_restarts": 1,
        "restart": "never"}},
    )  # fmt: skip
    error = run(made, (ovpipe.StageError, "stage 'bad' failed: ValueError: on purpose"))
    assert "self.die()" in error.remote_traceback
    made = pipeline(
        src={"kind": S + "Count"}, bad={"kind": S + "Dies", "when": "open", "how": "preflight"}
    )
    run(made, (ovpipe.PreflightError, "stage 'bad': no such thing: /nowhere"))


def test_leaving_early_ends_everything():
    made = pipeline(src={"kind": S + "Endless"}, mid={"kind": S + "Fresh"})
    with made:
        reader = made.read("mid")
        made.start(placement="inline")
        assert next(reader).seq == 0
    rows(made)


def test_a_drain_ends_an_endless_run_well(tmp_path):
    made = pipeline(
        src={"kind": S + "Endless"}, sink={"kind": S + "Check", "path": str(tmp_path / "seen")}
    )
    with made:
        made.start(placement="inline")
        made.drain()
        assert made.wait(30)
    (row,) = rows(made).values()
    assert row["delivered"] == row["claimed"]


def test_a_thread_that_hangs_is_named_left_behind_and_harmless(tmp_path):
    """What it does when it wakes changes nothing any more."""
    wakes = tmp_path / "wakes"
    made = pipeline(
        src={"kind": S + "Endless"},
        bad={"kind": E + "Sleeps", "until": str(wakes), "run": {"stall_timeout": "300ms"}},
        sink={"kind": S + "Check"},
    )
    error = run(made, (ovpipe.StageError, "stage 'bad' failed: made no progress for 0.3 s"))
    assert "in process" in error.remote_traceback
    (left,) = [t for t in threading.enumerate() if t.name == "ovpipe-bad"]
    before = made.ledger
    wakes.touch()
    left.join(30)
    assert not left.is_alive()
    assert made.ledger == before
    row = rows(made)["src", "bad", "src"]
    assert row["failed"]["stage_hang"] == 1


def test_two_at_once_know_nothing_of_each_other():
    both = [
        pipeline(src={"kind": S + "Count", "count": 80}, mid={"kind": S + "Keep"}) for _ in "ab"
    ]
    readers = [made.read("mid") for made in both]
    with both[0], both[1]:
        for made in both:
            made.start(placement="inline")
        for one, other in zip(*readers, strict=True):
            assert one.seq == other.seq
            assert one.arrays["x"] is not other.arrays["x"]
    for made in both:
        assert rows(made)["src", "mid", "src"]["delivered"] == 80


def test_starting_again_and_again_leaves_nothing_behind(tmp_path):
    def once():
        out = str(tmp_path / "out.jsonl")
        run(pipeline(src={"kind": "synthetic", "count": 5}, sink={"kind": "jsonl", "path": out}))

    def held():
        gc.collect()
        names = {thread.name for thread in threading.enumerate()}
        return len(os.listdir("/proc/self/fd")), {n for n in names if n.startswith("ovpipe-")}

    once()
    wait_for(lambda: not held()[1], "the end of all threads")
    before = held()
    for _ in range(8):
        once()
    wait_for(lambda: held() == before, "as few descriptors and threads as before")
