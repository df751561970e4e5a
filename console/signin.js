/** The door: a picker of people where the development issuer signs, or a token that is pasted. */
import { html, icon, ofBrowser, ofTab, useEffect, useRef, useState } from "./lib.js";
import { config, identity, renewal, signIn } from "./session.js";

const ROLES = {
  "": "User",
  operator: "Operator of the deployment",
  tenant_admin: "Administrator of the tenant",
  auditor: "Auditor",
  support: "Support",
  service: "Service",
};

export function SignIn() {
  const [refusal, setRefusal] = useState("");
  const enter = async (who) => {
    setRefusal("");
    await signIn(who).catch((error) => setRefusal(error.message));
  };
  return html`<main class="door">
    <div class="door-card">
      <h1><span class="mark">${icon("send")}</span>Mini Chat</h1>
      ${config.value.sign_in === "local" ? html`<${Picker} enter=${enter} />` : html`<${Paste} enter=${(token) => enter({ kind: "token", token })} />`}
      ${refusal && html`<p class="obstacle" role="alert">${refusal}</p>`}
      ${!ofTab.works && html`<p class="quiet">This browser keeps nothing for this page: after a reload you sign in again.</p>`}
    </div>
  </main>`;
}

function Picker({ enter }) {
  const last = ofBrowser.get("last") ?? { tenant: "acme", user: "ann", role: "" };
  const submit = (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    enter({ kind: "local", tenant: form.get("tenant"), user: form.get("user"), role: form.get("role") });
  };
  return html`<form onSubmit=${submit}>
    <p class="quiet">This is a stack for development: be whoever you like.</p>
    <label>Tenant <input name="tenant" required maxlength="100" defaultValue=${last.tenant} autocomplete="off" /></label>
    <label>User <input name="user" required maxlength="100" defaultValue=${last.user} autocomplete="off" /></label>
    <label>
      Role
      <select name="role">
        ${["", ...(config.value.roles ?? [])].map((role) => html`<option value=${role} selected=${role === last.role}>${ROLES[role] ?? role}</option>`)}
      </select>
    </label>
    <button type="submit" class="primary">Sign in</button>
  </form>`;
}

function Paste({ enter }) {
  const submit = (event) => {
    event.preventDefault();
    const token = new FormData(event.target).get("token").trim().replace(/^Bearer\s+/i, "");
    if (token) enter(token);
  };
  return html`<form onSubmit=${submit}>
    <label>Token <textarea name="token" rows="5" required spellcheck=${false} autocomplete="off" placeholder="eyJ…"></textarea></label>
    <p class="quiet">A bearer token of your issuer. It stays in this tab.</p>
    <button type="submit" class="primary">Sign in</button>
  </form>`;
}

/** A token was refused in the middle of work: what waits goes on with another one. */
export function Renewal() {
  const place = useRef(null);
  const isWanted = renewal.value !== null;
  useEffect(() => {
    if (isWanted) place.current?.showModal();
  }, [isWanted]);
  if (!isWanted) return null;
  return html`<dialog ref=${place} class="card" aria-labelledby="renewal" onCancel=${(event) => event.preventDefault()}>
    <h2 id="renewal">Your token has expired</h2>
    <p>Nothing is lost: what is under way goes on with a new one${identity.value?.user ? ` for ${identity.value.user}` : ""}.</p>
    <${Paste} enter=${(token) => renewal.value(token)} />
  </dialog>`;
}
