/** Who uses the page, and the client that speaks for them. */
import { MiniChat, Problem } from "../clients/javascript/src/index.js";
import { computed, ofTab, ofBrowser, signal } from "./lib.js";

const PAGE = location.href.split(/[?#]/)[0];
/** Up to and with `/v1`: the page is beside the API's operations. */
export const BASE_URL = new URL(".", PAGE).href.replace(/\/$/, "");
const ADMIN_URL = new URL("../admin/v1", PAGE).href;

/** How somebody signs in here: `local` (as anybody), `token` (paste one) or `none` (nobody need). */
export const config = signal(null);
/** @type {import("./vendor/signals.js").Signal<any>} `{ kind, tenant, user, role, token }` */
export const identity = signal(null);
/** The API for whom signed in; null for nobody. */
export const api = signal(null);
export const admin = signal(null);
/** While a token is asked for in the middle of work: what to do with it. */
export const renewal = signal(null);

/** The roles that their token says they have. */
export const roles = computed(() => rolesOf(identity.value));
export const canOperate = computed(() => ["operator", "tenant_admin", "support", "auditor"].some((role) => roles.value.includes(role)));

export async function start() {
  try {
    const answer = await fetch(`${PAGE}/config.json`);
    config.value = answer.ok ? await answer.json() : { sign_in: "token" };
  } catch {
    config.value = { sign_in: "token" };
  }
  const kept = ofTab.get("identity");
  if (config.value.sign_in === "none") return enter({ kind: "none", user: "developer" });
  if (kept?.kind === "token" || (kept && kept.kind === config.value.sign_in)) await signIn(kept).catch(signOut);
}

/** @param {any} who raises a sentence when they cannot be */
export async function signIn(who) {
  const first = who.kind === "local" ? await signed(who) : who.token;
  let next = first;
  const token = async () => {
    const given = next ?? (who.kind === "local" ? await signed(who) : await asked());
    next = undefined;
    return given;
  };
  enter(who, token, first);
}

function enter(who, token, first) {
  const claims = claimsOf(first);
  identity.value = { ...who, claims };
  ofTab.set("identity", who);
  if (who.kind === "local") ofBrowser.set("last", { tenant: who.tenant, user: who.user, role: who.role });
  api.value = new MiniChat({ baseUrl: BASE_URL, token, fetch: outliving });
  admin.value = new MiniChat({ baseUrl: ADMIN_URL, token, storage: null });
}

/** What is deleted while the page closes is deleted. */
function outliving(url, init) {
  return fetch(url, { ...init, keepalive: init.method === "DELETE" });
}

export function signOut() {
  ofTab.remove("identity");
  // Everything that was read goes with the page.
  if (api.value) return location.assign(PAGE), location.reload();
  identity.value = null;
}

async function signed({ tenant, user, role, seconds }) {
  const answer = await fetch(`${PAGE}/token`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ tenant, user, role: role ?? "", ...(seconds && { seconds }) }),
  });
  if (!answer.ok) {
    const { detail, errors = [] } = await answer.json().catch(() => ({}));
    throw new Error([detail ?? `The server answered ${answer.status}`, ...errors.map((one) => `${one.field}: ${one.message}`)].join(" "));
  }
  return (await answer.json()).token;
}

/** The pasted token has been refused: the work waits until there is another one. */
function asked() {
  const { promise, resolve } = deferred();
  const before = renewal.value;
  renewal.value = (token) => {
    before?.(token);
    resolve(token);
    renewal.value = null;
    ofTab.set("identity", { kind: "token", token });
  };
  return promise;
}

function deferred() {
  let resolve;
  const promise = new Promise((done) => (resolve = done));
  return { promise, resolve };
}

export function claimsOf(token) {
  try {
    const payload = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(payload), (letter) => letter.charCodeAt(0))));
  } catch {
    return {};
  }
}

function rolesOf(who) {
  if (!who) return [];
  if (who.kind === "none") return [];
  const said = Object.values(who.claims ?? {}).flat().filter((value) => typeof value === "string");
  return who.role ? [who.role] : said.flatMap((value) => value.split(/[\s,]+/));
}

/** What went wrong, in a sentence that a person can act on. */
export function sentence(error) {
  if (!(error instanceof Problem)) return error?.message ?? String(error);
  const fields = (error.errors ?? []).map((one) => `${one.field}: ${one.message}`);
  return [error.message, ...fields].join(" ");
}
