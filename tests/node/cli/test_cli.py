"""The command line within one home: shapes, words, exit codes, bad input."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fednode.node import fence
from fednode.node.app import App
from fednode.node.cli import LOADERS, invoke
from fednode.node.config import Config
from fednode.node.shipped import catalog
from sample_data import records, write

Run = Callable[..., tuple[int, dict[str, Any]]]
SEED = 7


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command with --json in a home of its own: (exit code, document)."""

    def one(*words: str, home: str = "home") -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = invoke(["--home", str(tmp_path / home), "--json", *words], {"LANG": "C.UTF-8"})
        out = capsys.readouterr().out
        assert out.count("\n") == 1, "one document on stdout"
        return code, json.loads(out)

    return one


@pytest.fixture
def province(run: Run) -> Run:
    """A province with the shipped catalog."""
    assert run("init", "--id", "13", "--name", "河北省")[0] == 0
    assert run("catalog", "publish", "--shipped")[0] == 0
    return run


def sample(folder: Path, rows: int, dataset: str = "admin-licence") -> Path:
    path = folder / f"{dataset}.csv"
    write(path, catalog().datasets[dataset], records(dataset, rows, seed=SEED, area="130102001001"))
    return path


# ---------------------------------------------------------------- the frame


def test_every_command_has_help_in_both_languages(capsys: pytest.CaptureFixture[str]) -> None:
    for name in LOADERS:
        shown = []
        for lang in ("en", "zh"):
            assert invoke([name, "--help", "--lang", lang], {}) == 0
            assert invoke(["--lang", lang, name, "--help"], {}) == 0
            shown.append(capsys.readouterr().out)
        assert shown[0] != shown[1], name


def test_usage_errors_exit_2_in_the_chosen_language(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["galaxy"], ["init"], ["init", "--galaxy"], ["find", "x", "--limit", "0"], ["invite", "1301"]):
        assert invoke(words, {"LANG": "zh_CN.UTF-8"}) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert "错误" in shown.err


def test_no_home_says_what_to_do(run: Run) -> None:
    code, document = run("status")
    assert code == 7
    assert document["error"]["code"] == "FN-7618"
    assert "join" in document["error"]["hint"]


def test_completion_for_each_shell(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("zsh", "fish", "bash"):
        assert invoke(["completion", shell], dict(os.environ)) == 0
        assert "_FEDNODE_COMPLETE" in capsys.readouterr().out


def test_completion_offers_commands() -> None:
    environ = {**os.environ, "_FEDNODE_COMPLETE": "fish_complete", "COMP_WORDS": "fednode cat", "COMP_CWORD": "cat"}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("fednode"))], env=environ, capture_output=True, text=True, check=False
    )
    assert "catalog" in done.stdout


