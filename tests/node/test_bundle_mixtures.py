"""INVARIANTS 27: any prefix, permutation or mixture of bundle volumes gives a verified whole or no change."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fednode.crypto.errors import FednodeError
from fednode.node import bundle_out, bundles, stick
from fednode.node.app import App
from sticks import SETTINGS, Row, held, write_much

FIRST, SECOND = 300, 500  # changes in the one bundle, and in the other
Step = tuple[str, int, int, int]


class Scene:
    """A province that has not heard of what two bundles of one city hold; the later begins where the earlier does.
    (No dataclass: Hypothesis would print two megabytes of it.)"""

    def __init__(self, folder: Path, files: Mapping[str, bytes], a: frozenset[bytes], b: frozenset[bytes]) -> None:
        self.folder, self.files, self.a, self.b = folder, files, a, b


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("mixtures")
    row = Row(folder, 1)
    city = row.apps[1]
    shutil.copytree(folder / "13", folder / "province")
    found: dict[str, bytes] = {}
    sets = []
    for segments in (3, 2):
        write_much(city, segments)
        carried = row.stick()
        files = map(Path, bundle_out.export(city, "13", carried, volume_bytes=128 * 1024).files)
        data = {path.name: path.read_bytes() for path in files}
        sets.append(frozenset(data.values()))
        found |= data
    assert min(map(len, sets)) >= 2
    yield Scene(folder, found, *sets)
    row.close()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("drop", "drop", "flip", "cut", "double", "swap", "append", "rename")),
        st.integers(0, 20),
        st.integers(0, 1 << 20),
        st.integers(0, 7),
    ),
    max_size=3,
)


def altered(files: Mapping[str, bytes], steps: Sequence[Step]) -> dict[str, bytes]:
    """What is left of the volumes of both bundles."""
    found = dict(files)
    for what, which, place, bit in steps:
        if not found:
            break
        name = sorted(found)[which % len(found)]
        data = found[name]
        at = place % max(1, len(data))
        if what == "drop":
            del found[name]
        elif what == "flip" and data:
            found[name] = data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]
        elif what == "cut":
            found[name] = data[:at]
        elif what == "append":
            found[name] = data + bytes([bit])
        elif what == "double":
            found[stick.volume_name(bytes([bit] * 16), 1 + place % 9_999)] = data
        elif what == "rename":
            found[stick.volume_name(bytes([bit] * 16), 1 + place % 9_999)] = found.pop(name)
        elif what == "swap":
            other = sorted(found)[place % len(found)]
            found[name], found[other] = found[other], found[name]
    return found


def check(scene: Scene, folder: Path, steps: Sequence[Step]) -> None:
    home, carried = folder / "home", folder / "stick"
    for path in (home, carried):
        shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(scene.folder / "province", home)
    carried.mkdir()
    left = altered(scene.files, steps)
    for name, data in left.items():
        (carried / name).write_bytes(data)
    there = set(left.values())
    want = SECOND if scene.b <= there else FIRST if scene.a <= there else 0
    app = App.open(home, SETTINGS)
    try:
        before = {name: size for _, name, size in app.store.logs()}
        try:
            report = bundles.take_in(app, [carried], answer=False)
            assert want == 0 or any(one.error is None for one in report.bundles)
        except FednodeError:
            assert want == 0
        assert held(app) == want
        after = {name: size for _, name, size in app.store.logs() if name.origin != "13"}
        assert want or after == {name: size for name, size in before.items() if name.origin != "13"}
        peer = app.store.peer("1301")
        assert peer is not None
        assert not app.store.refused()
    finally:
        app.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_a_verified_whole_or_no_change(scene: Scene, tmp_path: Path, steps: list[Step]) -> None:
    check(scene, tmp_path, steps)


@pytest.mark.slow
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_a_verified_whole_or_no_change_at_length(scene: Scene, tmp_path: Path, steps: list[Step]) -> None:
    check(scene, tmp_path, steps)


def test_the_undamaged_and_every_prefix(scene: Scene, tmp_path: Path) -> None:
    names = sorted(scene.files)
    for count in range(len(names) + 1):
        check(scene, tmp_path, [("drop", count, 0, 0)] * (len(names) - count))
