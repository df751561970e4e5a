/** Messages as they are read: questions, answers, what they used, and what can be done with them. */
import { html, icon, IconButton, plain, useEffect, useRef, useState } from "./lib.js";
import { edit, inspected, isRunning, latestRequest, retry } from "./chat.js";
import { copied, Markdown } from "./markdown.js";
import { notify } from "./notices.js";
import { showPanel } from "./panel.js";

export function Message({ message }) {
  const isLatest = message.request_id === latestRequest.value;
  if (message.role === "user") return html`<${Question} content=${message.content} attachments=${message.attachments} requestId=${message.request_id} isLatest=${isLatest} />`;
  return html`<${Answer} message=${message} isLatest=${isLatest} />`;
}

export function Question({ content, attachments = [], requestId, isLatest }) {
  const [isEditing, setEditing] = useState(false);
  return html`<article class="message question" aria-label="You">
    ${attachments.length > 0 && html`<ul class="files">${attachments.map((file) => html`<${File} key=${file.attachment_id} file=${file} />`)}</ul>`}
    ${isEditing ? html`<${Edit} content=${content} requestId=${requestId} leave=${() => setEditing(false)} />` : html`<${Long} text=${content} />`}
    ${isLatest &&
    !isEditing &&
    !isRunning.value &&
    html`<div class="tools-row"><${IconButton} name="edit" label="Edit the message" onClick=${() => setEditing(true)} /></div>`}
  </article>`;
}

const FOLDED_FROM = 4000;

/** A text as it was written. A very long one is folded: millions of characters would stand still on a phone. */
function Long({ text }) {
  const [isWhole, setWhole] = useState(false);
  const isLong = text.length > FOLDED_FROM;
  return html`<div class="said" dir="auto">${isLong && !isWhole ? `${text.slice(0, FOLDED_FROM)}…` : text}</div>
    ${isLong && html`<button type="button" class="quiet-button" onClick=${() => setWhole(!isWhole)}>${isWhole ? "Show less" : `Show all ${text.length} characters`}</button>`}`;
}

function File({ file }) {
  const picture = file.img_thumbnail;
  return html`<li class="file">
    ${picture ? html`<img src=${`data:${picture.content_type};base64,${picture.data_base64}`} alt="" width="40" height="40" />` : icon("file")}
    <bdi>${plain(file.filename)}</bdi>
  </li>`;
}

function Edit({ content, requestId, leave }) {
  const field = useRef(null);
  useEffect(() => {
    field.current.focus();
    field.current.setSelectionRange(content.length, content.length);
  }, []);
  const submit = (event) => {
    event?.preventDefault();
    const text = field.current.value;
    if (!text.trim()) return;
    leave();
    edit(requestId, text);
  };
  const keys = (event) => {
    if (event.key === "Escape") leave();
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  };
  return html`<form class="edit" onSubmit=${submit}>
    <textarea ref=${field} aria-label="The message" dir="auto" rows=${Math.min(12, content.split("\n").length + 1)} defaultValue=${content} onKeyDown=${keys}></textarea>
    <div class="edit-foot">
      <button type="button" class="quiet-button" onClick=${leave}>Keep as it was</button>
      <button type="submit" class="primary small">Send again</button>
    </div>
  </form>`;
}

function Answer({ message, isLatest }) {
  return html`<article class="message answer" aria-label="Answer">
    <${Tools} calls=${message.tool_calls} />
    <${Markdown} text=${message.content} />
    <${Ending} signal=${message.completion_signal} />
    <${Sources} items=${message.citations} />
    <${Downgrade} said=${message} />
    <${Foot} text=${message.content} requestId=${message.request_id} isLatest=${isLatest} model=${message.effective_model ?? message.model} />
  </article>`;
}

/** The answer that is being told, or just was. */
export function Telling({ shown }) {
  const state = shown.state.value;
  const text = shown.text.value;
  const end = shown.end.value;
  return html`<article class="message answer" aria-label="Answer" aria-busy=${!shown.isOver}>
    <${ToolRuns} tools=${shown.tools.value} />
    ${text && html`<${Markdown} text=${text} />`}
    ${!shown.isOver && html`<p class="waiting">${shown.isConnected.value ? html`<span class="dots" role="img" aria-label="The answer is being written"><i></i><i></i><i></i></span>` : html`<span class="quiet">The connection is gone; the answer goes on and will be here once it is back.</span>`}</p>`}
    ${state === "cancelled" && html`<p class="ending">Stopped.</p>`}
    ${state === "error" && html`<p class="obstacle" role="alert">${end?.message} <code>${end?.code}</code></p>`}
    <${Ending} signal=${end?.completion_signal} />
    <${Sources} items=${shown.citations.value} />
    <${Downgrade} said=${end ?? {}} />
    ${shown.isOver && html`<${Foot} text=${text} requestId=${shown.requestId.value} isLatest=${true} />`}
  </article>`;
}

