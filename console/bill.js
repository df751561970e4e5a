/** What a turn was estimated, reserved, counted and charged, and what it cost to run, as one reads a bill. */
import { bytes, html, number, Rows } from "./lib.js";

const EXACT = new Intl.NumberFormat("en", { maximumFractionDigits: 6 });
/** Micro-credits as credits, all of them: a short answer costs thousandths. */
const exact = (micro) => EXACT.format(micro / 1_000_000);

export function Bill({ bill }) {
  return html`<section class="bill" aria-label="Bill">
    <h3>Bill</h3>
    <p>${verdict(bill)}</p>
    <table>
      <thead><tr><td></td><th scope="col">Tokens</th><th scope="col">Credits</th></tr></thead>
      <tbody>
        ${estimated(bill.estimate).map(([name, tokens]) => html`<${Line} key=${name} name=${name} tokens=${tokens} />`)}
        <${Line} name="Reserved" tokens=${bill.reserved.tokens} micro=${bill.reserved.credits_micro} isSum />
        ${counted(bill.counted).map(([name, tokens]) => html`<${Line} key=${name} name=${name} tokens=${tokens} />`)}
        ${bill.charged && html`<${Line} name="Charged" tokens=${chargedTokens(bill)} micro=${bill.charged.credits_micro} isSum />`}
      </tbody>
    </table>
    <${Rows} rows=${besides(bill)} />
    ${bill.run && html`<${Run} run=${bill.run} kept=${bill.kept_bytes} />`}
  </section>`;
}

function Line({ name, tokens, micro, isSum }) {
  return html`<tr class=${isSum ? "sum" : ""}>
    <th scope="row">${name}</th>
    <td class="num">${tokens === undefined ? "" : number(tokens)}</td>
    <td class="num">${micro === undefined ? "" : exact(micro)}</td>
  </tr>`;
}

/** What is charged and by which rule (turns-and-quota 6), in a sentence. */
function verdict({ charged, reserved }) {
  if (!charged) return "The turn runs: nothing is charged yet.";
  const credits = html`<strong>${exact(charged.credits_micro)} credits</strong>`;
  switch (charged.rule) {
    case "actual":
      return html`${credits}: what the provider counted, at the model's rates.`;
    case "actual_capped":
      return html`${credits}: what was reserved, and no more. The provider counted ${exact(charged.counted_credits_micro)}.`;
    case "estimated":
      return html`${credits}, estimated: the provider counted nothing, so it is the input and the text that was told.`;
    case "released":
      return html`${credits}: nothing is charged, and the ${exact(reserved.credits_micro)} that were reserved are free again.`;
    default:
      return html`${credits} (${charged.rule}).`;
  }
}

function estimated(tokens) {
  const parts = [
    ["Your message, estimated", tokens.message_tokens],
    ["Instructions and conversation", tokens.context_tokens],
    ["Pictures", tokens.image_tokens],
    ["Tools", tokens.tool_tokens],
    ["The longest answer", tokens.answer_tokens],
  ];
  return parts.filter(([, count]) => count > 0);
}

function counted(usage) {
  if (!usage) return [];
  const cached = usage.cache_read_input_tokens ? `, ${number(usage.cache_read_input_tokens)} of it cached` : "";
  const thought = usage.reasoning_tokens ? `, ${number(usage.reasoning_tokens)} of it thought` : "";
  return [
    [`Counted in${cached}`, usage.input_tokens],
    [`Counted out${thought}`, usage.output_tokens],
  ];
}

function chargedTokens({ counted: usage, charged }) {
  return charged.rule === "actual" && usage ? usage.input_tokens + usage.output_tokens : undefined;
}

const TOOLS = { web_search: ["web search", "web searches"], file_search: ["file search", "file searches"], code_interpreter: ["run of code", "runs of code"] };
const ENDED = {
  provider: "the provider",
  caller: "its caller",
  stream: "the stream: its client left, or its time was over",
  watchdog: "the watchdog, when its process was gone",
  service: "the service",
};

function besides(bill) {
  const { rates, policy_versions: versions, tool_calls: calls } = bill;
  const used = Object.entries(calls ?? {}).filter(([, count]) => count > 0);
  return {
    Model: bill.effective_model + (bill.effective_model === bill.selected_model ? "" : ` instead of ${bill.selected_model}`),
    "A million tokens": `${exact(rates.input_credits_micro_per_million)} credits in, ${exact(rates.output_credits_micro_per_million)} out`,
    Tools: used.map(([name, count]) => `${number(count)} ${TOOLS[name][count === 1 ? 0 : 1]}`).join(", "),
    "Ended by": bill.ended_by && ENDED[bill.ended_by],
    Policy: ["deployment", "tenant", "user"].filter((layer) => versions[layer] > 0).map((layer) => `version ${versions[layer]} of the ${layer}`).join(", "),
  };
}

function Run({ run, kept }) {
  const { begin, stream, end, together } = run.write_units;
  const rows = {
    "Write units": `${number(together)}: ${number(begin)} to begin, ${number(stream)} for the stream, ${number(end)} to end`,
    "Read units": number(run.read_units),
    Function: `${EXACT.format(run.function_ms / 1000)} s`,
    Kept: bytes(kept),
  };
  return html`<h4>What it cost to run, at least</h4>
    <${Rows} rows=${rows} />`;
}
