"""Times of live sources: they rise, whatever the source says (jumps, repeats, overflows)."""

from hypothesis import given
from hypothesis import strategies as st

from ovpipe.stages.timeline import Timeline

S = 10**9


def test_an_honest_source_keeps_its_own_intervals():
    line = Timeline()
    pts = [70 * S + i * S // 25 for i in range(10)]
    late = [0, 5, 1, 90, 3, 2, 40, 0, 1, 2]  # what the network adds, in ms
    captured = [S + i * S // 25 + ms * 10**6 for i, ms in enumerate(late)]
    placed = [line.place(p, c) for p, c in zip(pts, captured, strict=True)]
    assert placed == [i * S // 25 for i in range(10)]


def test_going_back_repeating_jumping_and_saying_nothing():
    line = Timeline()
    told = [0, S, S, 0, S, 500 * S, 501 * S, None, None, 502 * S]
    placed = [line.place(p, i * S) for i, p in enumerate(told)]
    assert placed == [i * S for i in range(10)]


def test_another_connection_goes_on_where_the_clock_is():
    line = Timeline()
    assert [line.place(i * S, i * S) for i in range(3)] == [0, S, 2 * S]
    line.restart()
    assert [line.place(i * S, (10 + i) * S) for i in range(3)] == [10 * S, 11 * S, 12 * S]


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.integers(-(2**62), 2**62), st.integers(0, 10 * S)),
            st.integers(0, 10 * S),
            st.booleans(),
        )
    )
)
def test_times_rise_and_stay_with_the_clock(events):
    line, now, last = Timeline(), 0, -1
    for pts, passed, again in events:
        before, now = now, now + passed
        if again:
            line.restart()
        placed = line.place(pts, now)
        assert placed > last
        if last >= 0:
            assert abs(placed - last - (now - before)) <= 5 * S + 1
        last = placed
