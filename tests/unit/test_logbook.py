"""The last lines of a run, bounded in number and size."""

from __future__ import annotations

from ovpipe.supervisor.logbook import MAX_BYTES, MAX_LINES, LogBook


def test_lines_are_numbered_and_read_on_from_any() -> None:
    book = LogBook()
    assert book.since(0, 10, 1000) == ([], 0)
    for number in range(5):
        book.add("cam", f"line {number}")
    lines, missed = book.since(2, 2, 1000)
    assert [(line.number, line.worker, line.text) for line in lines] == [
        (2, "cam", "line 2"), (3, "cam", "line 3"),
    ]  # fmt: skip
    assert missed == 0
    assert book.since(5, 10, 1000) == ([], 0)
    assert book.next == 5


def test_the_oldest_make_room_and_are_told_as_missed() -> None:
    book = LogBook()
    for number in range(MAX_LINES + 30):
        book.add("cam", str(number))
    lines, missed = book.since(10, 1, 1000)
    assert (lines[0].text, missed) == ("30", 20)
    assert len(book.since(0, 10**6, 10**9)[0]) == MAX_LINES


def test_long_lines_are_bounded_by_their_bytes() -> None:
    book = LogBook()
    for _ in range(1000):
        book.add("cam", "ä" * 1000)
    lines, _ = book.since(0, 10**6, 10**9)
    assert sum(line.cost for line in lines) <= MAX_BYTES
    assert len(lines) > 100


def test_one_line_is_given_however_long_it_is() -> None:
    book = LogBook()
    book.add("cam", "x" * 5000)
    book.add("cam", "y")
    lines, _ = book.since(0, 10, 100)
    assert [line.text[0] for line in lines] == ["x"]
    book.add("cam", "\udcff surrogates are lines, too")