def test_settings_and_where_they_come_from(run: Run, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").write_text('listen = "127.0.0.1:7001"\n')
    code, document = run("config", "show", "--origin", "--log-level", "debug")
    assert code == 0
    assert document["config"]["listen"] == "127.0.0.1:7001"
    assert document["origins"]["listen"].startswith("file ")
    assert document["origins"]["log_level"] == "flag --log-level"
    (tmp_path / "home" / "config.toml").write_text('listne = "127.0.0.1:7001"\n')
    code, document = run("config", "show")
    assert (code, document["error"]["code"]) == (2, "FN-2601")
    assert "listen" in document["error"]["hint"]


def test_version(run: Run) -> None:
    assert run("version")[1]["versions"]["protocol_max"] >= 1


# ---------------------------------------------------------------- records


def test_import_find_get_history_delete(province: Run, tmp_path: Path) -> None:
    path = sample(tmp_path, 50)
    code, document = province("import", "admin-licence", str(path))
    assert (code, document["added"], document["rejected"]) == (0, 50, 0)
    code, document = province("import", "admin-licence", str(path))
    assert (code, document["added"], document["changed"], document["unchanged"]) == (0, 0, 0, 50)
    page = province("find", "admin-licence", "--limit", "20", "--withdrawn")[1]
    assert len(page["records"]) == 20
    rest = province("find", "admin-licence", "--limit", "50", "--after", page["next"], "--withdrawn")[1]
    assert len(rest["records"]) == 30
    assert rest["next"] == ""
    first = next(one for one in page["records"] if one["record"].get("xk_yxqzi") == "2099-12-31")
    company = first["record"]["xk_xdr_mc"]
    found = province("find", "admin-licence", "--text", company)[1]["records"]
    assert first["key"] in [one["key"] for one in found]
    assert province("put", "admin-licence", "--key", first["key"], "--field", "xk_zt=2")[1]["outcome"] == "changed"
    document = province("get", "admin-licence", first["key"], "--history")[1]
    assert document["record"]["xk_zt"] == "2"
    assert [one["record"]["xk_zt"] for one in document["versions"]] == ["2", first["record"]["xk_zt"]]
    assert province("delete", "admin-licence", first["key"])[1]["outcome"] == "deleted"
    code, document = province("get", "admin-licence", first["key"])
    assert (code, document["ok"]) == (3, False)
    assert province("conflicts")[1]["conflicts"] == []


@pytest.mark.parametrize(
    ("lang", "company", "state"),
    [
        ("en", "Name of the organisation", "Current state: not valid (2)"),
        ("zh", "行政相对人名称", "当前状态: 无效 (2)"),
    ],
)
def test_people_read_titles_and_may_write_them(
    province: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], lang: str, company: str, state: str
) -> None:
    """Regression: `find` and `get` showed the codes of the fields to people, too."""
    assert province("import", "admin-licence", str(sample(tmp_path, 5)))[0] == 0
    key = province("find", "admin-licence", "--withdrawn")[1]["records"][0]["key"]
    assert province("put", "admin-licence", "--key", key, "--field", "当前状态=2")[0] == 0
    capsys.readouterr()
    home = ["--home", str(tmp_path / "home"), "--lang", lang]
    assert invoke([*home, "find", "admin-licence", "--withdrawn", "--where", "当前状态=2"], {}) == 0
    heading = capsys.readouterr().out.splitlines()[0]
    assert company in heading
    assert "xk_" not in heading
    assert invoke([*home, "get", "admin-licence", key, "--withdrawn"], {}) == 0
    assert state in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("lang", "hint", "mark"),
    [("en", "--withdrawn", "withdrawn since 2020-01-02"), ("zh", "--withdrawn", "已于 2020-01-02 撤下")],
)
def test_what_is_withdrawn_is_shown_to_who_asks_for_it(
    province: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], lang: str, hint: str, mark: str
) -> None:
    record = next(iter(records("admin-licence", 1, seed=SEED, area="13")))
    dates = {"xk_jdrq": "2019-01-01", "xk_yxqz": "2019-01-01", "xk_yxqzi": "2020-01-01"}
    key = province("put", "admin-licence", json.dumps({**record, **dates}, ensure_ascii=False))[1]["key"]
    assert province("find", "admin-licence")[1]["records"] == []
    (found,) = province("find", "admin-licence", "--withdrawn")[1]["records"]
    assert (found["key"], found["withdrawn"]) == (key, "2020-01-02")

    def text(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        code = invoke(["--home", str(tmp_path / "home"), "--lang", lang, *words], {})
        shown = capsys.readouterr()
        return code, shown.out + shown.err

    for words in (["get", "admin-licence", key], ["get", "admin-licence", key, "--history"]):
        code, shown = text(*words)
        assert code == 3
        assert "FN-3350" in shown
        assert hint in shown
        assert record["xk_xdr_mc"] not in shown
    code, shown = text("get", "admin-licence", key, "--withdrawn")
    assert code == 0
    assert mark in shown
    code, shown = text("find", "admin-licence", "--withdrawn")
    assert code == 0
    assert shown.strip().endswith(("on: 1", "1 条"))
    assert record["xk_xdr_mc"] not in text("find", "admin-licence", "--csv")[1]


def test_bad_rows_go_to_the_rejects_and_good_rows_are_in(province: Run, tmp_path: Path) -> None:
    path = sample(tmp_path, 10)
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    header = lines[0].split(",")
    column = next(i for i, name in enumerate(header) if name in ("统一社会信用代码", "xk_xdr_shxym"))
    cells = lines[3].split(",")
    cells[column] = "91130102MA07XXXXX0"
    lines[3] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    code, document = province("import", "admin-licence", str(path))
    assert (code, document["added"], document["rejected"], document["ok"]) == (3, 9, 1, False)
    problem = document["files"][0]["problems"][0]
    assert (problem["row"], problem["field"]) == (4, "xk_xdr_shxym")
    rejects = Path(document["files"][0]["rejects_file"]).read_text(encoding="utf-8-sig")
    assert "91130102MA07XXXXX0" in rejects


def test_a_dry_run_writes_nothing(province: Run, tmp_path: Path) -> None:
    before = province("status")[1]["status"]["store"]
    code, document = province("import", "admin-licence", str(sample(tmp_path, 5)), "--dry-run")
    assert (code, document["added"], document["dry_run"]) == (0, 5, True)
    assert province("status")[1]["status"]["store"] == before


def test_a_dataset_that_is_not_in_the_catalog(province: Run, tmp_path: Path) -> None:
    code, document = province("import", "galaxies", str(sample(tmp_path, 1)))
    assert code == 3
    assert "galaxies" in document["error"]["message"]


def test_rebuild_makes_the_same_again_and_verify_finds_all_whole(province: Run, tmp_path: Path) -> None:
    province("import", "admin-licence", str(sample(tmp_path, 30)))
    before = province("digest")[1]
    for name in ("state.db", "state.db-wal", "state.db-shm"):
        (tmp_path / "home" / name).unlink(missing_ok=True)
    assert province("rebuild")[1]["changes"] == 30
    assert province("digest")[1] == before
    code, document = province("verify")
    assert (code, document["problems"]) == (0, [])
    assert document["changes"] >= 32


def test_verify_finds_a_flipped_bit(province: Run, tmp_path: Path) -> None:
    from fednode.node import sqlite

    province("import", "admin-licence", str(sample(tmp_path, 30)))
    connection = sqlite.connect(tmp_path / "home" / "log.db", synchronous="FULL")
    lsn, data = connection.execute(
        """select s.lsn, s.data from segment s join log l on l.id = s.log_id
           where l.dataset = 'admin-licence' order by s.lsn desc limit 1"""
    ).fetchone()
    flipped = bytearray(data)
    flipped[len(flipped) // 2] ^= 4
    connection.execute("update segment set data = ? where lsn = ?", (bytes(flipped), lsn))
    connection.close()
    code, document = province("verify")
    assert code == 6
    assert document["problems"][0]["code"] == "FN-6601"
    assert document["problems"][0]["log"] == "hebei/13/1/admin-licence"


def test_verify_finds_an_altered_node_of_a_tree_and_puts_it_right(province: Run, tmp_path: Path) -> None:
    from fednode.node import sqlite

    province("import", "admin-licence", str(sample(tmp_path, 30)))
    connection = sqlite.connect(tmp_path / "home" / "log.db", synchronous="FULL")
    log = "(select id from log where dataset = 'admin-licence')"
    level, index = connection.execute(
        f"select level, idx from tree where log_id = {log} order by level desc, idx limit 1"
    ).fetchone()
    connection.execute(
        f"update tree set hash = zeroblob(32) where log_id = {log} and level = {level} and idx = {index}"
    )
    connection.close()
    code, document = province("audit", "verify", "--full")
    assert code == 6
    assert document["problems"] == [
        {**document["problems"][0], "code": "FN-6635", "log": "hebei/13/1/admin-licence", "first": index << level}
    ]
    assert document["problems"][0]["end"] == (index + 1) << level
    assert province("audit", "verify", "--full")[0] == 0


# ---------------------------------------------------------------- trouble with the home


def test_two_daemons_on_one_home(province: Run, tmp_path: Path) -> None:
    from fednode.node.home import Home

    with Home.load(tmp_path / "home").lock():
        code, document = province("run")
    assert (code, document["error"]["code"]) == (7, "FN-7622")


def test_init_twice_leaves_the_first_alone(province: Run) -> None:
    before = province("status")[1]["status"]["node"]
    code, document = province("init", "--id", "13", "--name", "x")
    assert (code, document["error"]["code"]) == (7, "FN-7616")
    assert province("status")[1]["status"]["node"] == before


def in_a_process(tmp_path: Path, *words: str, prefix: str = "") -> subprocess.CompletedProcess[str]:
    fednode = Path(sys.executable).with_name("fednode")
    command = f'{prefix} exec "{fednode}" --home "{tmp_path / "home"}" --json "$@"'
    return subprocess.run(["bash", "-c", command, "bash", *words], capture_output=True, text=True, check=False)


def test_a_full_disk_refuses_clearly_and_nothing_is_half_done(province: Run, tmp_path: Path) -> None:
    """The limit on file sizes stands for the disk: writes beyond it fail as on a full one."""
    path = sample(tmp_path, 9000)
    before = province("digest")[1]["digest"]
    # KiB: above what the databases have now, below what the import needs
    done = in_a_process(tmp_path, "import", "admin-licence", str(path), prefix="trap '' XFSZ; ulimit -f 400;")
    assert done.returncode == 7, done.stdout + done.stderr
    assert json.loads(done.stdout)["error"]["code"] in ("FN-7605", "FN-7607")
    assert province("verify")[0] == 0
    assert province("digest")[1]["digest"] == before
    assert province("import", "admin-licence", str(path))[1]["added"] == 9000


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/usr/bin/setpriv").exists(), reason="root, and no setpriv")
def test_a_read_only_home(province: Run, tmp_path: Path) -> None:
    """As another user: root may write everywhere."""
    gc.collect()  # with a connection of this process's still open, its write-ahead log would be there to be read
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    for path in [tmp_path / "home", *(tmp_path / "home").rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    prefix = "exec setpriv --reuid=65534 --regid=65534 --clear-groups" if os.geteuid() == 0 else "exec"
    fednode = Path(sys.executable).with_name("fednode")
    done = subprocess.run(
        ["bash", "-c", f'{prefix} "{fednode}" --home "{tmp_path / "home"}" --json status'],
        capture_output=True,
        text=True,
        check=False,
    )
    if "Permission denied" in done.stderr and not done.stdout:
        pytest.skip("the other user cannot even run the program here")
    assert done.returncode == 7, done.stdout + done.stderr
    assert json.loads(done.stdout)["error"]["code"] == "FN-7631"


@pytest.mark.parametrize(
    ("code", "said"), [("FN-5514", "`fednode recover` has been run"), ("FN-5513", "`fednode join TOKEN` here")]
)
def test_behind_the_fence_status_says_what_to_do(
    province: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], code: str, said: str
) -> None:
    """It named `recover` to whoever had been succeeded, too."""
    app = App.open(tmp_path / "home", Config())
    with app.store.write() as tx:
        fence.put_up(tx, app.trust.me, code, app.now_ms())
    app.close()
    assert province("status")[1]["status"]["fenced"]["code"] == code
    assert invoke(["--home", str(tmp_path / "home"), "--lang", "en", "status"], {}) == 0
    assert said in capsys.readouterr().out.replace("\n", " ")
