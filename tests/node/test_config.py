"""Configuration: precedence, origins, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fednode.crypto.errors import FednodeError
from fednode.node.config import CHOICES, NAMES, Config, load, shown


def home(folder: Path, text: str) -> Path:
    (folder / "config.toml").write_text(text, encoding="utf-8")
    return folder


def refusal(folder: Path, environ: dict[str, str], **flags: Any) -> FednodeError:
    with pytest.raises(FednodeError) as caught:
        load(folder, environ, flags)
    return caught.value


def test_defaults(tmp_path: Path) -> None:
    config, origins = load(tmp_path, {}, {})
    assert config == Config()
    assert set(origins) == set(NAMES)
    assert set(origins.values()) == {"default"}


def test_flag_before_environment_before_file_before_default(tmp_path: Path) -> None:
    home(tmp_path, 'listen = "a:1"\nenrol_listen = "a:2"\n[log]\nlevel = "error"\n')
    config, origins = load(tmp_path, {"FEDNODE_LISTEN": "b:1", "FEDNODE_LOG_LEVEL": "debug"}, {"listen": "c:1"})
    assert (config.listen, config.enrol_listen, config.log_level, config.log_format) == ("c:1", "a:2", "debug", "text")
    assert origins["listen"] == "flag --listen"
    assert origins["enrol_listen"] == f"file {tmp_path / 'config.toml'}"
    assert origins["log_level"] == "environment FEDNODE_LOG_LEVEL"
    assert origins["log_format"] == "default"


def test_lists(tmp_path: Path) -> None:
    home(tmp_path, 'advertise = ["a.example:7443", "[::1]:7443"]\n')
    config, _ = load(tmp_path, {"FEDNODE_PARENT_ADDRESSES": "x:1, y:2,"}, {})
    assert config.advertise == ("a.example:7443", "[::1]:7443")
    assert config.parent_addresses == ("x:1", "y:2")


def test_an_empty_variable_is_not_set(tmp_path: Path) -> None:
    assert load(tmp_path, {"FEDNODE_LISTEN": ""}, {})[0] == Config()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('listne = "a:1"', "FN-2601"),
        ('[log]\ncolour = "red"', "FN-2601"),
        ("listen = 7443", "FN-2602"),
        ('listen = "7443"', "FN-2602"),
        ('listen = ":7443"', "FN-2602"),
        ('[trace]\nendpoint = "127.0.0.1:4318"', "FN-2602"),
        ('[trace]\nendpoint = "http://me:secret@collector/v1/traces"', "FN-2602"),
        ('[trace]\nendpoint = "http://collector:port"', "FN-2602"),
        ("[trace]\nsample = 1.01", "FN-2602"),
        ("[trace]\nsample = -0.1", "FN-2602"),
        ("[trace]\nsample = true", "FN-2602"),
        ('listen = "a:65536"', "FN-2602"),
        ('listen = "a:７４４３"', "FN-2602"),
        ('listen = "a b:1"', "FN-2602"),
        (f'listen = "a:{"9" * 5000}"', "FN-2602"),
        ('advertise = "a"', "FN-2602"),
        ("advertise = [1]", "FN-2602"),
        ('log_level = "loud"', "FN-2602"),
        ("listen = ", "FN-2603"),
    ],
)
def test_what_is_wrong_in_the_file_is_refused(tmp_path: Path, text: str, code: str) -> None:
    assert refusal(home(tmp_path, text), {}).code == code


@pytest.mark.parametrize("address", ["a:0", "a:65535", "127.0.0.1:1", "[fe80::1%eth0]:7443", "县.example:7443"])
def test_addresses(tmp_path: Path, address: str) -> None:
    assert load(tmp_path, {}, {"listen": address})[0].listen == address


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes("lang = '中'".encode("gb18030"))
    assert refusal(tmp_path, {}).code == "FN-7619"


def test_the_nearest_name_is_offered(tmp_path: Path) -> None:
    assert refusal(home(tmp_path, 'listne = "a:1"'), {}).params["near"] == "listen"


def test_a_variable_that_is_nearly_ours_is_refused_and_a_stranger_left_alone(tmp_path: Path) -> None:
    error = refusal(tmp_path, {"FEDNODE_LISTNE": "a:1"})
    assert (error.code, error.params["near"]) == ("FN-2601", "FEDNODE_LISTEN")
    assert load(tmp_path, {"FEDNODE_HOME": "x", "FEDNODE_SNAPSHOT_BUCKET": "y"}, {})[0] == Config()


def test_a_secret_comes_from_a_file_and_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("春眠不觉晓\n", encoding="utf-8")
    config, origins = load(tmp_path, {"FEDNODE_PASSPHRASE_FILE": str(tmp_path / "secret")}, {})
    assert config.passphrase == "春眠不觉晓".encode()
    assert origins["passphrase"] == "environment FEDNODE_PASSPHRASE_FILE"
    assert "春" not in str(shown(config))
    assert load(tmp_path, {"FEDNODE_PASSPHRASE": "x"}, {})[0].passphrase == b"x"


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_secret_that_is_not_there_or_empty_is_not_no_secret(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "secret").write_text(content)
    assert refusal(tmp_path, {"FEDNODE_PASSPHRASE_FILE": str(tmp_path / "secret")}).code == "FN-7619"


def test_a_bad_secret_is_not_shown(tmp_path: Path) -> None:
    error = refusal(home(tmp_path, "passphrase = 12345678"), {})
    assert "12345678" not in str(error)


@pytest.mark.parametrize("name", sorted(CHOICES))
def test_choices(tmp_path: Path, name: str) -> None:
    for value in CHOICES[name]:
        assert getattr(load(tmp_path, {}, {name: value or None})[0], name) in CHOICES[name]


@pytest.mark.parametrize(("given", "days"), [("scrub_days = 30", 30), ('scrub_days = "0"', 0)])
def test_numbers(tmp_path: Path, given: str, days: int) -> None:
    assert load(home(tmp_path, given), {}, {})[0].scrub_days == days
    assert load(tmp_path, {"FEDNODE_SCRUB_DAYS": "365"}, {})[0].scrub_days == 365


@pytest.mark.parametrize("given", ["-1", "366", '"x"', "true", "1.5", '""', "[7]"])
def test_numbers_that_cannot_be(tmp_path: Path, given: str) -> None:
    error = refusal(home(tmp_path, f"scrub_days = {given}"), {})
    assert (error.code, error.params["choices"]) == ("FN-2602", "0-365")


def test_windows_zone_and_spans_of_time(tmp_path: Path) -> None:
    home(tmp_path, '[sync]\nwindows = ["02:00-03:30", "mon-fri 22:00-02:00"]\nzone = "+08:00"\n[jobs]\nscrub = "30s"\n')
    config, origins = load(tmp_path, {"FEDNODE_JOBS_RENEWAL": "12h"})
    assert config.sync_windows == ("02:00-03:30", "mon-fri 22:00-02:00")
    assert (config.sync_zone, config.jobs_scrub, config.jobs_renewal) == ("+08:00", "30s", "12h")
    assert origins["sync_windows"] == f"file {tmp_path / 'config.toml'}"
    assert load(tmp_path, {"FEDNODE_SYNC_WINDOWS": "01:00-02:00, 03:00-04:00"})[0].sync_windows[1] == "03:00-04:00"
    assert load(tmp_path, {"FEDNODE_SYNC_WINDOWS": ""})[0].sync_windows == config.sync_windows


def test_limits_by_the_time_of_day(tmp_path: Path) -> None:
    home(
        tmp_path,
        """[sync]
        limit = "1.5M"
        [[sync.limits]]
        days = "mon-fri"
        from = "08:00"
        to = "18:00"
        limit = "32k"
        [[sync.limits]]
        from = "06:00"
        to = "22:00"
        limit = "128k"
        """,
    )
    config, _ = load(tmp_path, {})
    assert config.sync_limit == "1.5M"
    assert config.sync_limits == ("mon-fri 08:00-18:00 32k", "06:00-22:00 128k")
    assert load(tmp_path, {"FEDNODE_SYNC_LIMITS": "08:00-18:00 32k"})[0].sync_limits == ("08:00-18:00 32k",)


@pytest.mark.parametrize(
    "given",
    [
        *('sync_limit = "32x"', 'sync_limit = "1k"', "sync_limit = 32", 'sync_limits = ["32k"]', "sync_limits = [1]"),
        *('[[sync.limits]]\nfrom = "1:00"\nto = "2:00"', "[[sync.limits]]\nfrom = 1\nto = 2\nlimit = 3"),
        '[[sync.limits]]\nfrom = "1:00"\nto = "2:00"\nlimit = "32k"\nrate = "x"',
        *('sync_windows = "always"', 'sync_windows = ["2-3"]', "sync_windows = [2]", 'sync_zone = "Mars"'),
        *('jobs_scrub = "0s"', 'jobs_scrub = "often"', "jobs_scrub = 60", "jobs_jitter = 51"),
    ],
)
def test_windows_and_spans_that_cannot_be_are_refused_with_an_example(tmp_path: Path, given: str) -> None:
    error = refusal(home(tmp_path, given), {})
    assert error.code == "FN-2602"
    assert error.params["choices"]


def test_a_ratio_is_a_number_or_its_text(tmp_path: Path) -> None:
    home(tmp_path, '[trace]\nendpoint = "https://collector.example:4318/v1/traces"\nsample = 0.25\n')
    assert load(tmp_path, {}, {})[0].trace_sample == 0.25
    assert load(tmp_path, {"FEDNODE_TRACE_SAMPLE": "1"}, {})[0].trace_sample == 1.0
    home(tmp_path, "[trace]\nsample = 0\n")
    assert load(tmp_path, {}, {})[0].trace_sample == 0.0
