/** What the console's views are made of, under one roof. */
import { h, render } from "./vendor/preact.js";
import { useEffect, useMemo, useRef, useState } from "./vendor/preact-hooks.js";
import { batch, computed, effect, signal } from "./vendor/signals.js";
import htm from "./vendor/htm.js";

export const html = htm.bind(h);
export { batch, computed, effect, render, signal, useEffect, useMemo, useRef, useState };

/**
 * A storage of the browser that may be forbidden or full: then it forgets, and nothing fails.
 *
 * @param {"localStorage" | "sessionStorage"} name
 */
function forgiving(name) {
  const tried = (use) => {
    try {
      return use(globalThis[name]);
    } catch {
      return null;
    }
  };
  return {
    works: tried((storage) => (storage.setItem("minichat.console.try", "1"), storage.removeItem("minichat.console.try"), true)) === true,
    get: (key) => JSON.parse(tried((storage) => storage.getItem(`minichat.console.${key}`)) ?? "null"),
    set: (key, value) => tried((storage) => storage.setItem(`minichat.console.${key}`, JSON.stringify(value))),
    remove: (key) => tried((storage) => storage.removeItem(`minichat.console.${key}`)),
  };
}

export const ofBrowser = forgiving("localStorage");
export const ofTab = forgiving("sessionStorage");

/** A text that others chose, on one line: what would turn or hide its neighbours is shown as a dot. */
export function plain(text) {
  return String(text ?? "").replace(/[\u0000-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, "·");
}

const NUMBERS = new Intl.NumberFormat("en");
export const number = (value) => NUMBERS.format(value ?? 0);

/** Micro-credits as credits. */
export const credits = (micro) => NUMBERS.format(Math.round((micro ?? 0) / 100) / 10_000);

export function bytes(size) {
  if (size < 1000) return `${size} B`;
  return size < 1_000_000 ? `${Math.round(size / 1000)} kB` : `${(size / 1_000_000).toFixed(1)} MB`;
}

/** A moment, as short as it can be told today. */
export function when(moment) {
  const date = new Date(moment);
  const today = new Date().toDateString() === date.toDateString();
  return today
    ? date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    : date.toLocaleDateString([], { day: "numeric", month: "short" });
}

const PATHS = {
  plus: "M12 5v14M5 12h14",
  menu: "M4 7h16M4 12h16M4 17h16",
  close: "M6 6l12 12M18 6L6 18",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  clip: "M20 11.5l-8 8a5 5 0 0 1-7-7l8.5-8.5a3.4 3.4 0 0 1 4.8 4.8L10 17a1.7 1.7 0 0 1-2.4-2.4l7.4-7.4",
  edit: "M4 20h4L19 9l-4-4L4 16z",
  bin: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  retry: "M4 12a8 8 0 1 0 2.5-5.8M4 4v4h4",
  info: "M12 11v6M12 7.5v.5M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  globe: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM3 12h18M12 3c3 3 3 15 0 18M12 3c-3 3-3 15 0 18",
  gauge: "M4 18a8 8 0 1 1 16 0M12 16l4-5",
  file: "M7 3h7l4 4v14H7zM14 3v4h4",
};

/** A drawing that says nothing by itself: its button has the words. */
export function icon(name) {
  return html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false"><path d=${PATHS[name]} /></svg>`;
}

/** Names and what is said of each; what is nothing is left out. */
export function Rows({ rows }) {
  return html`<dl class="rows">
    ${Object.entries(rows)
      .filter(([, value]) => value)
      .map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd><bdi>${value}</bdi></dd></div>`)}
  </dl>`;
}

/** A button that is an icon, and its words. */
export function IconButton({ name, label, ...rest }) {
  return html`<button type="button" class="icon-button" aria-label=${label} title=${label} ...${rest}>${icon(name)}</button>`;
}
