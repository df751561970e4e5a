/** What an operator or a tenant's administrator sees and does, over the operator's API. */
import { computed, credits, html, IconButton, number, plain, signal, useEffect, useState, when } from "./lib.js";
import { notify } from "./notices.js";
import { PolicyView, Switches } from "./policy.js";
import { admin, identity, roles, sentence } from "./session.js";
import { isDrawerOpen } from "./sidebar.js";

const isOperator = computed(() => roles.value.includes("operator"));
/** Whose matters these are: a tenant's id, or "" for the deployment's. */
const tenant = signal(null);
const tab = signal("usage");

function ownTenant() {
  const { claims = {} } = identity.value ?? {};
  return claims.tenant_id ?? "";
}

const VIEWS = {
  usage: ["Usage", Usage],
  running: ["Running turns", Running],
  letters: ["Dead letters", Letters],
  policy: ["Policy", PolicyView],
  switches: ["Kill switches", Switches],
};

export function Operate() {
  tenant.value ??= ownTenant();
  const tabs = Object.entries(VIEWS).filter(([name]) => name !== "letters" || isOperator.value);
  const [, View] = VIEWS[tab.value];
  return html`<main class="operate" tabindex="0" aria-label="Operate">
    <header class="top">
      <${IconButton} name="menu" label="Open the list of chats" class="icon-button only-narrow" onClick=${() => (isDrawerOpen.value = true)} />
      <h1>Operate</h1>
    </header>
    <div class="operate-body">
      <div class="form-row">
        <div role="tablist" aria-label="Operate">
          ${tabs.map(
            ([name, [label]]) =>
              html`<button key=${name} type="button" role="tab" id=${`view-${name}`} aria-selected=${tab.value === name} aria-controls="view" onClick=${() => (tab.value = name)}>${label}</button>`,
          )}
        </div>
        <span class="spacer"></span>
        ${tab.value !== "letters" && html`<${Whose} />`}
      </div>
      <section id="view" role="tabpanel" aria-labelledby=${`view-${tab.value}`} class="operate-view">
        <${View} key=${`${tab.value} ${tenant.value}`} tenant=${tenant.value} />
      </section>
    </div>
  </main>`;
}

/** A tenant's administrator has one tenant; an operator may name another, or none for the deployment. */
function Whose() {
  if (!isOperator.value) return null;
  const change = (event) => (tenant.value = event.target.value.trim());
  return html`<label>Tenant's id <input class="whose" value=${tenant.value} placeholder="the whole deployment" onChange=${change} spellcheck=${false} /></label>`;
}

/** Where an operation of a layer is: the tenant's, or the deployment's. */
export function place(tenantId, path) {
  return tenantId ? `/tenants/${encodeURIComponent(tenantId)}${path}` : path;
}

/**
 * What one request answers, and a way to ask again.
 *
 * @param {string | null} path null for nothing
 */
export function useAnswer(path, query) {
  const [answer, setAnswer] = useState({});
  const [tries, setTries] = useState(0);
  useEffect(() => {
    let isWanted = path !== null;
    if (isWanted) {
      admin.value.request("GET", path, { query }).then(
        (found) => isWanted && setAnswer({ found }),
        (error) => isWanted && setAnswer({ refusal: sentence(error), code: error.code }),
      );
    }
    return () => (isWanted = false);
  }, [path, JSON.stringify(query), tries]);
  return { ...answer, again: () => setTries(tries + 1) };
}

export function Refusal({ text }) {
  return text ? html`<p class="obstacle" role="alert">${text}</p>` : null;
}

const day = (back) => new Date(Date.now() - back * 86_400_000).toISOString().slice(0, 10);

function Usage({ tenant: id }) {
  const [by, setBy] = useState("day");
  const [days, setDays] = useState(30);
  const span = { from: day(days - 1), to: day(0), by };
  const { found, refusal, again } = useAnswer(id ? place(id, "/usage") : null, span);
  if (!id) return html`<p class="quiet">Usage is told tenant by tenant: name one.</p>`;
  const rows = found?.items ?? [];
  return html`
    <div class="form-row">
      <label>By <select value=${by} onChange=${(event) => setBy(event.target.value)}><option value="day">Day</option><option value="user">User</option><option value="model">Model</option></select></label>
      <label>Days <select value=${days} onChange=${(event) => setDays(Number(event.target.value))}><option value="7">7</option><option value="30">30</option><option value="90">90</option></select></label>
      <button type="button" onClick=${again}>Read again</button>
    </div>
    <${Refusal} text=${refusal} />
    ${rows.length > 0 && html`<${Chart} rows=${rows} by=${by} />`}
    <${Table}
      label="Usage"
      empty="Nothing was used in these days; turns are counted within seconds of their end."
      heads=${[{ day: "Day", user: "User", model: "Model" }[by], "Turns", "Credits", "Tokens in", "Tokens out", "Web searches", "Images"]}
      rows=${rows.map((one) => [one.day ?? one.user_id ?? one.model, number(one.turns), credits(one.credits_micro), number(one.input_tokens), number(one.output_tokens), number(one.web_searches), number(one.image_inputs)])}
    />`;
}

