/** What is left: bars per bucket and period, and a word where it runs short. */
import { api } from "./session.js";
import { credits, html, number, signal, when, bytes } from "./lib.js";

export const quota = signal(null);

export async function readQuota() {
  quota.value = await api.value.quota().catch(() => quota.value);
}

const NAMES = {
  total: "All models",
  premium: "Premium models",
  web_search: "Web searches",
  code_interpreter: "Code runs",
  file_search: "File searches",
  image_inputs: "Images",
  uploads: "Uploads",
};

export function Quota() {
  const status = quota.value;
  if (!status) return html`<p class="quiet">Not known yet.</p>`;
  return html`<div class="quota">
    ${status.tiers.map(
      ({ tier, periods }) => html`<section key=${tier}>
        <h3>${NAMES[tier] ?? tier}</h3>
        ${periods.map((one) => html`<${Bar} key=${one.period} ...${ofPeriod(one)} />`)}
      </section>`,
    )}
    <section>
      <h3>Today's counts</h3>
      ${status.counts.map((one) => html`<${Bar} key=${one.scope + one.unit} ...${ofCount(one)} />`)}
    </section>
  </div>`;
}

function ofPeriod(one) {
  const left = `${credits(one.remaining_credits_micro)} of ${credits(one.limit_credits_micro)} credits left`;
  const share = one.limit_credits_micro ? one.remaining_credits_micro / one.limit_credits_micro : 0;
  return { name: one.period === "daily" ? "Today" : "This month", left, share, ...one };
}

function ofCount(one) {
  const told = one.unit === "bytes" ? bytes : number;
  const left = `${told(one.remaining)} of ${told(one.limit)} left`;
  const name = one.unit === "bytes" ? "Upload volume" : (NAMES[one.scope] ?? one.scope);
  return { name, left, share: one.limit ? one.remaining / one.limit : 0, warning: false, ...one };
}

function Bar({ name, left, share, warning, exhausted, next_reset }) {
  const state = exhausted ? "used-up" : warning ? "short" : "";
  return html`<div class="bar ${state}">
    <div class="bar-head"><span>${name}</span><span class="quiet">${left}</span></div>
    <${Meter} label=${`${name}: ${left}`} share=${share} />
    ${(exhausted || warning) && html`<p class="bar-note">${exhausted ? "Used up" : "Running short"}; new on ${when(next_reset)}.</p>`}
  </div>`;
}

function Meter({ label, share }) {
  const percent = Math.round(100 * Math.max(0, Math.min(1, share)));
  return html`<div class="meter" role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax="100" aria-valuenow=${percent}>
    <span style=${{ width: `${percent}%` }}></span>
  </div>`;
}

/** The scarcest bucket in a line, for where there is no room. */
export function QuotaLine() {
  const total = quota.value?.tiers.flatMap((one) => one.periods.map((period) => ({ ...period, tier: one.tier })));
  const least = total?.toSorted((one, other) => one.remaining_percentage - other.remaining_percentage)[0];
  if (!least) return null;
  const state = least.exhausted ? "used-up" : least.warning ? "short" : "";
  const name = `${least.tier === "premium" ? "Premium" : "All"}, ${least.period === "daily" ? "today" : "this month"}`;
  return html`<div class="bar slim ${state}">
    <div class="bar-head"><span>${name}</span><span class="quiet">${least.remaining_percentage}% left</span></div>
    <${Meter} label=${`Quota, ${name}: ${least.remaining_percentage}% left`} share=${least.remaining_percentage / 100} />
  </div>`;
}
