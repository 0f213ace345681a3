/* Keeps a page current: ages that run, times in the reader's zone, and parts that are fetched anew when something has
   changed. A part: an element with an id and `data-live="mesh log records"`; `data-live-url` where not this page's own URL,
   `data-live-min` the least seconds between two fetches. Pages' own scripts hear "fednode:moved" (detail: the topics) and
   "fednode:replaced" (target: the part) on the document. docs/console.md. */
"use strict";
(() => {
  const root = document.documentElement;
  const zh = root.lang.startsWith("zh");
  const offset = Number(root.dataset.now) - Date.now();
  const now = () => Date.now() + offset;
  const units = zh ? [["天", 86400], ["小时", 3600], ["分", 60], ["秒", 1]] : [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

  const span = (ms) => {
    let seconds = Math.max(0, Math.floor(ms / 1000));
    const parts = [];
    for (const [unit, size] of units) {
      const count = Math.floor(seconds / size);
      seconds %= size;
      if (count) parts.push(`${count} ${unit}`);
    }
    return parts.slice(0, 2).join(" ") || `0 ${units[3][0]}`;
  };
  const ago = (ms) => (zh ? `${span(now() - ms)}前` : `${span(now() - ms)} ago`);

  const ages = (under) => {
    for (const one of under.querySelectorAll("time[data-ago]")) {
      const text = ago(Number(one.dataset.ago));
      if (one.textContent !== text) one.textContent = text;
    }
  };
  const times = (under) => {
    for (const one of under.querySelectorAll("time[data-at]")) {
      const at = new Date(Number(one.dataset.at));
      one.title = one.dateTime;
      one.textContent = at.toLocaleString(root.lang, { dateStyle: "short", timeStyle: "medium" });
    }
  };
  ages(document);
  times(document);
  setInterval(() => { if (!document.hidden) ages(document); }, 1000);

  /* ------------------------------------------------------------ live parts */

  const fetched = new Map(); // URL -> when it was asked for last
  const due = new Map(); // URL -> timer
  const url_of = (part) => part.dataset.liveUrl || location.pathname + location.search;

  const replace = (part, fresh) => {
    if (part.contains(document.activeElement) && document.activeElement.matches("input, select, textarea")) return;
    if (part.querySelector("details[open]")) return; // somebody reads it, or is about to send a form
    const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
    part.replaceWith(fresh);
    ages(fresh);
    times(fresh);
    if (focused) document.getElementById(focused)?.focus();
    fresh.dispatchEvent(new CustomEvent("fednode:replaced", { bubbles: true }));
  };

  const refresh = async (url) => {
    due.delete(url);
    fetched.set(url, Date.now());
    let answer;
    try {
      answer = await fetch(url, { headers: { "X-Fednode-Live": "1" }, credentials: "same-origin" });
    } catch {
      return; // the stream says that the connection is lost
    }
    if (answer.status === 401) { location.reload(); return; }
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live][id]")) {
      const found = url_of(part) === url && fresh.getElementById(part.id);
      if (found) replace(part, document.adoptNode(found));
    }
  };

  const moved = (topics) => {
    document.dispatchEvent(new CustomEvent("fednode:moved", { detail: topics }));
    if (document.hidden) { missed = [...new Set([...missed, ...topics])]; return; }
    for (const part of document.querySelectorAll("[data-live][id]")) {
      const url = url_of(part);
      if (due.has(url) || !part.dataset.live.split(" ").some((topic) => topics.includes(topic))) continue;
      const least = Number(part.dataset.liveMin || 1) * 1000;
      const wait = Math.max(0, (fetched.get(url) || 0) + least - Date.now());
      due.set(url, setTimeout(refresh, wait, url));
    }
  };
  let missed = [];
  document.addEventListener("visibilitychange", () => {
    if (document.hidden || !missed.length) return;
    const topics = missed;
    missed = [];
    moved(topics);
  });

  const lost = (is) => {
    document.getElementById("lost").hidden = !is;
    document.body.classList.toggle("is-lost", is);
  };
  let mark = root.dataset.mark;
  const watch = () => {
    const source = new EventSource(`/live?at=${encodeURIComponent(mark)}`);
    let opened = false;
    source.addEventListener("open", () => {
      opened = true;
      root.dataset.live = "on";
      lost(false);
    });
    source.addEventListener("moved", (event) => {
      mark = event.lastEventId; // what moves while the line is cut is heard of afterwards
      moved(JSON.parse(event.data));
    });
    source.addEventListener("error", () => {
      lost(true);
      root.dataset.live = "lost";
      if (source.readyState === EventSource.CLOSED) setTimeout(opened ? watch : check, 5000);
    });
  };
  const check = async () => {
    // the stream was refused: is the session over, or are there too many?
    try {
      const answer = await fetch("/session", { headers: { Accept: "application/json" } });
      if (answer.status === 401) { location.reload(); return; }
    } catch { /* not reachable */ }
    watch();
  };
  if ("signedIn" in root.dataset) watch();

  /* ------------------------------------------------------------ forms */

  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.confirm;
    if (question && !confirm(question)) event.preventDefault();
  });
})();
