/** Where messages are written. */
import { html, icon, IconButton, number, plain, signal, useEffect, useRef } from "./lib.js";
import { cancel, chatId, draft, isRunning, obstacle, send } from "./chat.js";
import { attach, takeAway } from "./files.js";
import { api } from "./session.js";

const models = signal([]);
export async function readModels() {
  models.value = await api.value.models.list().catch(() => []);
}

const change = (news) => (draft.value = { ...draft.value, ...news });

export function Composer() {
  const field = useRef(null);
  const chooser = useRef(null);
  const { text, files, webSearch } = draft.value;
  useEffect(() => grow(field.current), [text]);
  // Where there is a keyboard, it writes here.
  useEffect(() => matchMedia("(pointer: fine)").matches && field.current?.focus({ preventScroll: true }), [chatId.value]);
  const submit = (event) => {
    event.preventDefault();
    send();
  };
  const keys = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  };
  const paste = (event) => {
    const pasted = event.clipboardData?.getData("text/plain") ?? "";
    if (pasted.length > LONGEST_IN_FIELD) {
      event.preventDefault();
      change({ text: draft.value.text + pasted });
      return;
    }
    if (!event.clipboardData?.files.length) return;
    event.preventDefault();
    attach(event.clipboardData.files);
  };
  const isBusy = files.some((file) => file.state === "sending");
  return html`<form class="composer" onSubmit=${submit} aria-label="Write a message">
    ${obstacle.value && html`<p class="obstacle" role="alert"><span>${obstacle.value.text} ${obstacle.value.code && html`<code>${obstacle.value.code}</code>`}</span>
      <${IconButton} name="close" label="Dismiss" onClick=${() => (obstacle.value = null)} /></p>`}
    ${files.length > 0 && html`<ul class="files">${files.map((file) => html`<${FileOnItsWay} key=${file.key} file=${file} />`)}</ul>`}
    <div class="composer-box">
      ${text.length > LONGEST_IN_FIELD ? html`<${LongText} text=${text} />` : html`<textarea
        ref=${field}
        rows="1"
        aria-label="Message"
        placeholder="Write a message"
        dir="auto"
        value=${text}
        onInput=${(event) => change({ text: event.target.value })}
        onKeyDown=${keys}
        onPaste=${paste}
      ></textarea>`}
      <div class="composer-row">
        <input ref=${chooser} type="file" multiple hidden aria-label="Files" onChange=${(event) => (attach(event.target.files), (event.target.value = ""))} />
        <${IconButton} name="clip" label="Attach files" onClick=${() => chooser.current.click()} />
        <button type="button" class=${`toggle ${webSearch ? "on" : ""}`} aria-pressed=${webSearch} onClick=${() => change({ webSearch: !webSearch })}>
          ${icon("globe")} Web
        </button>
        ${chatId.value === null && models.value.length > 1 && html`<${ModelChoice} />`}
        <span class="spacer"></span>
        ${isRunning.value
          ? html`<button type="button" class="round stop" aria-label="Stop the answer" title="Stop the answer" onClick=${cancel}>${icon("stop")}</button>`
          : html`<button type="submit" class="round" aria-label="Send" title="Send" disabled=${!text.trim() || isBusy}>${icon("send")}</button>`}
      </div>
    </div>
  </form>`;
}

function ModelChoice() {
  const chosen = (event) => change({ model: event.target.value });
  return html`<select class="model-choice" aria-label="Model" value=${draft.value.model} onChange=${chosen}>
    <option value="">Default model</option>
    ${models.value.map((one) => html`<option key=${one.model_id} value=${one.model_id}>${one.display_name} (${one.multiplier_display})</option>`)}
  </select>`;
}

function FileOnItsWay({ file }) {
  const share = Math.round(file.share * 100);
  return html`<li class=${`file ${file.state}`}>
    ${icon("file")}
    <bdi>${plain(file.name)}</bdi>
    ${file.state === "sending" &&
    (share < 100
      ? html`<progress aria-label=${`Sending ${plain(file.name)}`} max="100" value=${share}></progress>`
      : html`<span class="quiet">being read…</span>`)}
    ${file.state === "failed" && html`<span class="why" role="alert">${file.why}</span>`}
    <${IconButton} name="close" label=${`Take ${plain(file.name)} away`} onClick=${() => takeAway(file)} />
  </li>`;
}

/** A field of millions of characters stands still for minutes while it is laid out. */
const LONGEST_IN_FIELD = 60_000;

function LongText({ text }) {
  return html`<div class="long-text">
    <p><strong>A text of ${number(text.length)} characters</strong> <span class="quiet" dir="auto">${text.slice(0, 160)}…</span></p>
    <${IconButton} name="close" label="Take the text away" onClick=${() => change({ text: "" })} />
  </div>`;
}

const TALLEST = 240;

function grow(field) {
  if (!field) return;
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight, TALLEST)}px`;
}
