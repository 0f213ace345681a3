"""scripts/bench mesh --page: the console of a province with the real tree, in a real daemon, in headless Chromium.

Two processes. The province: its daemon with store, console and health.db, as `fednode run` has them; the 56,712 nodes
of the tree report every ten minutes of *real* time (nothing is scaled): each city passes on once a minute what a tenth
of its nodes said, as frames that are decoded and folded in this process. What is not there: certificates and sessions
of the nodes below (the directory is handed in, `tests/lib/province`), and records. The other: Chromium and this script.

    page_ms        until the picture is drawn: `first` after the start of the daemon (its picture is not made yet),
                   `others` without anything in the browser's cache, `again` with the layout in it (bar: 1500)
    visible_ms     from the moment before a report is folded until the number in the legend has changed and was painted
                   (bar: 2000)
    query_ms       the longest of ten of each document and page, from outside (bar: 200)
    cpu_percent    of one core, that the province's process takes: `alone`, with `one` and `five` pages open (bar: 15)
    rss_mib        of that process, at the end; the most it had (bar: 400)
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests/lib")]
DIVISIONS = ROOT.parent / "shared/data/hebei-divisions.csv"
TENTHS, MINUTE_S = 10, 60.0
VILLAGES = 20
WATCH = """() => {
  window.seen = [];
  const painted = (then) => requestAnimationFrame(() => setTimeout(then));
  new MutationObserver(() => painted(() => window.seen.push(Date.now())))
    .observe(document.querySelector("[data-count-state=alert]"), {childList: true, characterData: true, subtree: true});
}"""


# ---------------------------------------------------------------- the province


async def serve(folder: Path) -> None:
    """Until its standard input ends; each line there is a node that raises an alert now."""
    import pytest

    from console import PASSWORD, enrol
    from fednode.node.web.server import url_of
    from mesh import Mesh
    from province import Province, real

    patch = pytest.MonkeyPatch()
    async with Mesh(folder) as mesh:
        province = await Province.found(mesh, real(DIVISIONS), patch)
        province.all_well()
        enrol(province.node, "alice", "viewer")
        villages = [one.id for one in province.who.values() if one.level == "village"]
        told = {"url": url_of(province.node.app.home), "pid": os.getpid(), "nodes": len(province.who)}
        print(json.dumps({**told, "password": PASSWORD, "some": villages[:: len(villages) // VILLAGES]}), flush=True)
        reporting = [asyncio.create_task(_city(province, city, n)) for n, city in enumerate(province.cities)]
        await _obey(province)
        for one in reporting:
            one.cancel()
        province.close()
    patch.undo()


async def _city(province: Any, city: str, n: int) -> None:
    """Once a minute, a tenth of them."""
    from fednode.sync.health import Load

    rng = random.Random(n)
    nodes = province.cities[city]
    await asyncio.sleep(n * MINUTE_S / len(province.cities))
    for minute in range(1 << 30):
        part = nodes[minute % TENTHS :: TENTHS]
        entries = [province.entry(one, Load(rng.choice((0, 0, 12))) if rng.random() < 0.1 else None) for one in part]
        for frame in province.frames(city, entries):
            province.fold(city, [frame])
            await asyncio.sleep(0)
        await asyncio.sleep(MINUTE_S)


async def _obey(province: Any) -> None:
    from fednode.sync.health import Load

    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        at_ms = time.time() * 1000
        province.tell(line, Load(alerts_critical=1))
        print(json.dumps({"at_ms": at_ms}), flush=True)


# ---------------------------------------------------------------- who looks


def cpu_s(pid: int) -> float:
    """Seconds of the processor that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int, name: str) -> int:
    """`VmRSS` or `VmHWM`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return round(int(line.split()[1]) / 1024)
    return 0


async def share(pid: int, seconds: float) -> float:
    """Per cent of one core."""
    before, began = cpu_s(pid), time.perf_counter()
    await asyncio.sleep(seconds)
    return round(100 * (cpu_s(pid) - before) / (time.perf_counter() - began), 1)


class Looking:
    """Chromium, signed in."""

    def __init__(self, browser: Any, told: dict[str, Any]) -> None:
        self._browser, self._told = browser, told
        self._cookies: list[Any] = []

    async def window(self) -> Any:
        """A fresh one: nothing in its cache."""
        context = await self._browser.new_context(base_url=self._told["url"], viewport={"width": 1280, "height": 800})
        page = await context.new_page()
        if not self._cookies:
            await page.goto("/signin?back=%2Fnode")
            await page.fill("#name", "alice")
            await page.fill("#password", self._told["password"])
            await page.press("#password", "Enter")
            await page.wait_for_selector("html[data-signed-in]")
            self._cookies = await context.cookies()
        await context.add_cookies(self._cookies)
        return page

    async def open(self, page: Any) -> float:
        """Milliseconds until the picture is drawn."""
        began = time.perf_counter()
        await page.goto("/mesh", wait_until="commit")
        await page.wait_for_selector("canvas[data-ready]")
        await page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
        return round((time.perf_counter() - began) * 1000)


async def queries(told: dict[str, Any], cookies: list[Any]) -> dict[str, float]:
    """The longest of ten each."""
    import httpx

    jar = {one["name"]: one["value"] for one in cookies}
    village = told["some"][0]
    paths = [
        "/data/mesh/layout",
        "/data/mesh/states",
        "/mesh",
        "/mesh?at=1301&state=ok",
        "/mesh?state=ok&level=village",
    ]
    paths += [f"/mesh/{village}", "/mesh/13", "/exchanges", "/coverage", "/node"]
    found = {}
    async with httpx.AsyncClient(base_url=told["url"], cookies=jar, timeout=60, trust_env=False) as http:
        for path in paths:
            took = []
            for _ in range(10):
                began = time.perf_counter()
                answer = await http.get(path)
                took.append((time.perf_counter() - began) * 1000)
                if answer.status_code != 200:
                    raise RuntimeError(f"{path}: {answer.status_code}")
            found[path] = round(max(took), 1)
    return found


async def visible(page: Any, province: Any, villages: list[str]) -> list[int]:
    """Milliseconds from a report's arrival until the page shows it, for each of these."""
    await page.evaluate(WATCH)
    took = []
    for n, village in enumerate(villages):
        province.stdin.write(f"{village}\n".encode())
        at_ms = json.loads(await province.stdout.readline())["at_ms"]
        await page.wait_for_function(f"() => window.seen.length > {n}")
        took.append(round((await page.evaluate("() => window.seen"))[n] - at_ms))
        await asyncio.sleep(random.Random(n).uniform(0.5, 2.0))
    return took


