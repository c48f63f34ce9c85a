"""Names of recordings: what a pattern gives, what it takes for its own, what it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovpipe.errors import PreflightError
from ovpipe.stages.naming import Facts, Pattern

NOON = 1_700_000_000.25  # 2023-11-14T22:13:20 UTC


def own(pattern: Pattern, path: Path) -> bool:
    """Whether the pattern takes the path for one of its own."""
    try:
        below = path.relative_to(pattern.root).parts
    except ValueError:
        return False
    return len(below) == len(pattern.parts) and all(
        regex.fullmatch(part) for regex, part in zip(pattern.parts, below, strict=True)
    )


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("rec/{stream}.mp4", "rec/cam_gate.mp4"),
        (
            "rec/{stream}/{time:%Y-%m-%d}/{time:%H-%M-%S}.mp4",
            "rec/cam_gate/2023-11-14/22-13-20.mp4",
        ),
        ("{time}.mkv", "2023-11-14T22-13-20+0000.mkv"),
        ("rec/{time:%Y/%m/%d}/{n:04}.mp4", "rec/2023/11/14/0007.mp4"),
        ("/rec/{n}-{seq:08}-{label}.mp4", "/rec/7-00000041-person.mp4"),
        ("rec/{{x}}-{n:03d}.mp4", "rec/{x}-007.mp4"),
        ("rec/{time:%j%%%f}.mp4", "rec/318%250000.mp4"),
        ("plain.mp4", "plain.mp4"),
    ],
)
def test_what_a_pattern_gives(text: str, path: str) -> None:
    pattern = Pattern(text, utc=True)
    given_ = pattern.path(Facts("cam/gate", NOON, 7, 41, "person"))
    assert str(given_) == path
    assert own(pattern, given_)
    assert own(pattern, given_.with_stem(f"{given_.stem}-12"))
    assert pattern.number(given_) == (7 if "{n" in text else 0)


def test_local_time_is_the_default_and_says_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "XYZ-5:30")
    time.tzset()
    try:
        assert str(Pattern("{time}.mp4").path(Facts("cam", NOON))) == "2023-11-15T03-43-20+0530.mp4"
        assert str(Pattern("{time:%H}.mp4", utc=True).path(Facts("cam", NOON))) == "22.mp4"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rec/{name}.mp4", "no {name}; there are {stream}, {time}, {n}, {seq}, {label}"),
        ("rec/{}.mp4", "there is no {}"),
        ("rec/{stream!r}.mp4", "there is no {stream}"),
        ("rec/{stream.__class__}.mp4", "there is no {stream.__class__}"),
        ("rec/{n[0]}.mp4", "there is no {n[0]}"),
        ("rec/{stream:>9}.mp4", "stream has no format"),
        ("rec/{n:x}.mp4", "a number is written as {n:06}"),
        ("rec/{n:0999}.mp4", "a number is written as {n:06}"),
        ("rec/{time:%Q}.mp4", "'%Q' is no part of a time"),
        ("rec/{time:%}.mp4", "'%' is no part of a time"),
        ("rec/{time:{n}}.mp4", "there is no {time}"),
        ("rec/{stream.mp4", "expected '}'"),
        ("rec/stream}.mp4", "Single '}'"),
    ],
)
def test_what_is_no_pattern(text: str, says: str) -> None:
    with pytest.raises(PreflightError, match=re.escape(says)) as caught:
        Pattern(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["x.mp4", "22-13-20.mkv", "22-13-20.mp4.bak", ".22-13-20.mp4", "22-13-2.mp4", "a22-13-20.mp4",
     "22-13-20-.mp4", "22-13-20-x.mp4", "22x13x20.mp4"],
)  # fmt: skip
def test_what_is_not_its_own(name: str) -> None:
    pattern = Pattern("rec/{stream}/{time:%H-%M-%S}.mp4")
    assert own(pattern, Path("rec/cam/22-13-20.mp4"))
    assert not own(pattern, Path("rec/cam") / name)
    assert not own(pattern, Path("other/cam/22-13-20.mp4"))
    assert not own(pattern, Path("rec/22-13-20.mp4"))


@given(stream=st.text(max_size=300), label=st.text(max_size=300))
def test_F03_whatever_a_stream_is_called_it_stays_in_the_folder(stream: str, label: str) -> None:
    pattern = Pattern("rec/{stream}/{label}-{n}.mp4")
    path = pattern.path(Facts(stream, NOON, label=label))
    assert path.parts[0] == "rec"
    assert len(path.parts) == 3
    assert not {".", ".."} & set(path.parts)
    assert all(len(part.encode()) < 256 and "\0" not in part for part in path.parts)
    assert own(pattern, path)
