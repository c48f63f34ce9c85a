"""Which recordings may stay: by age, size and free space; and what is never touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ovpipe.stages.naming import Pattern
from ovpipe.stages.retention import Keeper, Shelf, matching

DAY = 86400.0


def shelf(keep: dict[str, float], *ages: float) -> Shelf:
    """Files of 100 bytes, born at these times."""
    made = Shelf(keep)  # type: ignore[arg-type]
    for i, born in enumerate(ages):
        made.put(Path(f"{i}"), 100, born)
    return made


def names(found: list) -> str:
    return "".join(str(entry.path) for entry in found)


def test_age_takes_the_oldest() -> None:
    kept = shelf({"age": 10}, 5, 0, 9)
    assert names(kept.overdue(10, 0, 0)) == ""
    assert names(kept.overdue(11, 0, 0)) == "1"
    assert names(kept.overdue(100, 0, 0)) == "102"


def test_size_counts_what_is_being_written() -> None:
    kept = shelf({"size": 300}, 0, 1, 2)
    assert names(kept.overdue(0, 0, 0)) == ""
    assert names(kept.overdue(0, 1, 0)) == "0"
    assert names(kept.overdue(0, 150, 0)) == "01"


def test_free_space_is_made() -> None:
    kept = shelf({"free": 1000}, 0, 1, 2)
    assert names(kept.overdue(0, 0, 1000)) == ""
    assert names(kept.overdue(0, 0, 850)) == "01"
    assert names(kept.overdue(0, 0, 0)) == "012"


def test_room_is_made_whatever_is_kept() -> None:
    kept = shelf({"age": 1e9}, 0, 1, 2)
    assert names(kept.overdue(0, 0, 10**9, least=1)) == "0"
    assert names(kept.overdue(0, 0, 50, room=200)) == "01"


def test_what_is_gone_is_not_counted() -> None:
    kept = shelf({"size": 200}, 0, 1, 2)
    kept.forget({Path("0")})
    assert kept.bytes == 200
    assert names(kept.overdue(0, 0, 0)) == ""
    kept.put(Path("1"), 100, 0)  # known already
    assert kept.bytes == 200


# -- on the disk --------------------------------------------------------------------------------


class Clocks:
    """A wall clock that may be set, and one that may not."""

    def __init__(self) -> None:
        self.wall, self.running = 1_700_000_000.0, 1000.0

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.running += seconds


def keeper(folder: Path, clocks: Clocks, **keep: float) -> Keeper:
    pattern = Pattern(f"{folder}/rec/{{stream}}/{{n}}.mp4")
    return Keeper("w", pattern, keep, lambda: clocks.wall, lambda: clocks.running)  # type: ignore[arg-type]


def recording(folder: Path, name: str, clocks: Clocks, age_s: float = 0.0) -> Path:
    path = folder / "rec" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(100))
    os.utime(path, (clocks.wall - age_s, clocks.wall - age_s))
    return path


def there(folder: Path) -> list[str]:
    return sorted(
        str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_symlink() or not p.is_dir()
    )


def test_only_files_of_the_pattern_go_and_empty_folders_with_them(tmp_path: Path) -> None:
    clocks = Clocks()
    for name in (
        "a/1.mp4",
        "a/2.mp4",
        "b/1-2.mp4",
        "b/one.mp4",
        "b/1.mkv",
        "a/deep/1.mp4",
        "1.mp4",
    ):
        recording(tmp_path, name, clocks, 9 * DAY)
    recording(tmp_path, "c/1.mp4", clocks, DAY)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "1.mp4").write_bytes(b"precious")
    os.utime(outside / "1.mp4", (0, 0))
    (tmp_path / "rec" / "link").symlink_to(outside)
    (tmp_path / "rec" / "c" / "7.mp4").symlink_to(outside / "1.mp4")
    keeper(tmp_path, clocks, age=7 * DAY).look()
    assert there(tmp_path) == [
        "outside/1.mp4", "rec/1.mp4", "rec/a/deep/1.mp4", "rec/b/1.mkv", "rec/b/one.mp4",
        "rec/c/1.mp4", "rec/c/7.mp4", "rec/link",
    ]  # fmt: skip
    for name in ("rec/a/deep/1.mp4",):
        (tmp_path / name).unlink()
    recording(tmp_path, "d/1.mp4", clocks, 9 * DAY)
    keeper(tmp_path, clocks, age=7 * DAY).look()
    assert not (tmp_path / "rec" / "d").exists()
    assert (tmp_path / "rec").exists()


@pytest.mark.parametrize("jump", [365 * DAY, -365 * DAY, 3600.0, -3600.0])
def test_G01_a_clock_that_jumps_deletes_nothing(tmp_path: Path, jump: float) -> None:
    clocks = Clocks()
    for i in range(5):
        recording(tmp_path, f"a/{i}.mp4", clocks, i * DAY)
    kept = keeper(tmp_path, clocks, age=7 * DAY)
    kept.look()
    clocks.wall += jump
    clocks.pass_(60)
    new = recording(tmp_path, "a/9.mp4", clocks)
    kept.ended(new)
    kept.look()
    clocks.pass_(700)  # looks anew
    kept.look()
    assert len(there(tmp_path)) == 6
    clocks.pass_(3 * DAY)  # time that really passes counts
    kept.look()
    assert there(tmp_path) == [f"rec/a/{i}.mp4" for i in (0, 1, 2, 3, 9)]


def test_what_is_of_the_future_is_new(tmp_path: Path) -> None:
    clocks = Clocks()
    recording(tmp_path, "a/1.mp4", clocks, -365 * DAY)
    kept = keeper(tmp_path, clocks, age=7 * DAY)
    kept.look()
    assert there(tmp_path)
    clocks.pass_(8 * DAY)
    kept.look()
    assert not there(tmp_path)


def test_what_is_being_written_stays(tmp_path: Path) -> None:
    clocks = Clocks()
    old = recording(tmp_path, "a/1.mp4", clocks, 9 * DAY)
    kept = keeper(tmp_path, clocks, age=7 * DAY, size=50)
    kept.begun(old)
    kept.look()
    assert not kept.apply()
    assert not kept.make_room(1 << 60)
    assert old.exists()
    kept.ended(old)
    assert kept.apply()
    assert not old.exists()


def test_files_that_others_delete_are_forgotten_and_new_ones_found(tmp_path: Path) -> None:
    clocks = Clocks()
    for i in range(3):
        recording(tmp_path, f"a/{i}.mp4", clocks, 100 - i)
    kept = keeper(tmp_path, clocks, size=300)
    kept.look()
    (tmp_path / "rec/a/0.mp4").unlink()
    recording(tmp_path, "a/7.mp4", clocks, 50)
    clocks.pass_(700)
    kept.look()
    assert there(tmp_path) == ["rec/a/1.mp4", "rec/a/2.mp4", "rec/a/7.mp4"]


def test_free_space_that_cannot_be_had_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clocks = Clocks()
    old = recording(tmp_path, "a/1.mp4", clocks)
    kept = keeper(tmp_path, clocks, free=1 << 60)
    kept.look()
    kept.apply()
    assert not old.exists()
    assert caplog.text.count("nothing that is recorded is left to delete") == 1


def test_the_thread_ends_when_it_is_told(tmp_path: Path) -> None:
    clocks = Clocks()
    old = recording(tmp_path, "a/1.mp4", clocks, 9 * DAY)
    kept = keeper(tmp_path, clocks, age=7 * DAY)
    kept.start()
    kept.close()
    assert not old.exists()


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    assert list(matching(Pattern(f"{tmp_path}/none/{{n}}.mp4"))) == []
