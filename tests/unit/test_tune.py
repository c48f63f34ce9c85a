"""tune: the search, on functions in place of measurements, and what it may turn."""

import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner

from ovpipe.bench import knobs as turning
from ovpipe.bench.knobs import assignments, knobs, shown
from ovpipe.bench.search import Knob, Search, is_better
from ovpipe.cli import group
from ovpipe.cli import tune as command
from ovpipe.loader import loads, spec_of, tree
from ovpipe.loader.overrides import override
from ovpipe.loader.writing import as_written, dump

KNOBS = [
    Knob("jobs", (0, 1, 2, 3, 4, 6, 8), 1),
    Knob("hint", ("latency", "throughput"), 0),
    Knob("threads", (None, 1, 2), 0),
]


def smooth(setting):
    """Best at jobs 4, throughput, threads 2."""
    jobs = setting.get("jobs", 1)
    return (
        100
        - 5 * abs(jobs - 4)
        + 20 * (setting.get("hint") == "throughput")
        + 5 * (setting.get("threads") or 0)
    )


def run(search, score, most=500):
    asked = []
    while (setting := search.next()) is not None:
        asked.append(dict(setting))
        assert len(asked) <= most
        search.tell(score(setting))
    return asked


def test_the_best_is_found_and_the_given_comes_first():
    search = Search(KNOBS)
    asked = run(search, smooth)
    assert asked[0] == {}
    assert search.best == {"jobs": 4, "hint": "throughput", "threads": 2}
    assert search.score == 130
    assert search.next() is None


def test_what_is_given_stays_where_it_is_the_best():
    search = Search([Knob("jobs", (0, 1, 2, 3, 4), 2)])
    asked = run(search, lambda s: 100 - abs(s.get("jobs", 2) - 2))
    assert search.best == {}
    assert asked == [{}, {"jobs": 3}, {"jobs": 4}, {"jobs": 1}, {"jobs": 0}]


def test_one_step_that_does_not_help_is_stepped_over():
    scores = {0: 10, 1: 5, 2: 20, 3: 1, 4: 1, 5: 1000}
    search = Search([Knob("x", tuple(scores), 0)])
    run(search, lambda s: scores[s.get("x", 0)])
    assert search.best == {"x": 2}  # two that do not are the end


def test_settings_that_do_not_work_are_left():
    search = Search(KNOBS)
    run(
        search,
        lambda s: None if s.get("hint") == "throughput" or s.get("jobs", 1) > 2 else smooth(s),
    )
    assert search.best == {"jobs": 2, "threads": 2}


def test_one_that_never_works():
    search = Search(KNOBS)
    run(search, lambda s: None)
    assert (search.best, search.score) == ({}, None)


def test_one_that_seems_better_is_asked_for_again_beside_the_best():
    search = Search([Knob("x", (0, 1), 0)])
    answers = iter([100, 120, 119, 121])
    assert run(search, lambda s: next(answers)) == [{}, {"x": 1}, {}, {"x": 1}]
    assert search.best == {}  # the machine was faster, not the setting
    search = Search([Knob("x", (0, 1), 0)])
    answers = iter([100, 120, 99, 120])
    run(search, lambda s: next(answers))
    assert search.best == {"x": 1}


@pytest.mark.parametrize("seed", range(20))
def test_noise_leads_nowhere_bad_and_mostly_to_something_good(seed):
    chance = random.Random(seed)
    search = Search(KNOBS)
    asked = run(search, lambda s: smooth(s) * chance.uniform(0.97, 1.03))
    assert smooth(search.best) > smooth({}) * 1.1
    assert len(asked) < 120


def test_pure_noise_ends():
    for seed in range(50):
        chance = random.Random(seed)
        assert len(run(Search(KNOBS), lambda s, c=chance: c.uniform(50, 150))) < 400


def test_telling_without_being_asked_changes_nothing():
    search = Search(KNOBS)
    with pytest.raises(ValueError):
        search.tell(1.0)
    assert search.next() == {}
    assert search.next() == {}  # asked for still


def test_a_knob_has_a_value():
    with pytest.raises(ValueError):
        Knob("x", (1, 2), 2)


@pytest.mark.parametrize(
    ("given", "found", "better"),
    [
        ([100, 100, 100], [110, 110, 110], True),
        ([100, 100, 100], [100, 100, 100], False),
        ([100, 100, 100], [100.5, 100.5, 100.5], False),
        ([100, 50, 100], [110, 60, 90], True),
        ([100, 50, 100], [110, 40, 90], False),
        ([100, 10, 100], [101.5, 100, 80], True),
        ([0, 0], [1, 1], True),
        ([0, 0], [0, 0], False),
        ([], [], False),
    ],
)
def test_better_is_better_in_pairs(given, found, better):
    assert is_better(given, found) == better


