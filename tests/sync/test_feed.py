"""Names of logs, and which peer is owed which log."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.node import admission
from fednode.node.link import Link
from fednode.node.store import Store
from fednode.node.trust import Trust
from fednode.sync import segment as seg
from fednode.sync.change import Change, LogName
from fednode.sync.errors import PeerError
from fednode.sync.feed import EVERY_CHILD, Route, Side, goes_down_to, route
from fednode.sync.log import LogState
from fednode.sync.side import PULL_BYTES
from world import Stream, World, seed

# ---------------------------------------------------------------- names


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    st.from_regex(r"[a-z0-9-]{1,32}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True),
    st.integers(1, 999_999_999),
    st.from_regex(r"[a-z][a-z0-9.-]{0,63}", fullmatch=True),
    st.just("") | st.from_regex(r"[0-9]{2,12}", fullmatch=True),
)
def test_a_name_comes_back(domain: str, origin: str, incarnation: int, dataset: str, audience: str) -> None:
    name = LogName(domain, origin, incarnation, dataset, audience)
    assert LogName.parse(str(name)) == name
    assert name.signer == f"{domain}/{origin}"
    assert name.is_open == (dataset in ("sys.nodes", "sys.catalog"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hebei/13/1",
        "hebei/13/1/x/y",
        "hebei/13/1/x@",
        "hebei/13/1/x@1",
        "hebei/13/1/x@1234567890123",
        "hebei/13/1/x@13@14",
        "hebei/13/1/x\n",
        "hebei/13/1/x ",
        " hebei/13/1/x",
        "hebei/13/01/x",
        "hebei/13/-1/x",
        "hebei/13/0/x",
        "hebei/13/1234567890/x",
        "hebei/13/1/X",
        "hebei/13/1/1x",
        "HEBEI/13/1/x",
        "hebei/村/1/x",
        "hebei/13/١/x",
        "hebei/13/1/x@١٢",
    ],
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(PeerError) as caught:
        LogName.parse(text)
    assert caught.value.code == "FN-6410"


# ---------------------------------------------------------------- routes

PLAIN = LogName("hebei", "130102", 1, "admin-licence")
TO_VILLAGE = LogName("hebei", "130102", 1, "admin-licence", "130102001001")
SCOPE = ("130102",)


@pytest.mark.parametrize(
    ("name", "side", "up", "down", "want"),
    [
        (PLAIN, Side.SELF, True, False, Route(True, "")),
        (PLAIN, Side.SELF, True, True, Route(True, EVERY_CHILD)),
        (PLAIN, Side.SELF, False, True, Route(False, EVERY_CHILD)),
        (PLAIN, Side.BELOW, True, True, Route(True, "")),  # nothing of a child goes to its sibling
        (PLAIN, Side.BELOW, False, True, Route(False, "")),
        (PLAIN, Side.ABOVE, True, True, Route(False, EVERY_CHILD)),  # nothing goes back
        (PLAIN, Side.ABOVE, True, False, Route(False, "")),
        (TO_VILLAGE, Side.SELF, True, False, Route(True, "130102001001")),  # for one child, whatever the flow
        (TO_VILLAGE, Side.ABOVE, True, True, Route(False, "130102001001")),
        (TO_VILLAGE, Side.BELOW, True, True, Route(True, "")),
    ],
)
def test_routes(name: LogName, side: Side, up: bool, down: bool, want: Route) -> None:
    assert route(name, side, up, down, SCOPE) == want


def test_what_is_for_another_area_goes_no_further() -> None:
    assert route(TO_VILLAGE, Side.ABOVE, True, True, ("130102002",)) == Route(False, "")


@pytest.mark.parametrize(
    ("down", "scope", "goes"),
    [
        ("", ("13",), False),
        (EVERY_CHILD, (), True),
        ("130102001001", ("130102001",), True),
        ("130102001001", ("130102001001",), True),
        ("130102001001", ("130102002",), False),
        ("130102001", ("130102001001",), False),  # a township's is not its village's
        ("130102001001", ("130102002", "130102001"), True),
    ],
)
def test_the_child_whose_scope_covers_the_audience_gets_it(down: str, scope: tuple[str, ...], goes: bool) -> None:
    assert goes_down_to(down, scope) is goes


# ---------------------------------------------------------------- the same out of a real store


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store.create(tmp_path_factory.mktemp("s") / "log.db", store_id=bytes(16), stash_key=seed("stash"))
    yield made
    made.close()


def append(store: Store, world: World, node: str, routed: Route, count: int = 1, size: int = 10, **more: str) -> str:
    """Segments of a log of this node's own; its name."""
    state = LogState(world.log(node, **more))
    noise = Stream(node, str(more))
    with store.write() as tx:
        for i in range(count):
            change = Change(str(i).encode(), noise(size))
            own = world.segment(node, [change], state=state, hlc=state.last_hlc + 1, readers=())
            tx.append_own(own, routed)
            state = own.after
    return str(state.name)


def test_a_feed_is_what_its_route_says(store: Store, world: World) -> None:
    up = append(store, world, "130102", Route(True, ""))
    every = append(store, world, "1301", Route(False, EVERY_CHILD))
    one = append(store, world, "130102", Route(True, "130102001001"), audience="130102001001")

    def names(items: object) -> list[str]:
        return [str(store.place(item.lsn)[0]) for item in items]  # type: ignore[attr-defined, index]

    assert names(store.feed_up(0, PULL_BYTES)[0]) == [up, one]
    assert names(store.feed_down(("130102001",), 0, PULL_BYTES)[0]) == [every, one]
    assert names(store.feed_down(("130102002",), 0, PULL_BYTES)[0]) == [every]
    assert names(store.feed_up(1, PULL_BYTES)[0]) == [one]


