"""What takes the place of a damaged segment when the neighbour has it stripped: by whom, and with what reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chain import CITY, COUNTY, PROVINCE, TOWNSHIP, VILLAGE, WORLD, Chain, Node
from fednode.sync import segment as seg
from fednode.sync.effects import Commit, Done
from fednode.sync.strip import erase_change, reseal, strip
from fednode.sync.wire import Want
from world import Stream, shop

LOG = WORLD.log(VILLAGE)
WANT = Want(str(LOG), 0, restore=True)


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    """The village's two changes, held by all above it."""
    made = Chain(tmp_path)
    made[VILLAGE].write(shop("a", VILLAGE), shop("b", VILLAGE))
    made.up()
    yield made
    made.close()


def damage(node: Node, data: bytes | None = None) -> None:
    held = node.held(LOG, 0)
    with node.disk() as c:
        bad = data if data is not None else held.raw[:-1] + bytes((held.raw[-1] ^ 1,))
        c.execute("update segment set data = ? where lsn = ?", (bad, held.lsn))


def stripped(chain: Chain, by: str, *positions: int) -> bytes:
    """The segment as a node strips it."""
    held = chain[by].held(LOG, 0)
    columns = chain[by].columns(held)
    readers = WORLD.readers(PROVINCE, COUNTY, TOWNSHIP, VILLAGE)
    sign = WORLD.places[by].keys.sign.sign
    gone = strip(columns, positions)
    return reseal(seg.parse(held.raw), gone, WORLD.identity(by), readers, sign, Stream("stripped", by))[0]


def offered(node: Node, raw: bytes, peer: str = TOWNSHIP) -> Done:
    (done,) = node.take(peer, Commit(99, raw, WORLD.cosignature(TOWNSHIP, raw)))
    return done


def test_a_reader_takes_nobodys_word_for_what_is_gone(chain: Chain) -> None:
    county = chain[COUNTY]
    damage(county)
    done = offered(county, stripped(chain, TOWNSHIP, 0))
    assert (done.mended, done.unfit, done.refused) == (None, WANT, "")
    assert county.verified() == {"FN-6601"}
    county.write(erase_change(LOG, 0, "court order"), audience=VILLAGE)
    done = offered(county, stripped(chain, TOWNSHIP, 0, 1))
    assert done.unfit == WANT, "of these two one alone was erased"
    done = offered(county, stripped(chain, TOWNSHIP, 0))
    assert (done.mended, done.unfit) == (WANT, None)
    assert county.verified() == set()
    assert sorted(county.records()) == ["b"]


def test_what_lacks_less_than_was_erased_is_stripped_further(chain: Chain) -> None:
    county = chain[COUNTY]
    damage(county)
    county.write(erase_change(LOG, 0, "x"), erase_change(LOG, 1, "x"), audience=VILLAGE)
    assert offered(county, stripped(chain, TOWNSHIP, 1)).mended == WANT
    assert sorted(county.columns(county.held(LOG, 0)).leaves) == [0, 1]
    assert county.records() == {}


def test_who_carries_it_takes_it_from_whoever_may_have_sealed_it(chain: Chain) -> None:
    city = chain[CITY]
    raw = stripped(chain, COUNTY, 0)
    damage(city, b"")
    forged = raw[:-1] + bytes((raw[-1] ^ 1,))
    done = offered(city, forged, COUNTY)
    assert (done.refused, done.unfit) == ("FN-6406", WANT)
    assert offered(city, raw, COUNTY).mended == WANT
    assert city.verified() == set()


def test_another_history_takes_no_place(chain: Chain) -> None:
    """The origin's own doing: as long, signed, and not what was held."""
    county = chain[COUNTY]
    other = WORLD.segment(VILLAGE, [shop("x", VILLAGE), shop("y", VILLAGE)])
    gone = strip(other.columns, [0])
    sign = WORLD.places[VILLAGE].keys.sign.sign
    readers = WORLD.readers(PROVINCE, COUNTY, TOWNSHIP, VILLAGE)
    raw, _ = reseal(seg.parse(other.raw), gone, WORLD.identity(VILLAGE), readers, sign, Stream("other"))
    damage(county)
    county.write(erase_change(LOG, 0, "x"), audience=VILLAGE)
    assert offered(county, raw).mended is None
    assert county.verified() == {"FN-6601"}


def test_the_child_still_hears_what_was_cosigned(chain: Chain) -> None:
    township = chain[TOWNSHIP]
    before = township.store.first_parent(township.held(LOG, 0).lsn)
    assert before is not None
    raw = stripped(chain, VILLAGE, 0)
    damage(township)
    done = offered(township, raw, VILLAGE)
    assert (done.unfit, done.cosignature) == (WANT, before)
