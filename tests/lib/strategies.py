"""What hypothesis draws for more than one test."""

from __future__ import annotations

from hypothesis import strategies as st

from fednode.sync.change import DELETE, ERASE, UPSERT, Columns

_keys = st.binary(max_size=20)
_ops = st.sampled_from((UPSERT, DELETE, ERASE))


@st.composite
def some_columns(draw: st.DrawFn) -> Columns:
    """The columns of any segment."""
    count = draw(st.integers(1, 30))
    first = draw(st.integers(0, 2**62))
    deltas = draw(st.lists(st.integers(1, 2**50), min_size=count - 1, max_size=count - 1))
    hlcs = [first]
    for delta in deltas:
        hlcs.append(hlcs[-1] + delta)
    sized = {"min_size": count, "max_size": count}
    bases = draw(st.lists(st.integers(0, 2**62), **sized))
    return Columns(
        draw(st.integers(0, 2**32 - 1)),
        draw(st.lists(_keys, **sized)),
        hlcs,
        bytes(draw(st.lists(_ops, **sized))),
        draw(st.lists(st.binary(max_size=60), **sized)),
        draw(st.binary(min_size=32, max_size=32)),
        bases if any(bases) else [],
    )
