/** The policy of a layer: read, changed, compared, published; and its switches. */
import { html, plain, useState, when } from "./lib.js";
import { notify } from "./notices.js";
import { place, Refusal, Table, useAnswer } from "./operate.js";
import { admin, sentence } from "./session.js";

export function PolicyView({ tenant }) {
  const base = place(tenant, "/policy");
  const { found, refusal, code, again } = useAnswer(base);
  const versions = useAnswer(`${base}/versions`);
  const isNew = code === "policy_not_found";
  if (refusal && !isNew) return html`<${Refusal} text=${refusal} />`;
  if (!found && !isNew) return html`<p class="quiet">Reading…</p>`;
  const next = () => (again(), versions.again());
  return html`
    ${isNew && html`<p class="quiet">Nothing is published here: everything is inherited.</p>`}
    <${Editor} key=${found?.version ?? 0} base=${base} found=${found} onPublished=${next} />
    <h2>Versions</h2>
    <${Table} label="Versions" empty="None." heads=${["Version", "Published", "By", ""]} rows=${(versions.found?.items ?? []).map((one) => [String(one.version), when(one.published_at), one.published_by, html`<span class="quiet">${one.withdrawn ? "withdrawn" : ""}</span>`])} />
  `;
}

function Editor({ base, found, onPublished }) {
  const first = { ...(found?.document ?? {}), policy_version: (found?.version ?? 0) + 1 };
  const [text, setText] = useState(() => JSON.stringify(first, null, 2));
  const [diff, setDiff] = useState(null);
  const [refusal, setRefusal] = useState("");
  const tried = async (act) => {
    setRefusal("");
    try {
      await act(JSON.parse(text));
    } catch (error) {
      setRefusal(error instanceof SyntaxError ? `This is no JSON: ${error.message}` : sentence(error));
    }
  };
  const compare = () => tried(async (json) => setDiff((await admin.value.request("POST", `${base}/diff`, { json })).items));
  const publish = () =>
    tried(async (json) => {
      const { version } = await admin.value.request("POST", `${base}/versions`, { json });
      notify(`Version ${version} is in force.`);
      onPublished();
    });
  const write = (event) => {
    setText(event.target.value);
    setDiff(null);
  };
  return html`
    <label>Document <textarea rows="16" spellcheck=${false} value=${text} onInput=${write}></textarea></label>
    <${Refusal} text=${refusal} />
    ${diff && html`<${Diff} items=${diff} />`}
    <div class="form-row">
      <button type="button" onClick=${compare}>Compare</button>
      <button type="button" class="primary" disabled=${!diff?.length} onClick=${publish}>Publish</button>
      ${!diff && html`<span class="quiet">What has been compared can be published.</span>`}
    </div>
  `;
}

const told = (value) => (value === null || value === undefined ? "nothing" : JSON.stringify(value));

function Diff({ items }) {
  if (!items.length) return html`<p class="quiet" role="status">Publishing it would change nothing.</p>`;
  return html`<div class="scrolls diff" tabindex="0" role="region" aria-label="What would change">
    <table>
      <thead><tr><th scope="col">What</th><th scope="col">In force</th><th scope="col">Then</th></tr></thead>
      <tbody>${items.map((one) => html`<tr key=${one.path}><td>${plain(one.path)}</td><td><del>${told(one.before)}</del></td><td><ins>${told(one.after)}</ins></td></tr>`)}</tbody>
    </table>
  </div>`;
}

const SWITCHES = {
  disable_premium_tier: "Premium models are off",
  force_standard_tier: "Everything is answered by standard models",
  disable_web_search: "Web search is off",
  disable_file_search: "File search is off",
  disable_images: "Images are off",
  disable_code_interpreter: "Code runs are off",
};

export function Switches({ tenant }) {
  const base = place(tenant, "/policy/kill_switches");
  const { found, refusal, again } = useAnswer(base);
  const set = async (name, isOn) => {
    try {
      await admin.value.request("PATCH", base, { json: { [name]: isOn } });
      notify(isOn ? `${SWITCHES[name]}, within seconds.` : "It is switched back, within seconds.");
    } catch (error) {
      notify(sentence(error), { tone: "bad" });
    }
    again();
  };
  if (refusal) return html`<${Refusal} text=${refusal} />`;
  if (!found) return html`<p class="quiet">Reading…</p>`;
  return html`<p class="quiet">What a layer above has switched off is off whatever is said here.</p>
    <div class="switches">
      ${Object.entries(SWITCHES).map(
        ([name, label]) =>
          html`<label key=${name}><input type="checkbox" role="switch" checked=${found.kill_switches[name] === true} onChange=${(event) => set(name, event.target.checked)} /> ${label}</label>`,
      )}
    </div>`;
}
