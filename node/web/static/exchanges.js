// Charts of lag, backlog and throughput: uPlot over the samples of /data/exchanges.
// A sample that is missing is a gap in the line; two lines of one chart differ in their dashes, too.
"use strict";
(() => {
  const charts = document.querySelector("[data-charts]");
  if (!charts) return;
  const lang = document.documentElement.lang;
  const words = charts.dataset;
  let drawn = [];

  const number = (n, digits = 1) => n.toLocaleString(lang, { maximumFractionDigits: digits });
  const zh = lang.startsWith("zh");
  const LAG = [[86400, zh ? "天" : "d"], [3600, zh ? "小时" : "h"], [60, zh ? "分" : "min"], [1, zh ? "秒" : "s"]];
  const BYTES = [[1024 ** 3, "GiB/s"], [1024 ** 2, "MiB/s"], [1024, "KiB/s"], [1, "B/s"]];
  const unit = (units, most) => units.find(([size]) => most >= 2 * size) || units[units.length - 1];

  // With a gap wherever a step is missing.
  function columns(told) {
    const by = new Map(told.samples.map((one) => [one.at_s, one]));
    const times = [];
    const first = Math.floor(told.since_s / told.step_s) * told.step_s + told.step_s;
    for (let at = first; at <= told.now_s; at += told.step_s) times.push(at);
    const of = (make) => times.map((at) => (by.has(at) ? make(by.get(at)) : null));
    return { times, of };
  }

  function draw(told) {
    for (const one of drawn) one.destroy();
    const { times, of } = columns(told);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const greatest = (make) => Math.max(0, ...told.samples.map(make));
    const [lagSize, lagUnit] = unit(LAG, greatest((one) => one.lag_s));
    const [rateSize, rateUnit] = unit(BYTES, greatest((one) => Math.max(one.bytes_out, one.bytes_in) / told.step_s));
    const kinds = {
      lag: { unit: lagUnit, lines: [[words.lag, (one) => one.lag_s / lagSize, "--stale"]] },
      backlog: { unit: words.changes, lines: [[words.backlog, (one) => one.changes, "--behind"]] },
      throughput: {
        unit: rateUnit,
        lines: [
          [words.out, (one) => one.bytes_out / told.step_s / rateSize, "--link"],
          [words.in, (one) => one.bytes_in / told.step_s / rateSize, "--ok", [7, 4]],
        ],
      },
    };
    drawn = [...charts.querySelectorAll("[data-chart]")].map((place) => {
      const kind = kinds[place.dataset.chart];
      const axis = { stroke: colour("--ink"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") }, font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif" };
      const options = {
        width: place.clientWidth,
        height: Math.max(120, place.clientHeight - 34),
        scales: { x: { time: true, range: [told.since_s, told.now_s] }, y: { range: (_, low, high) => [0, Math.max(high * 1.1, 4)] } },
        axes: [
          { ...axis, values: (_, ticks) => ticks.map((at) => when(at, told)) },
          { ...axis, label: kind.unit, size: 64, values: (_, ticks) => ticks.map((one) => number(one, 2)) },
        ],
        series: [
          { label: words.time, value: (_, at) => (at ? new Date(at * 1000).toLocaleString(lang, { dateStyle: "short", timeStyle: "short" }) : "-") },
          ...kind.lines.map(([label, , stroke, dash]) => ({ label, stroke: colour(stroke), dash, width: 2, points: { show: true, size: 4 }, value: (_, one) => (one === null ? "-" : `${number(one, 2)} ${kind.unit}`) })),
        ],
      };
      return new uPlot(options, [times, ...kind.lines.map(([, make]) => of(make))], place);
    });
    charts.dataset.ready = String(told.samples.length);
  }

  function when(at, told) {
    const date = new Date(at * 1000);
    return told.now_s - told.since_s > 2 * 86400
      ? date.toLocaleDateString(lang, { month: "numeric", day: "numeric" })
      : date.toLocaleTimeString(lang, { hour: "2-digit", minute: "2-digit" });
  }

  let told = null;
  async function load() {
    const answer = await fetch(words.charts, { headers: { accept: "application/json" } }).catch(() => null);
    if (!answer || !answer.ok) return;
    told = await answer.json();
    draw(told);
  }
  const again = () => { if (told) draw(told); };
  let sized = 0, width = 0;
  new ResizeObserver(() => {
    if (charts.clientWidth === width) return;
    width = charts.clientWidth;
    clearTimeout(sized);
    sized = setTimeout(again, 150);
  }).observe(charts);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  let timer = 0;
  document.addEventListener("fednode:moved", (event) => {
    if (event.detail.includes("mesh") && !timer) timer = setTimeout(() => { timer = 0; load(); }, 30000);
  });
  load();
})();
