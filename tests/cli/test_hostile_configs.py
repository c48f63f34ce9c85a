"""H: what is wrong with a configuration is exit 2, said in full, before anything is run."""

import resource
import sys

import pytest

from ovpipe.cli import main

HEAD = "version: 1\nstages:\n"
SOURCE = "  a: {kind: synthetic}\n"
BOMB = "x0: &x0 [y, y, y, y, y, y, y, y, y, y]\n" + "".join(
    f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 10)}]\n" for i in range(1, 12)
)

# id, the text, what is said (all of it).
ROWS = [
    ("H01-apply", "a: !!python/object/apply:os.system ['touch mark']\n", ["tag"]),
    ("H01-new", "a: !!python/object/new:os.system ['touch mark']\n", ["tag"]),
    ("H01-name", "version: 1\na: !!python/name:os.system\n", ["tag"]),
    ("H01-module", HEAD + "  a: !!python/module:os\n", ["tag"]),
    ("H01-own-tag", HEAD + "  a: !mine {kind: log}\n", ["tag"]),
    ("H01-merge", "<<: !!python/object:os.stat_result {}\n", ["tag"]),
    ("H02-alias-bomb", BOMB, ["aliases expanded"]),
    ("H02-10000-levels", "[" * 10_000, ["nested deeper than 64 levels"]),
    ("H02-10000-maps", "{a: " * 10_000, ["nested deeper than 64 levels"]),
    ("H02-10000-indents", "".join(" " * i + "a:\n" for i in range(1000)), ["64 levels"]),
    ("H02-long-line", "a" * 900_000, ["c.yaml"]),
    ("H02-itself", "a: &a [*a]\n", ["c.yaml:1:"]),
    ("H02-duplicate-keys", HEAD + SOURCE + SOURCE, ["c.yaml:4:3:", "a"]),
    ("H02-tabs", HEAD + "\ta: {kind: log}\n", ["c.yaml:3:1:", "not with tabs"]),
    ("H02-not-text", b"version: 1\n\xff\xfe\n", ["c.yaml:2:1:", "UTF-8"]),
    ("H02-zeros", b"\0" * 1000, ["c.yaml:1:1:"]),
    ("H02-empty", "", ["c.yaml"]),
    (
        "H03-all-at-once",
        "versoin: 1\n" + HEAD + "  a: {kind: synthetic, sied: 1, count: many}\n  b: {kind: lgo}\n",
        ["versoin", "stages.a.sied", "'size'", "stages.a.count", "stages.b.kind", "'log'"],
    ),
    (
        "H04-cycle",
        HEAD + SOURCE + "  b: {kind: annotate, inputs: c}\n  c: {kind: annotate, inputs: [b, a]}\n",
        ["b -> c -> b"],
    ),
    (
        "F03-stream-names",
        HEAD
        + "  a: {kind: synthetic, for_each: {'../up': {}, '/etc/x': {}, '..': {}, 'a/b': {}}}\n",
        ["../up", "/etc/x", "a/b", "letters, digits, '_' or '-'"],
    ),
    ("H04-itself", HEAD + SOURCE + "  b: {kind: annotate, inputs: b}\n", ["b -> b"]),
    ("H04-dangling", HEAD + SOURCE + "  b: {kind: log, inputs: aa}\n", ["no stage 'aa'", "'a'"]),
    ("H04-no-source", HEAD + "  b: {kind: log}\n", ["b"]),
    ("H06-undefined", HEAD + "  a: {kind: jsonl, path: '${NOT_THERE}'}\n", ["NOT_THERE"]),
    (
        "H06-undefined-and-a-secret",
        HEAD + "  a: {kind: jsonl, path: '${NOT_THERE}/${SECRET}', append: '$SECRET'}\n",
        ["NOT_THERE"],
    ),
]


def call(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["ovpipe", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, *capsys.readouterr()


@pytest.mark.parametrize(("text", "says"), [pytest.param(*row[1:], id=row[0]) for row in ROWS])
@pytest.mark.parametrize("command", ["run", "validate"])
def test_row(monkeypatch, capsys, tmp_path, command, text, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", "hunter2")
    monkeypatch.delenv("NOT_THERE", raising=False)
    (tmp_path / "c.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code, out, err = call(monkeypatch, capsys, command, "c.yaml")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100 << 10  # KiB
    assert (code, out) == (2, "")
    assert all(text in err for text in says), err
    assert "Traceback" not in err
    assert "hunter2" not in err
    assert all(
        line.startswith("error: ") or line.endswith(" problems") for line in err.splitlines()
    )
    assert [p.name for p in tmp_path.iterdir()] == ["c.yaml"]  # no mark, and nothing else


def test_H02_a_file_of_100_MB(monkeypatch, capsys, tmp_path):
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(100 << 20)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code, _, err = call(monkeypatch, capsys, "run", str(path))
    assert code == 2
    assert "larger than 1 MiB" in err
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 50 << 10


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/full", "/proc/self/mem"])
def test_H02_what_is_no_file(monkeypatch, capsys, path):
    code, _, err = call(monkeypatch, capsys, "run", path)
    assert code == 2
    assert "Traceback" not in err