def test_noise_alone_is_hardly_ever_better():
    chance = random.Random(1)
    trials = [
        is_better(*([chance.gauss(100, 1) for _ in range(3)] for _ in range(2)))
        for _ in range(1000)
    ]
    assert sum(trials) < 250


# -- knobs ---------------------------------------------------------------------------------

YARD = """\
version: 1
stages:
  cam: {kind: synthetic}
  detect: {kind: infer, model: m.xml, jobs: 5, config: {NUM_STREAMS: 3}}
  boxes: {kind: annotate}
  out: {kind: jsonl, path: "-"}
"""


def spec(text=YARD):
    return loads(text, folder=Path(), environ={})


def test_knobs_begin_with_what_was_given():
    found = {knob.path: knob for knob in knobs(spec(), "throughput", 6)}
    assert found["stages.detect.jobs"].values == (0, 1, 2, 3, 4, 5, 6, 8, 12, 16)
    given = {path: knob.values[knob.given] for path, knob in found.items()}
    assert given["stages.detect.jobs"] == 5
    assert given["stages.detect.config.NUM_STREAMS"] == 3
    assert given["stages.detect.config.INFERENCE_NUM_THREADS"] is None
    assert None not in found["stages.detect.config.NUM_STREAMS"].values  # it stays set
    assert found["stages.detect.config.INFERENCE_NUM_THREADS"].values == (None, 1, 2, 3, 4, 6)
    assert given["stages.detect.batch"] == {}
    assert "stages.detect.batch" not in {k.path for k in knobs(spec(), "latency", 6)}


def test_every_value_of_every_knob_is_a_configuration():
    root = tree.parse(YARD)
    for knob in knobs(spec(), "throughput", 4):
        for value in knob.values:
            if value is not None:
                changed = override(root, assignments({knob.path: value}))
                stage = spec_of(changed, "c.yaml", {}).stages
                assert stage


def test_a_gpu_has_streams_and_no_threads():
    paths = [
        k.path for k in knobs(spec(YARD.replace("model:", "device: GPU.0, model:")), "latency", 4)
    ]
    assert "stages.detect.config.NUM_STREAMS" in paths
    assert not any("THREADS" in path for path in paths)


def test_a_setting_in_words():
    setting = {
        "stages.detect.jobs": 4,
        "stages.detect.hint": "latency",
        "stages.detect.batch": {"size": 2},
    }
    assert shown(setting) == 'detect.jobs=4, detect.hint=latency, detect.batch={"size": 2}'
    assert shown({}) == "as given"
    assert turning.assignments(setting)[2] == 'stages.detect.batch={"size": 2}'


# -- what is written -----------------------------------------------------------------------


def test_what_is_written_keeps_variables_and_quotes():
    text = (
        "version: 1\nx-mine: &r {restart: never}\nstages:\n  a:\n    kind: synthetic\n"
        "    fps: ${FPS:-10}\n    count: $COUNT  # how many\n"
        "  b: {kind: jsonl, path: '${OUT:-a}/$$x', run: *r}\n"
    )
    new = dump(as_written(override(tree.parse(text), ["stages.a.seed=3"])))
    environ = {"COUNT": "7", "OUT": "12"}
    before = loads(text, folder=Path(), environ=environ)
    after = loads(new, folder=Path(), environ=environ)
    assert after.stages[0].options == {**before.stages[0].options, "seed": 3}
    assert after.stages[0].options["count"] == 7
    assert after.stages[1].options == before.stages[1].options == {"path": "12/$x"}
    assert after.stages[1].run == before.stages[1].run
    assert "${FPS:-10}" in new


# -- the whole, with measurements that are made up -----------------------------------------


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def tried(score, clock, cost=10.0):
    def attempt(setting):
        clock.now += cost
        value = score(setting)
        return command.Try(dict(setting), value, f"{value}")

    return attempt


def test_the_budget_is_kept_with_the_end_in_it():
    clock = Clock()
    outcome = command.search(Search(KNOBS), tried(smooth, clock), 150.0, 2, clock)
    assert outcome.out_of_time
    assert clock.now <= 150.0
    assert len(outcome.pairs) == 2
    assert outcome.better
    assert len(outcome.scores) == len(outcome.tries)


def test_what_there_was_no_time_to_confirm_is_measured_at_the_end(monkeypatch):
    clock = Clock()
    score = {0: 100.0, 2: 150.0, 3: 90.0}
    outcome = command.search(
        Search(KNOBS), tried(lambda s: score.get(s.get("jobs", 0), 1.0), clock), 71.0, 2, clock
    )
    assert [t.setting for t in outcome.tries] == [{}, {"jobs": 2}]
    assert outcome.best == {"jobs": 2}
    assert outcome.better
    assert clock.now <= 71.0