function Foot({ text, requestId, isLatest, model }) {
  const copy = async () => notify((await copied(text)) ? "The answer is copied." : "The browser does not let this page copy.");
  const inspect = () => {
    inspected.value = requestId;
    showPanel("happened");
  };
  return html`<div class="tools-row">
    <${IconButton} name="copy" label="Copy the answer" onClick=${copy} />
    ${isLatest && !isRunning.value && html`<${IconButton} name="retry" label="Answer again" onClick=${() => retry(requestId)} />`}
    <${IconButton} name="info" label="What happened in this turn" onClick=${inspect} />
    ${model && html`<span class="quiet model">${model}</span>`}
  </div>`;
}

const DOING = { web_search: "Searching the web", file_search: "Searching the files", code_interpreter: "Running code" };
const DID = { web_search: "Searched the web", file_search: "Searched the files", code_interpreter: "Ran code" };

function ToolRuns({ tools }) {
  if (!tools.length) return null;
  return html`<ul class="tool-runs">
    ${tools.map(
      ({ name, phase, details }, index) => html`<li key=${index} class=${phase}>
        ${phase === "done" ? DID[name] : html`<span class="pulse"></span> ${DOING[name]}…`}
        ${details.query && html` <q dir="auto">${details.query}</q>`}
        ${details.files_searched?.length > 0 && html`: ${details.files_searched.map((file) => html`<bdi>${plain(file.title)}</bdi> `)}`}
        ${details.output && html`<pre tabindex="0">${details.output}</pre>`}
      </li>`,
    )}
  </ul>`;
}

function Tools({ calls }) {
  const used = Object.entries(calls ?? {}).filter(([, count]) => count > 0);
  if (!used.length) return null;
  return html`<ul class="tool-runs">${used.map(([name, count]) => html`<li key=${name} class="done">${DID[name]}${count > 1 && ` ${count} times`}</li>`)}</ul>`;
}

const REASONS = {
  length: "The answer is cut: it reached its longest length.",
  content_filter: "The answer is cut by the provider's filter.",
  cancelled: "Stopped.",
  deadline: "The answer is cut: it took too long.",
  interrupted: "The answer is cut: it was interrupted.",
};

function Ending({ signal }) {
  if (!signal || signal.kind === "complete") return null;
  if (signal.kind === "refusal") return html`<p class="ending">The model refused.</p>`;
  return html`<p class="ending">${REASONS[signal.reason] ?? "The answer is not complete."}</p>`;
}

function Sources({ items }) {
  if (!items?.length) return null;
  return html`<section class="sources" aria-label="Sources">
    <h3>Sources</h3>
    <ol>
      ${items.map((one, index) => html`<li key=${index}><${Source} source=${one} /></li>`)}
    </ol>
  </section>`;
}

function Source({ source }) {
  const isPage = source.source === "web" && /^https?:\/\//i.test(source.url ?? "");
  return html`${isPage
    ? html`<a href=${source.url} target="_blank" rel="noopener noreferrer nofollow"><bdi>${plain(source.title || source.url)}</bdi></a> <span class="quiet">${new URL(source.url).host}</span>`
    : html`<span class="file-source">${icon("file")} <bdi>${plain(source.title)}</bdi></span>`}
  ${source.snippet && html`<p class="snippet" dir="auto">${source.snippet}</p>`}`;
}

function Downgrade({ said }) {
  const warnings = said.quota_warnings ?? [];
  return html`${said.quota_decision === "downgrade" &&
  html`<p class="downgrade"><strong>${said.effective_model}</strong> answered instead of ${said.downgrade_from ?? said.selected_model}: ${DOWNGRADES[said.downgrade_reason] ?? said.downgrade_reason}.</p>`}
  ${warnings.filter((one) => one.warning || one.exhausted).map(
    (one) => html`<p class="downgrade" key=${one.tier + one.period}>${one.tier === "premium" ? "Premium" : "The"} quota of ${one.period === "daily" ? "today" : "this month"} ${one.exhausted ? "is used up" : `is running short: ${one.remaining_percentage}% left`}.</p>`,
  )}`;
}

const DOWNGRADES = { premium_quota_exhausted: "the premium quota is used up" };
