"""A pipeline beside the rest of an application: loops, callbacks, failures, signals, forks, ends."""

import asyncio
import gc
import logging
import os
import random
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import ovpipe
from ovpipe.supervisor.core import Supervisor
from ovpipe.transport import control
from tests.process.conftest import S
from tests.support.processes import family, wait_for
from tests.support.stages import number


def counting(count=50, **options):
    pipeline = ovpipe.Pipeline("test", folder=os.getcwd())
    return pipeline.add("src", S + "Count", {"count": count, **options}).add("tag", S + "tag")


# -- async for -------------------------------------------------------------------------------------


def test_async_for_gives_every_frame_while_the_loop_goes_on():
    async def host():
        async with counting(100) as pipeline:
            beats = []
            loop = asyncio.get_running_loop()

            def beat():
                beats.append(1)
                handle[0] = loop.call_later(0.001, beat)

            handle = [loop.call_soon(beat)]
            readers = [pipeline.read("src", depth=8), pipeline.read("tag", depth=8)]

            async def all_of(reader):
                return [frame.seq async for frame in reader]

            seen = await asyncio.gather(*map(all_of, readers))
            handle[0].cancel()
            return seen, len(beats)

    seen, beats = asyncio.run(host())
    assert seen == [list(range(100))] * 2
    assert beats > 1


def test_a_wait_that_is_cancelled_loses_no_frame():
    async def host():
        pipeline = ovpipe.Pipeline("test").add("in", "app")
        async with pipeline:
            reader = pipeline.read("in")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(reader), 0.05)  # nothing was pushed yet
            for i in range(3):
                pipeline.push("in", np.full((4, 4), i, np.uint8))
            seen = [(await anext(reader)).seq for _ in range(3)]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(reader), 0.05)
            pipeline.end("in")
            return seen, [frame.seq async for frame in reader]

    assert asyncio.run(host()) == ([0, 1, 2], [])


def test_async_for_raises_what_made_the_pipeline_fail_and_knows_timeouts():
    async def host():
        pipeline = ovpipe.Pipeline("test", folder=os.getcwd()).add("src", S + "Count")
        pipeline.add("bad", S + "Dies", {"at": 5}, run={"restart": "never"})
        async with pipeline:
            return [frame.seq async for frame in pipeline.read("bad")]

    with pytest.raises(ovpipe.StageError, match="on purpose"):
        asyncio.run(host())

    async def late():
        pipeline = ovpipe.Pipeline("test").add("in", "app")
        async with pipeline:
            async for _ in pipeline.read("in", timeout=0.2):
                pass

    with pytest.raises(TimeoutError, match=r"no frame of 'in' within 0\.2 s"):
        asyncio.run(late())


# -- several threads, callbacks ----------------------------------------------------------------------


