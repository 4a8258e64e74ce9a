// Keyboard, local times and refreshing. Every page works without this file.
// Pages with `data-events` are updated by server-sent events, the others are loaded again.
"use strict";

const REFRESH_MS = 5000;
const main = () => document.querySelector("main");

document.documentElement.classList.add("has-js");

function showLocalTimes() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    time.title = new Date(time.dateTime).toLocaleString();
  }
}

// Whether a button of the mouse, or a finger, is down: what it is about to click must not be replaced.
let pressed = false;
addEventListener("pointerdown", () => (pressed = true), true);
for (const end of ["pointerup", "pointercancel", "blur"]) addEventListener(end, () => (pressed = false), true);

// A form that the operator is filling in must not be replaced.
function isBusy() {
  const changed = [...main().querySelectorAll("input, textarea")].some(
    (field) => field.type !== "hidden" && field.value !== field.defaultValue,
  );
  const focus = document.activeElement;
  const typing = main().contains(focus) && focus.matches("input, textarea, button");
  return pressed || changed || typing || String(getSelection()) !== "" || document.querySelector("dialog[open]") !== null;
}

let selected = -1;

function rows() {
  return [...main().querySelectorAll("[data-row]")];
}

function mark(scroll) {
  rows().forEach((row, index) => row.classList.toggle("selected", index === selected));
  if (scroll && rows()[selected]) {
    const link = rows()[selected].querySelector("a");
    (link ?? rows()[selected]).focus({ preventScroll: true });
    rows()[selected].scrollIntoView({ block: "nearest" });
  }
}

// Replaces a part of the page, and keeps the focus on the same link.
function replace(old, change) {
  const focused = old.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  change();
  showLocalTimes();
  mark(false);
  if (focused) document.querySelector(`main a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

async function refresh() {
  if (document.hidden || events || !main()?.hasAttribute("data-refresh") || isBusy()) return;
  try {
    const response = await fetch(location.href, { credentials: "same-origin" });
    if (response.redirected) return location.reload();
    if (!response.ok) throw new Error(String(response.status));
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const fresh = page.querySelector("main");
    if (!fresh || isBusy()) return;
    replace(main(), () => main().replaceWith(fresh));
    watch();
  } catch (error) {
    main().classList.add("stale");
  }
}

let events = null;

function watch() {
  const path = document.querySelector("[data-events]")?.dataset.events;
  if (!path || document.hidden || events) return;
  events = new EventSource(path);
  events.onmessage = (event) => {
    const live = document.querySelector("[data-events]");
    main().classList.remove("stale");
    if (!live || isBusy()) return;
    const fresh = new DOMParser().parseFromString(event.data, "text/html").body.childNodes;
    replace(live, () => live.replaceChildren(...fresh));
  };
  events.onerror = () => {
    main().classList.add("stale");
    // The browser connects again by itself, except after a refusal, as when the session has ended.
    if (events.readyState === EventSource.CLOSED) unwatch();
  };
}

function unwatch() {
  events?.close();
  events = null;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
  const help = document.getElementById("help");
  if (event.key === "/") {
    event.preventDefault();
    document.getElementById("search")?.focus();
  } else if (event.key === "?") {
    help?.showModal();
  } else if (event.key === "j" || event.key === "k") {
    const step = event.key === "j" ? 1 : -1;
    selected = Math.min(Math.max(selected + step, 0), rows().length - 1);
    mark(true);
  }
});

document.querySelector("[data-help]")?.addEventListener("click", () => document.getElementById("help").showModal());
showLocalTimes();
setInterval(refresh, REFRESH_MS);
watch();
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return unwatch();
  refresh();
  watch();
});
// A page that the browser keeps for the back button must not hold a connection.
addEventListener("pagehide", unwatch);
addEventListener("pageshow", watch);
