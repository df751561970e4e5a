/** Short words that come and go at the page's edge, some with a way back; read out by screen readers. */
import { html, signal } from "./lib.js";

const notices = signal([]);
/** What only screen readers are told. */
const said = signal("");
let last = 0;

/** @param {string} text @param {{ undo?: () => void, seconds?: number, tone?: string }} [options] */
export function notify(text, { undo, seconds = 6, tone = "" } = {}) {
  const notice = { id: ++last, text, undo, tone };
  notices.value = [...notices.value.slice(-3), notice];
  setTimeout(() => dismiss(notice.id), seconds * 1000);
  return notice.id;
}

export function dismiss(id) {
  notices.value = notices.value.filter((one) => one.id !== id);
}

export function say(text) {
  said.value = text;
}

export function Notices() {
  return html`
    <div class="visually-hidden" role="status" aria-live="polite">${said.value}</div>
    <div class="notices" role="status" aria-live="polite">
      ${notices.value.map(
        (one) => html`<p key=${one.id} class="notice ${one.tone}">
          <span dir="auto">${one.text}</span>
          ${one.undo && html`<button type="button" onClick=${() => (dismiss(one.id), one.undo())}>Undo</button>`}
        </p>`,
      )}
    </div>
  `;
}