async def measure(seconds: float) -> dict[str, Any]:
    """All of it. `seconds`: for each share of the processor."""
    from playwright.async_api import async_playwright

    with tempfile.TemporaryDirectory() as folder:
        province = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, "serve", folder),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        if province.stdout is None or province.stdin is None:
            raise RuntimeError("no pipes")
        told = json.loads(await province.stdout.readline())
        pid = told["pid"]
        found: dict[str, Any] = {"nodes": told["nodes"], "load": os.getloadavg()[0], "seconds": seconds}
        cpu = {"alone": await share(pid, seconds)}
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            looking = Looking(browser, told)
            page = await looking.window()
            first = await looking.open(page)
            others = []
            for _ in range(5):
                fresh = await looking.window()
                others.append(await looking.open(fresh))
                await fresh.context.close()
            found["page_ms"] = {"first": first, "others": others, "again": [await looking.open(page) for _ in range(3)]}
            found["query_ms"] = await queries(told, looking._cookies)
            cpu["one"] = await share(pid, seconds)
            found["visible_ms"] = await visible(page, province, told["some"])
            more = [await looking.window() for _ in range(4)]
            for one in more:
                await looking.open(one)
            cpu["five"] = await share(pid, seconds)
            await browser.close()
        found["cpu_percent"] = cpu
        found["rss_mib"] = {"end": memory_mib(pid, "VmRSS"), "most": memory_mib(pid, "VmHWM")}
        province.stdin.close()
        await province.wait()
    return found


def main() -> None:
    """One of the two processes."""
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(Path(sys.argv[2])))
    else:
        print(json.dumps(asyncio.run(measure(float(sys.argv[1]) if sys.argv[1:] else 60.0)), indent=1))


if __name__ == "__main__":
    main()