def test_regression_a_parent_gets_nothing_that_does_not_go_up(store: Store, world: World) -> None:
    """Asked for by name (Want), any log was handed out."""
    name = append(store, world, "1301", Route(False, EVERY_CHILD))
    other = append(store, world, "130102", Route(True, ""))
    _, up = admission.feeds(store, trust(world), link(world, "13"))
    assert up(name, 0, 1 << 40) == []
    assert [item.lsn for item in up(other, 0, 1 << 40)] == [2]


def test_regression_a_long_stretch_ends_with_its_last_segment(store: Store, world: World) -> None:
    """What is sent again is bounded. Its last segment comes too early once more, and the peer asks on."""
    name = append(store, world, "130102", Route(True, EVERY_CHILD), count=12, size=240_000)
    append(store, world, "1301", Route(True, EVERY_CHILD))
    for peer in ("13", "130102001"):
        _, again = admission.feeds(store, trust(world), link(world, peer))
        first = again(name, 0, 12)
        got = [item.lsn for item in first]
        assert got[-1] == 12
        assert got[:-1] == list(range(1, len(got)))
        assert sum(len(item.data) for item in first[:-1]) <= PULL_BYTES
        assert [item.lsn for item in again(name, 9, 12)] == [10, 11, 12]
        assert [item.lsn for item in again(name, 0, 3)] == [1, 2, 3]
        assert again(name, 12, 12) == []


def test_a_child_that_takes_its_history_back_gets_its_own_and_what_is_below_it(store: Store, world: World) -> None:
    own = append(store, world, "130102", Route(True, ""))
    below = append(store, world, "130102001001", Route(True, ""))
    append(store, world, "130104", Route(True, ""))
    down = append(store, world, "1301", Route(True, EVERY_CHILD))
    ordinary, restoring = link(world, "130102"), link(world, "130102")
    restoring.restoring = True
    for one, expected in ((ordinary, [down]), (restoring, [own, below, down])):
        feed, again = admission.feeds(store, trust(world), one)
        assert [str(seg.parse(item.data).header.log) for item in feed(0, PULL_BYTES)[0]] == expected
        assert [item.lsn for item in again(below, 0, 1 << 40)] == ([2] if one is restoring else [])


def steps_of(store: Store, work: Callable[[], object]) -> int:
    """Of SQLite's machine."""
    taken = 0

    def step() -> int:
        nonlocal taken
        taken += 1
        return 0

    store.connection.set_progress_handler(step, 1)
    try:
        work()
    finally:
        store.connection.set_progress_handler(None, 0)
    return taken


def test_regression_what_is_not_for_a_peer_is_looked_at_once(store: Store, world: World) -> None:
    """A standby sends up what it writes itself alone, and holds all that its primary does: whenever something came it
    looked through all that had come since it wrote last."""
    append(store, world, "1301", Route(True, ""))
    feed, _ = admission.feeds(store, trust(world), link(world, "13"))
    assert [item.lsn for item in feed(0, PULL_BYTES)[0]] == [1]
    taken = []
    for held in range(50):
        append(store, world, "130102", Route(False, ""), dataset=f"d{held}")
        taken.append(steps_of(store, lambda: feed(1, PULL_BYTES)))
    assert taken[1:] == taken[1:2] * 49
    append(store, world, "1301", Route(True, ""), dataset="shop2")
    assert [item.lsn for item in feed(1, PULL_BYTES)[0]] == [52]
    assert [item.lsn for item in feed(0, PULL_BYTES)[0]] == [1, 52]
    assert feed(52, PULL_BYTES) == ([], True)


def test_what_was_looked_at_is_looked_at_again_where_logs_go_other_ways(store: Store, world: World) -> None:
    append(store, world, "130102", Route(False, ""))
    feed, _ = admission.feeds(store, trust(world), link(world, "13"))
    assert feed(0, PULL_BYTES) == ([], True)
    with store.write() as tx:
        tx.set_routes([(1, Route(True, ""))])
    assert [item.lsn for item in feed(0, PULL_BYTES)[0]] == [1]


def test_what_was_damaged_is_looked_at_again_until_it_is_mended(store: Store, world: World) -> None:
    append(store, world, "130102", Route(True, ""))
    feed, _ = admission.feeds(store, trust(world), link(world, "13"))
    (raw,) = store.rows("select data from segment")[0]
    with store.write() as tx:
        tx.execute("update segment set data = ?", raw[:-1] + bytes((raw[-1] ^ 1,)))
    assert feed(0, PULL_BYTES) == ([], True)
    store.damaged.clear()  # whoever mends it has taken it from there
    assert feed(0, PULL_BYTES) == ([], True)
    with store.write() as tx:
        tx.execute("update segment set data = ?", raw)
    store.damaged.clear()
    assert [item.lsn for item in feed(0, PULL_BYTES)[0]] == [1]


def trust(world: World) -> Trust:
    """The city's."""
    found = Trust(world.places["1301"].chain, "1301")
    found.directory = world.directory()
    return found


def link(world: World, peer: str) -> Link:
    return Link(world.identity(peer), 1, b"", peer == "13", 0)