def test_with_time_enough_the_best_is_found_and_measured_alternately():
    clock = Clock()
    outcome = command.search(Search(KNOBS), tried(smooth, clock), 1e6, 3, clock)
    assert not outcome.out_of_time
    assert outcome.best == {"jobs": 4, "hint": "throughput", "threads": 2}
    assert [(a.setting, b.setting) for a, b in outcome.pairs] == [({}, outcome.best)] * 3


def test_what_only_seemed_better_is_not_better():
    clock = Clock()
    calls = []

    def score(setting):
        calls.append(setting)
        return 150.0 if setting and len(calls) < 12 else 100.0

    outcome = command.search(Search(KNOBS), tried(score, clock), 1e6, 3, clock)
    assert outcome.best
    assert not outcome.better


def test_nothing_better_and_nothing_that_works():
    clock = Clock()
    outcome = command.search(Search(KNOBS), tried(lambda s: 100.0, clock), 1e6, 3, clock)
    assert (outcome.best, outcome.pairs, outcome.better) == ({}, [], False)
    outcome = command.search(Search(KNOBS), tried(lambda s: None, clock), 1e6, 3, clock)
    assert len(outcome.tries) == 1


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """tune, with figures that follow from the jobs."""
    (tmp_path / "c.yaml").write_text("# mine\n" + YARD.replace("m.xml", "${M:-m.xml}").replace(
        "{kind: infer, model: ${M:-m.xml}, jobs: 5, config: {NUM_STREAMS: 3}}",
        "\n    kind: infer\n    model: ${M:-m.xml}\n    jobs: 1",
    ))  # fmt: skip

    def throughput(spec, warm, seconds, size):
        options = next(s.options for s in spec.stages if s.kind == "infer")
        value = 100.0 + 10 * min(options.get("jobs", 0), 4) - 50 * bool(options.get("batch"))
        return value, f"{value} frames/s"

    monkeypatch.setattr(command, "_throughput", throughput)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(group, ["tune", "c.yaml", *arguments])


def test_the_better_one_is_written_beside(made_up):
    before = (made_up / "c.yaml").read_text()
    ended = call("--plot", "p.svg")
    assert ended.exit_code == 0, ended.output
    assert (made_up / "c.yaml").read_text() == before
    text = (made_up / "c.tuned.yaml").read_text()
    assert text.startswith("# Found by `ovpipe tune` for throughput: 1.27 times as good")
    spec = loads(text, folder=made_up, environ={}, name="other")
    assert spec.name == "c"  # `ovpipe ps` calls it as before
    options = next(s.options for s in spec.stages if s.kind == "infer")
    assert (options["jobs"], options["model"]) == (4, "m.xml")
    assert "${M:-m.xml}" in text
    assert "written to c.tuned.yaml (without comments)" in ended.stdout
    assert (made_up / "p.svg").read_text().startswith("<svg")
    again = call()
    assert again.exit_code != 0
    assert "c.tuned.yaml is there already: --overwrite it" in again.output
    assert call("--overwrite").exit_code == 0


def test_nothing_is_written_where_nothing_is_better(made_up, monkeypatch):
    monkeypatch.setattr(command, "_throughput", lambda *_: (100.0, "100.0 frames/s"))
    ended = call("--json")
    told = json.loads(ended.stdout)
    assert (told["written"], told["better"], told["best"]) == (None, False, {})
    assert not (made_up / "c.tuned.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--goal", "latency"], "needs --fps"),
        (["-o", "c.yaml", "--overwrite"], "is there already"),
        (["-o", "none/d.yaml"], "cannot be written"),
        (["--budget", "soon"], "is no duration"),
        (["--set", "stages.detect.jobs=many"], ""),
    ],
)
def test_wrong_usage(made_up, arguments, says):
    ended = call(*arguments)
    assert ended.exit_code != 0
    assert says in ended.output
    assert not (made_up / "c.tuned.yaml").exists()


def test_where_there_is_nothing_to_turn(made_up, monkeypatch):
    monkeypatch.setattr(turning, "knobs", lambda *_: [])
    assert "there is nothing to turn" in call().output


def test_what_cannot_be_measured_is_told(made_up, monkeypatch):
    def fails(*_):
        raise command.OvpipeError("no model\nmore")

    monkeypatch.setattr(command, "_throughput", fails)
    ended = call()
    assert ended.exit_code != 0
    assert "as given it cannot be measured: no model" in ended.output
