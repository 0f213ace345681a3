"""Making a home: what a process leaves that was killed while it did, and keys that wait for one."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from fednode.node import waiting
from fednode.node.app import App
from fednode.node.config import Config
from fednode.node.home import Home, NodeKeys
from fednode.sync.errors import Refused, StoreError
from world import Stream

SETTINGS = 'listen = "127.0.0.1:7999"\n'


def province(path: Path) -> App:
    return App.init_province(path, Config(), node="13", name="河北省", domain="hebei")


def died(path: Path, pid: int = 4_000_000) -> Path:
    """What a killed `init` leaves: a folder with private keys in it, and the settings, which were on their way."""
    left = path.with_name(f".{path.name}.making-{pid}")
    (left / "keys").mkdir(parents=True)
    (left / "keys" / "sign.pem").write_text("secret")
    (left / "config.toml").write_text(SETTINGS)
    return left


def test_regression_what_a_killed_init_left_goes_and_the_settings_come_back(tmp_path: Path) -> None:
    """Private keys stayed beside the home for ever, and a config.toml that was moved already was lost with them."""
    home = tmp_path / "13"
    left = died(home)
    other = died(home, 4_000_001)
    province(home).close()
    assert not left.exists()
    assert not other.exists()
    assert (home / "config.toml").read_text() == SETTINGS
    assert [one.name for one in tmp_path.iterdir()] == ["13"]


def test_what_somebody_is_making_now_is_left_alone(tmp_path: Path) -> None:
    home = tmp_path / "13"
    left = died(home)
    descriptor = os.open(left, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    province(home).close()
    assert (left / "keys" / "sign.pem").exists()
    assert not (home / "config.toml").exists()
    os.close(descriptor)


def test_settings_that_are_there_are_not_replaced_by_old_ones(tmp_path: Path) -> None:
    home = tmp_path / "13"
    died(home)
    home.mkdir()
    (home / "config.toml").write_text("scrub_days = 3\n")
    (home / "config.toml").chmod(0o600)
    province(home).close()
    assert (home / "config.toml").read_text() == "scrub_days = 3\n"
    assert (home / "config.toml").stat().st_mode & 0o777 == 0o600


def test_an_error_while_a_home_is_made_leaves_nothing_and_keeps_the_settings(tmp_path: Path) -> None:
    home = tmp_path / "13"
    home.mkdir()
    (home / "config.toml").write_text(SETTINGS)
    with pytest.raises(StoreError, match="FN-7617"), Home.create(home) as made:
        (made.path / "keys" / "no such folder" / "x").write_text("secret")
    assert [str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*")] == ["13", "13/config.toml"]
    assert (home / "config.toml").read_text() == SETTINGS


def test_keys_wait_for_one_node_until_they_are_dropped(tmp_path: Path) -> None:
    home = tmp_path / "1301"
    pending = waiting.Pending("1301", "ab")
    made = NodeKeys.generate(Stream("keys"))
    assert waiting.keys(home, pending, None) is None
    waiting.keep(home, pending, made, None)
    folder = waiting.folder(home)
    assert folder.stat().st_mode & 0o777 == 0o700
    found = waiting.keys(home, pending, None)
    assert found is not None
    assert found.sign.public == made.sign.public
    waiting.keep(home, waiting.Pending("1301"), made, None)
    assert waiting.load(home) == pending, "what is known of the root stays"
    with pytest.raises(Refused, match="FN-3512"):
        waiting.keys(home, waiting.Pending("1302"), None)
    waiting.drop(home)
    assert not folder.exists()


def test_half_of_the_keys_count_for_nothing(tmp_path: Path) -> None:
    home = tmp_path / "1301"
    (waiting.folder(home) / "keys").mkdir(parents=True)
    (waiting.folder(home) / "keys" / "sign.pem").write_text("half")
    pending = waiting.Pending("1301")
    assert waiting.keys(home, pending, None) is None
    made = NodeKeys.generate(Stream("keys"))
    waiting.keep(home, pending, made, None)
    found = waiting.keys(home, pending, None)
    assert found is not None
    assert found.tls.public_der == made.tls.public_der
