/** What happened in a turn, for those who build on it: its events and times, its request, its bill. */
import { api, BASE_URL, sentence } from "./session.js";
import { html, IconButton, number, Rows, useEffect, useState } from "./lib.js";
import { Bill } from "./bill.js";
import { chatId, inspected, latestRequest, live, told } from "./chat.js";
import { copied } from "./markdown.js";
import { panel, showPanel } from "./panel.js";
import { Quota } from "./quota.js";
import { ShownTurn } from "./turn.js";

export function Panel() {
  if (!panel.value) return null;
  const tab = (name, label) =>
    html`<button type="button" role="tab" id=${`tab-${name}`} aria-selected=${panel.value === name} aria-controls="panel-body" onClick=${() => showPanel(name)}>${label}</button>`;
  return html`<aside class="panel" aria-label="Details">
    <div class="panel-head">
      <div role="tablist" aria-label="Details">${tab("happened", "What happened")}${tab("quota", "Quota")}</div>
      <${IconButton} name="close" label="Close the details" onClick=${() => showPanel(null)} />
    </div>
    <div class="panel-body" id="panel-body" role="tabpanel" aria-labelledby=${`tab-${panel.value}`} tabindex="0">
      ${panel.value === "quota" ? html`<${Quota} />` : html`<${Happened} />`}
    </div>
  </aside>`;
}

function Happened() {
  const requestId = inspected.value ?? live.value?.requestId.value ?? latestRequest.value;
  const shown = requestId ? told.value.get(requestId) : live.value;
  if (shown) return html`<${OneTurn} key=${shown.startedAt} shown=${shown} requestId=${requestId} />`;
  if (!requestId) return html`<p class="quiet">Nothing yet: send a message, and each event of its turn is listed here.</p>`;
  return html`<${NotSeen} key=${requestId} requestId=${requestId} />`;
}

/** A turn that this window did not see: its stream can be told again for a day. */
function NotSeen({ requestId }) {
  const [refusal, setRefusal] = useState("");
  const replay = async () => {
    const id = chatId.value;
    const request = { method: "GET", path: `/chats/${id}/turns/${requestId}/stream` };
    const shown = new ShownTurn({ chatId: id, request }).begin((options) => api.value.resume(id, requestId, options));
    shown.isReplay = true;
    const error = await shown.follow();
    if (error) setRefusal(sentence(error));
    else told.value = new Map(told.value).set(requestId, shown);
  };
  return html`<p class="quiet">This turn ran before this page was open.</p>
    <button type="button" onClick=${replay}>Read its stream again</button>
    ${refusal && html`<p class="obstacle" role="alert">${refusal}</p>`}
    <${Facts} requestId=${requestId} state="" />`;
}

const seconds = (milliseconds) => (milliseconds === null ? "–" : `${(milliseconds / 1000).toFixed(2)} s`);

function OneTurn({ shown, requestId }) {
  const log = shown.log.value;
  const resumes = log.filter((one) => one.kind === "resumed").length;
  const isTold = shown.isReplay || shown.request.method === "GET";
  return html`
    <dl class="figures">
      <div><dt>First delta</dt><dd>${seconds(shown.firstDeltaAt.value)}</dd></div>
      <div><dt>Total</dt><dd>${seconds(shown.endedAt.value)}</dd></div>
      <div><dt>Events</dt><dd>${number(log.filter((one) => one.id !== undefined).length)}</dd></div>
      <div><dt>Resumed</dt><dd>${resumes}</dd></div>
    </dl>
    ${isTold && html`<p class="quiet">Told again: times are those of this reading.</p>`}
    <${Facts} requestId=${requestId} state=${shown.state.value} />
    <${Curl} shown=${shown} />
    <h3>Events</h3>
    <${Events} log=${log} />
  `;
}

const MOST_ROWS = 400;

function Events({ log }) {
  const rows = log.length > MOST_ROWS ? [...log.slice(0, MOST_ROWS / 2), null, ...log.slice(-MOST_ROWS / 2)] : log;
  return html`<div class="scrolls" tabindex="0" role="region" aria-label="Events">
    <table class="events">
      <thead><tr><th scope="col">No.</th><th scope="col">Time</th><th scope="col">Event</th></tr></thead>
      <tbody>
        ${rows.map((one, index) =>
          one === null
            ? html`<tr key="gap"><td colspan="3" class="quiet">${number(log.length - MOST_ROWS)} more</td></tr>`
            : html`<tr key=${index} class=${one.kind}>
                <td class="num">${one.id ?? ""}</td>
                <td class="num">${(one.at / 1000).toFixed(3)}</td>
                <td><b>${one.kind}</b> <span class="note" dir="auto">${one.note}</span></td>
              </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

function Curl({ shown }) {
  const text = curlOf(shown.request, shown.requestId.value);
  const [label, setLabel] = useState("Copy");
  const copy = async () => {
    setLabel((await copied(text)) ? "Copied" : "Select it to copy");
    setTimeout(() => setLabel("Copy"), 2000);
  };
  return html`<div class="code">
    <div class="code-head"><span>The request</span><button type="button" onClick=${copy} aria-label="Copy the request as curl">${label}</button></div>
    <pre tabindex="0" dir="ltr">${text}</pre>
  </div>`;
}

const LONGEST_BODY = 2000;
const quoted = (text) => `'${text.replace(/'/g, "'\\''")}'`;

function curlOf({ method, path, body }, requestId) {
  const lines = [`curl -N ${method === "GET" ? "" : `-X ${method} `}${quoted(BASE_URL + path)}`, `-H 'Authorization: Bearer …'`];
  if (body) {
    const json = JSON.stringify({ ...body, ...(requestId && method === "POST" && { request_id: requestId }) });
    lines.push("-H 'Content-Type: application/json'", `-d ${quoted(json.length > LONGEST_BODY ? `${json.slice(0, LONGEST_BODY)}…` : json)}`);
  }
  return lines.join(" \\\n  ");
}

/** What the server says of a turn once it is over, and its bill. */
function Facts({ requestId, state }) {
  const [{ turn, bill }, setFacts] = useState({});
  useEffect(() => {
    if (!requestId || ["waiting", "running"].includes(state)) return;
    readFacts(chatId.value, requestId).then(setFacts);
  }, [requestId, state]);
  if (!turn) return null;
  const rows = {
    state: turn.state + (turn.error_code ? `, ${turn.error_code}` : ""),
    model: turn.effective_model + (turn.quota_decision === "downgrade" ? ` instead of ${turn.selected_model}` : ""),
    tokens: turn.usage && `${number(turn.usage.input_tokens)} in, ${number(turn.usage.output_tokens)} out`,
    "request id": requestId,
  };
  return html`<${Rows} rows=${rows} />${bill && html`<${Bill} bill=${bill} />`}`;
}

async function readFacts(id, requestId) {
  const turn = await api.value.turn(id, requestId).catch(() => null);
  if (!turn) return {};
  const bill = await api.value.request("GET", `/chats/${id}/turns/${requestId}/bill`).catch(() => undefined);
  return { turn, bill };
}