/** Credits as columns; the table below says the same in numbers. */
function Chart({ rows, by }) {
  const shown = rows.slice(-31);
  const most = Math.max(...shown.map((one) => one.credits_micro), 1);
  const width = 900 / shown.length;
  return html`<svg class="chart" viewBox="0 0 900 180" preserveAspectRatio="xMinYMid meet" role="img" aria-label=${`Credits by ${by}, as in the table`}>
    <line x1="0" x2="900" y1="150" y2="150" />
    ${shown.map((one, index) => {
      const height = Math.max((130 * one.credits_micro) / most, 1);
      const name = one.day?.slice(5) ?? one.model ?? one.user_id.slice(0, 8);
      return html`<g key=${name}>
        <rect x=${index * width + 2} y=${150 - height} width=${Math.min(width - 4, 64)} height=${height} rx="3"><title>${name}: ${credits(one.credits_micro)}</title></rect>
        ${(shown.length < 12 || index % 5 === 0) && html`<text x=${index * width + 2} y="168">${name}</text>`}
      </g>`;
    })}
  </svg>`;
}

export function Table({ label, heads, rows, empty }) {
  if (!rows.length) return html`<p class="quiet">${empty}</p>`;
  return html`<div class="scrolls" tabindex="0" role="region" aria-label=${label}>
    <table>
      <thead><tr>${heads.map((head, index) => html`<th key=${index} scope="col" class=${index && typeof rows[0][index] === "string" ? "num" : ""}>${head}</th>`)}</tr></thead>
      <tbody>
        ${rows.map((row, at) => html`<tr key=${at}>${row.map((cell, index) => html`<td key=${index} class=${index && typeof cell === "string" ? "num" : ""}>${typeof cell === "string" ? html`<bdi>${plain(cell)}</bdi>` : cell}</td>`)}</tr>`)}
      </tbody>
    </table>
  </div>`;
}

function Running({ tenant: id }) {
  const { found, refusal, again } = useAnswer(place(id, "/running_turns"));
  useEffect(() => {
    const timer = setTimeout(again, 4000);
    return () => clearTimeout(timer);
  }, [found, refusal]);
  const cancel = async (turn) => {
    try {
      await admin.value.request("POST", `/tenants/${encodeURIComponent(turn.tenant_id)}/running_turns/${turn.chat_id}/${turn.request_id}/cancel`, { repeatable: true });
      notify("The turn is asked to stop.");
    } catch (error) {
      notify(sentence(error), { tone: "bad" });
    }
    again();
  };
  const rows = (found?.items ?? []).map((turn) => [
    turn.user_id,
    turn.model,
    when(turn.started_at),
    `${Math.max(0, Math.round((Date.now() - Date.parse(turn.last_progress_at)) / 1000))} s`,
    credits(turn.reserved_micro),
    turn.cancel_requested
      ? html`<span class="quiet">is stopping</span>`
      : html`<button type="button" class="small" aria-label=${`Cancel the turn of ${turn.user_id}`} onClick=${() => cancel(turn)}>Cancel</button>`,
  ]);
  return html`<${Refusal} text=${refusal} />
    <${Table} label="Running turns" empty="No turn runs." heads=${["User", "Model", "Since", "Silent for", "Reserved", ""]} rows=${rows} />`;
}

function Letters() {
  const [queue, setQueue] = useState(null);
  const { found, refusal, again } = useAnswer("/dead_letters");
  const letters = useAnswer(queue && `/dead_letters/${queue}`);
  const redrive = async (name) => {
    try {
      const { sent, failed } = await admin.value.request("POST", `/dead_letters/${name}/redrive`);
      notify(`${number(sent)} sent again${failed ? `, ${number(failed)} could not be` : ""}.`);
    } catch (error) {
      notify(sentence(error), { tone: "bad" });
    }
    again();
    letters.again();
  };
  const rows = (found?.items ?? []).map((one) => [
    one.queue,
    String(one.waiting ?? "–"),
    String(one.in_flight ?? "–"),
    String(one.dead),
    html`<span class="form-row">
      <button type="button" class="small" aria-label=${`Look into ${one.queue}`} disabled=${!one.dead} onClick=${() => setQueue(one.queue)}>Look</button>
      <button type="button" class="small" aria-label=${`Redrive ${one.queue}`} disabled=${!one.dead} onClick=${() => redrive(one.queue)}>Redrive</button>
    </span>`,
  ]);
  const inside = letters.found?.items ?? [];
  return html`<${Refusal} text=${refusal ?? letters.refusal} />
    <${Table} label="Queues" empty="No queue is known here." heads=${["Queue", "Waiting", "In flight", "Dead", ""]} rows=${rows} />
    ${queue &&
    html`<h2>${queue}</h2>
      <${Table} label="Dead letters" empty="Nothing is dead in it." heads=${["Since", "Event", "Received", "Why"]} rows=${inside.map((one) => [when(one.since), one.event_type ?? "–", String(one.received), html`<span>${one.reason}</span>`])} />`}`;
}
