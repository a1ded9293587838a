// Keeps the page up to date: counts times down, and asks the server every two seconds what has changed.
// Without JavaScript everything on the page works; a reload then shows what is new.
"use strict";

const pad = (number) => String(number).padStart(2, "0");

function duration(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  const days = Math.floor(seconds / 86400), rest = seconds % 86400;
  const hours = Math.floor(rest / 3600), minutes = Math.floor(rest / 60) % 60;
  const clock = days || hours ? `${hours}:${pad(minutes)}:${pad(rest % 60)}` : `${minutes}:${pad(rest % 60)}`;
  return days ? `${days} d ${clock}` : clock;
}

const deadlines = new WeakMap();

function start(root) {
  for (const time of root.querySelectorAll("time[data-left]")) deadlines.set(time, performance.now() + Number(time.dataset.left));
  for (const time of root.querySelectorAll("time[datetime]")) {
    const when = new Date(time.dateTime);
    const today = when.toDateString() === new Date().toDateString();
    time.textContent = today ? when.toLocaleTimeString() : when.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  }
}

function tick() {
  for (const time of document.querySelectorAll("time[data-left]")) time.textContent = duration(deadlines.get(time) - performance.now());
}

// What an entry looks like apart from its running times; the badge of what was just written is the page's own.
function shape(entry) {
  const copy = entry.cloneNode(true);
  for (const part of copy.querySelectorAll("time, .badge.written")) part.remove();
  return copy.textContent.replace(/\s+/g, " ") + copy.className;
}

const shapes = new WeakMap();

function update(list, fresh) {
  const known = new Map([...list.children].map((entry) => [entry.dataset.key, entry]));
  let before = null;
  for (const entry of [...fresh.children]) {
    const old = known.get(entry.dataset.key);
    known.delete(entry.dataset.key);
    if (old && shapes.get(old) === shape(entry)) {
      const times = entry.querySelectorAll("time[data-left]");
      old.querySelectorAll("time[data-left]").forEach((time, n) => deadlines.set(time, performance.now() + Number(times[n].dataset.left)));
      before = old;
      continue;
    }
    shapes.set(entry, shape(entry));
    entry.classList.add("new");
    if (old) old.replaceWith(entry); else if (before) before.after(entry); else list.prepend(entry);
    start(entry);
    before = entry;
  }
  for (const entry of known.values()) entry.remove();
}

async function poll() {
  if (document.hidden) return true;
  const answer = await fetch("/live", { headers: { accept: "text/html" } });
  if (answer.status === 401) {
    document.getElementById("revoked").hidden = false;
    return false;
  }
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const list of document.querySelectorAll("[data-live]")) update(list, page.querySelector(`[data-live="${list.dataset.live}"]`));
  return true;
}

async function follow() {
  let going = true;
  try { going = await poll(); } catch { /* the server is away; ask again */ }
  if (going) setTimeout(follow, 2000);
}

start(document);
setInterval(tick, 250);
if (document.querySelector("[data-live]")) {
  for (const entry of document.querySelectorAll("[data-live] > *")) shapes.set(entry, shape(entry));
  setTimeout(follow, 2000);
}