def test_threads_share_a_reader_and_each_frame_goes_to_one():
    with counting(300) as pipeline:
        reader, seen = pipeline.read("tag", depth=16), []
        threads = [
            threading.Thread(target=lambda: seen.extend([number(f) for f in reader]))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(seen) == list(range(300))


def test_a_reader_that_is_closed_frees_the_thread_that_waits_for_it():
    pipeline = ovpipe.Pipeline("test").add("in", "app")
    reader = pipeline.read("in")
    failed = []

    def wait():
        try:
            next(reader)
        except ovpipe.PipelineClosed as error:
            failed.append(error)

    with pipeline.start():
        thread = threading.Thread(target=wait)
        thread.start()
    thread.join()
    assert failed


def test_callbacks_are_called_in_order_on_a_thread_of_ours():
    seen, threads = [], set()

    def called(frame):
        threads.add(threading.current_thread().name)
        if frame.seq % 10 == 3:
            raise ovpipe.FrameError("not this one", "nan_output")
        seen.append(number(frame))

    with counting() as pipeline:
        pipeline.on_frame("tag", called).on_frame("src", lambda frame: None)
        pipeline.run()
    assert seen == [i for i in range(50) if i % 10 != 3]
    assert threads == {"ovpipe-on-tag"}
    (row,) = [r for r in pipeline.ledger if r["target"] == "on-0-tag"]
    assert (row["delivered"], row["failed"]) == (45, {"nan_output": 5})


def test_what_a_callback_raises_ends_the_pipeline_with_its_name_and_cause():
    def called(frame):
        if frame.seq == 7:
            raise KeyError("mine")

    with counting(10**9) as pipeline:
        pipeline.on_frame("tag", called)
        with pytest.raises(
            ovpipe.StageError, match=r"stage 'on-0-tag' failed: KeyError: 'mine'"
        ) as e:
            pipeline.run()
    assert isinstance(e.value.__cause__, KeyError)
    assert "in called" in e.value.remote_traceback
    (row,) = [r for r in pipeline.ledger if r["target"] == "on-0-tag"]
    assert row["failed"].pop("stage_crash") == 1
    assert row["delivered"] == 7


# -- failures ----------------------------------------------------------------------------------------


def test_several_stages_that_fail_are_told_together_the_first_cause_first():
    pipeline = ovpipe.Pipeline("test", folder=os.getcwd()).add("src", S + "Endless")
    never = {"restart": "never"}
    pipeline.add("one", S + "Dies", {"at": 20}, inputs="src", run=never)
    pipeline.add("two", S + "Dies", {"at": 20, "how": "memory"}, inputs="src", run=never)
    with pipeline, pytest.raises(ExceptionGroup, match="2 failures, the first cause first") as e:
        pipeline.run()
    assert sorted(error.stage for error in e.value.exceptions) == ["one", "two"]
    assert {error.cause for error in e.value.exceptions} == {
        "ValueError: on purpose",
        "MemoryError",
    }
    assert all("in die" in error.remote_traceback for error in e.value.exceptions)


def script(text, *arguments, **options):
    head = "import os, signal, sys, threading, time\nimport numpy as np\nimport ovpipe\n"
    return subprocess.run(
        [sys.executable, "-c", head + text, *arguments],
        capture_output=True, text=True, timeout=60, check=False, **options,
    )  # fmt: skip


def test_an_error_that_nobody_catches_shows_the_remote_traceback():
    ended = script(
        'p = ovpipe.Pipeline("t", os.getcwd()).add("src", "tests.support.stages:Count")\n'
        'p.add("bad", "tests.support.stages:Dies", run={"restart": "never"})\n'
        "with p:\n    p.run()\n"
    )
    assert ended.returncode == 1
    assert "ovpipe.errors.StageError: stage 'bad' failed: ValueError: on purpose" in ended.stderr
    assert "in the process of stage 'bad':" in ended.stderr
    assert 'raise ValueError("on purpose")' in ended.stderr


@pytest.mark.parametrize("where", ["next(reader)", "push(p)", "p.wait()"])
def test_ctrl_c_in_the_host_comes_through_and_leaves_nothing(where):
    ended = script(
        'p = ovpipe.Pipeline("t").add("in", "app")\n'
        "reader = p.read('in')\n"
        "def push(p):\n"
        "    while True: p.push('in', np.zeros((4, 4), np.uint8))\n"
        "try:\n"
        "    with p.start():\n"
        "        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        f"        {where}\n"
        "except KeyboardInterrupt:\n"
        "    print([r['claimed'] == sum((r['delivered'], r['in_flight'], *r['failed'].values(),\n"
        "        *r['dropped'].values())) for r in p.ledger], len(os.listdir('/proc/self/task')))\n"
    )
    assert ended.stdout.startswith("[True] "), ended.stderr


def test_a_start_that_was_interrupted_is_told_and_leaves_nothing():
    ended = script(
        'p = ovpipe.Pipeline("t", os.getcwd()).add("in", "app")\n'
        'p.add("slow", "tests.support.stages:SlowToOpen")\n'
        "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "with p:\n"
        "    try: p.start()\n"
        "    except KeyboardInterrupt: print('interrupted')\n"
        "    p.stop()\n"
        "    try: p.push('in', np.zeros(3))\n"
        "    except ovpipe.PipelineClosed as error: print(error)\n"
    )
    assert ended.stdout == ("interrupted\nthe pipeline did not come to run; make another one\n"), (
        ended.stderr
    )


# -- ends that nobody asked for ----------------------------------------------------------------------


def test_a_pipeline_that_was_forgotten_ends():
    pipeline = counting(10**9).start()
    assert family()
    del pipeline
    gc.collect()
    wait_for(lambda: not family(), "the end of its processes")


def test_a_script_that_does_not_close_leaves_nothing():
    ended = script(
        'p = ovpipe.Pipeline("t", os.getcwd()).add("in", "app")\n'
        "p.on_frame('in', lambda frame: None)\n"
        "reader = p.read('in')\n"
        "p.push('in', np.zeros((4, 4), np.uint8))\n"
        "print(next(reader).seq)\n"
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "0"


def test_a_forked_child_does_not_hold_the_pipeline():
    read, write = os.pipe()
    process = subprocess.Popen(
        [
            sys.executable, "-c",
            "import os, sys, ovpipe\n"
            'p = ovpipe.Pipeline("t", os.getcwd()).add("src", "tests.support.stages:Endless")\n'
            'p.add("sink", "tests.support.stages:Check").start()\n'
            "mine = open(f'/proc/self/task/{os.getpid()}/children').read().split()\n"
            "if os.fork() == 0:\n"
            "    try: p.wait()\n"
            "    except ovpipe.StageError as error: print(error, *mine, flush=True)\n"
            f"    os.read({read}, 1)\n"
            "    os._exit(0)\n"
            "os.kill(os.getpid(), 9)\n",
        ],
        stdout=subprocess.PIPE, text=True, pass_fds=(read,),
    )  # fmt: skip
    with process.stdout:
        said = process.stdout.readline()
        assert process.wait(60) == -signal.SIGKILL
        told, supervisor = said.rsplit(maxsplit=1)
        assert "the pipeline belongs to the process that forked" in told
        wait_for(lambda: not os.path.exists(f"/proc/{supervisor}"), "the end of the supervisor")
        os.close(write)  # only now may the child end
        os.close(read)
        process.stdout.read()


PUSHING = """
import os, socket, sys
import numpy as np
from ovpipe.pipeline.source import Source, as_frame
source = Source("in", "in")
source.join(socket.socket(fileno=int(sys.argv[1])))
source.wait_for_start()
while True:
    print(source.push(as_frame(np.zeros((8, 8), np.uint8), "in", None, None), None), flush=True)
"""


def test_the_ledger_balances_when_an_application_dies_while_it_pushes():
    """The supervisor outlives it here, since its own channel is held by this test."""
    random.seed(5)
    pipeline = ovpipe.Pipeline("test", folder=os.getcwd()).add("in", "app")
    graph = pipeline.add("tag", S + "tag").add("fast", S + "even").add("log", "log").graph
    for _ in range(3):
        ours, theirs = control.pair()
        with theirs:
            command = [sys.executable, "-c", PUSHING, str(theirs.fileno())]
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, text=True, pass_fds=(theirs.fileno(),)
            )
        supervisor = Supervisor(graph, externals={"in": ours})
        outcomes = []
        thread = threading.Thread(target=lambda: outcomes.append(supervisor.run()))  # noqa: B023
        thread.start()
        last = -1
        with process.stdout:
            for line in process.stdout:
                last = int(line)
                if last >= 50 + random.randrange(100):
                    process.kill()
        process.wait()
        thread.join(60)
        ours.close()
        (outcome,) = outcomes
        assert outcome.error is None
        for row in outcome.reading.accounts:
            ended = row.delivered + sum(row.dropped.values()) + sum(row.failed.values())
            assert (row.claimed, row.in_flight) == (ended, 0)
        assert outcome.reading.accounts[0].claimed > last


def test_a_closed_pipeline_holds_no_memory_though_somebody_holds_it(nothing_left):
    from ovpipe.testing.leaks import holdings

    before = holdings(nothing_left)
    pipeline = ovpipe.Pipeline("test").add("in", "app")
    reader = pipeline.read("in", depth=8)
    with pipeline:
        pipeline.submit("in", np.zeros((4, 4), np.uint8), "in").result(30)
        next(reader)
        pipeline.end("in")
        assert list(reader) == []
        pipeline.wait(60)
    gc.collect()
    wait_for(lambda: not holdings(nothing_left).beyond(before), "everything to be given back")
    with pytest.raises(ovpipe.PipelineClosed):
        pipeline.submit("in", np.zeros((4, 4), np.uint8), "in")
    with pytest.raises(ovpipe.PipelineClosed):
        pipeline.push("in", np.zeros((4, 4), np.uint8))
    assert list(reader) == []


def test_several_pipelines_at_once():
    totals = {}

    def run(n):
        with counting(20 + n) as pipeline:
            totals[n] = sum(1 for _ in pipeline.read("tag"))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert totals == {0: 20, 1: 21}


# -- how it is ---------------------------------------------------------------------------------------


def adds_up(edge):
    return edge.claimed == (
        edge.delivered + sum(edge.dropped.values()) + sum(edge.failed.values()) + edge.in_flight
    )


def test_stats_add_up_while_it_runs_and_after():
    pipeline = counting(10**9).add("slow", S + "Check", {"pause_s": 0.001})
    assert pipeline.stats().phase == "new"
    with pipeline.start():
        one = pipeline.stats()
        wait_for(lambda: pipeline.stats().edge("tag", "slow")[0].delivered > 50, "frames")
        two = pipeline.stats()
        assert two.phase == "running"
        assert all(map(adds_up, (*one.edges, *two.edges)))
        (edge,) = two.edge("tag", "slow")
        assert (edge.source, edge.target, edge.stream) == ("tag", "slow", "src")
        (stage,) = two.stage("slow")
        assert (stage.name, stage.restarts) == ("slow", 0)
        assert stage.state in ("working", "idle")
        wait_for(lambda: pipeline.stats().edge("tag", "slow")[0].delivered_per_s > 0, "a rate")
        wait_for(lambda: pipeline.stats().stage("slow")[0].busy > 0.2, "a share")
        with pytest.raises(TypeError):
            edge.dropped["x"] = 1
        pipeline.drain()
        pipeline.wait(60)
    last = pipeline.stats()
    assert last.phase == "ended"
    assert all(adds_up(edge) and not edge.in_flight for edge in last.edges)
    assert [row["claimed"] for row in pipeline.ledger] == [edge.claimed for edge in last.edges]


def test_a_restart_is_seen():
    pipeline = ovpipe.Pipeline("test", folder=os.getcwd()).add("in", "app")
    pipeline.add("bad", S + "Dies", {"how": "kill", "at": 1})
    with pipeline:
        for i in range(3):
            pipeline.push("in", np.full((4, 4), i, np.uint8))
        wait_for(lambda: pipeline.stats().stage("bad")[0].restarts == 1, "the restart")


# -- the host ----------------------------------------------------------------------------------------


def test_L03_nothing_of_the_host_is_other_than_before():
    def all_of_it():
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP, signal.SIGUSR1)
        return {
            "signals": [signal.getsignal(n) for n in numbers],
            "mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
            "wakeup": signal.set_wakeup_fd(-1),
            "loggers": (
                list(logging.root.handlers),
                logging.root.level,
                sorted(logging.root.manager.loggerDict),
            ),
            "environ": dict(os.environ),
            "argv": list(sys.argv),
            "path": list(sys.path),
            "cwd": os.getcwd(),
            "hooks": (sys.excepthook, threading.excepthook, sys.stdout, sys.stderr),
            "threads": {t.name for t in threading.enumerate() if t.name.startswith("ovpipe")},
            "switch": sys.getswitchinterval(),
        }

    with counting(5) as first:  # imports what is imported at the first use
        first.run()
    before = all_of_it()
    with counting(20) as pipeline:
        pipeline.on_frame("tag", lambda frame: None)
        assert sum(1 for _ in pipeline.read("src")) == 20
    after = all_of_it()
    wait_for(lambda: all_of_it()["threads"] == set(), "the end of our threads")
    assert {**after, "threads": set()} == {**before, "threads": set()}


def test_L02_a_notebook_runs_cell_by_cell():
    cells = [
        "import os, ovpipe",
        'p = ovpipe.Pipeline("t", os.getcwd()).add("in", "app").add("tag", "tests.support.stages:tag")',
        "p.results('tag').start()",
        "import numpy as np\nfuture = p.submit('in', np.zeros((4, 4), np.uint8), 'tag')",
        "seen = future.result(30).meta['tag']",
        "p.close()",
    ]
    names = {"__name__": "__main__"}
    for cell in cells:
        exec(compile(cell, "<cell>", "exec"), names)
    assert names["seen"] == "seen"
