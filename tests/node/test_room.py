"""Room on the disk, by the numbers: when a home is low, when the reserve goes and comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from fednode.node.room import CALM_PART, LITTLE, MIB, NOWHERE, TIGHT_PART, Room
from fednode.sync.errors import StoreError

R = 8 * MIB


class Free:
    """A disk whose free space a test decides."""

    def __init__(self, count: int) -> None:
        self.bytes = count

    def __call__(self, folder: Path) -> int:
        return self.bytes


def room_with(tmp_path: Path, free: int) -> tuple[Room, Free]:
    given = Free(free)
    return Room(tmp_path, R, given), given


@pytest.mark.parametrize(("free", "held", "low"), [(R, True, False), (R - 1, True, True), (2 * R, False, False)])
def test_low_is_less_than_a_reserve_beside_the_reserve(tmp_path: Path, free: int, held: bool, low: bool) -> None:
    room, disk = room_with(tmp_path, 4 * R)
    if held:
        assert room.restore()
        assert room.held() == R
    disk.bytes = free
    assert room.low is low
    if low:
        with pytest.raises(StoreError, match="FN-7630"):
            room.check()
    else:
        room.check()


def test_giving_the_reserve_up_changes_nothing_about_being_low(tmp_path: Path) -> None:
    room, disk = room_with(tmp_path, 4 * R)
    assert room.restore()
    disk.bytes = R // TIGHT_PART
    assert not room.make_way()
    disk.bytes -= 1
    assert room.make_way()
    assert not room.path.exists()
    assert room.given_up
    disk.bytes += R  # what it held is free now
    assert room.low
    assert not room.calm


def test_the_reserve_comes_back_when_there_is_clearly_room(tmp_path: Path) -> None:
    room, disk = room_with(tmp_path, 2 * R + R // CALM_PART - 1)
    assert not room.calm
    assert not room.restore()
    disk.bytes += 1
    assert room.calm
    assert room.restore()
    assert room.held() == R
    assert not room.given_up
    assert room.restore(), "it is there"


def test_projections_stop_later_than_changes_and_a_few_always_pass(tmp_path: Path) -> None:
    room, disk = room_with(tmp_path, 4 * R)
    room.restore()
    disk.bytes = R // CALM_PART
    with pytest.raises(StoreError, match="FN-7630"):
        room.check()
    room.check_projection(LITTLE + 1)
    disk.bytes -= 1
    room.check_projection(LITTLE)
    with pytest.raises(StoreError, match="FN-7630"):
        room.check_projection(LITTLE + 1)


def test_without_a_reserve_nothing_is_refused(tmp_path: Path) -> None:
    for room in (NOWHERE, Room(tmp_path, 0, Free(0))):
        room.check()
        room.check_projection(LITTLE + 1)
        assert not room.make_way()
        assert room.restore()
        assert not room.given_up
    assert list(tmp_path.iterdir()) == []


def test_a_reserve_that_cannot_be_laid_down_leaves_nothing(tmp_path: Path) -> None:
    room = Room(tmp_path / "gone", R, Free(4 * R))
    assert not room.restore()
    assert not room.make_way()
    assert room.held() == 0
