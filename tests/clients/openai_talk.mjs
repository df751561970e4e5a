// A conversation with whatever speaks OpenAI's API, by its official client.
// Arguments: modules, base URL, key, model; "here" when it is our door, which has more to show than the control.
// Prints what was seen: { talk: {…}, here: {…} }.
import { createRequire } from "node:module";

const [modules, baseURL, apiKey, model, where] = process.argv.slice(2);
const { default: OpenAI } = await import(createRequire(`${modules}/`).resolve("openai"));
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const user = (content) => ({ role: "user", content });

async function all(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

async function raised(call) {
  try {
    return await call();
  } catch (error) {
    return { name: error.constructor.name, status: error.status, code: error.code, param: error.param };
  }
}

// A network on which the first answer is lost after the server has given it.
function losing() {
  let lost = 0;
  const fetchLosing = async (...request) => {
    const response = await fetch(...request);
    if (lost++) return response;
    await response.text();
    throw new TypeError("the connection is gone");
  };
  return new OpenAI({ baseURL, apiKey, maxRetries: 2, fetch: fetchLosing });
}

async function talk() {
  const whole = await client.responses.create({ model, input: "[[say:Größe \u2028 🙂 counts.]]", store: false });
  const helper = client.responses.stream({ model, input: "[[words:5]][[usage:100,20]]" });
  const events = await all(helper);
  const final = await helper.finalResponse();
  const runner = client.chat.completions.stream({
    model,
    messages: [user("One?"), { role: "assistant", content: "Two." }, user("[[words:3]][[usage:100,20]]")],
    stream_options: { include_usage: true },
  });
  let deltas = 0;
  runner.on("content", () => deltas++);
  const completed = await runner.finalChatCompletion();
  const plain = await client.chat.completions.create({ model, messages: [user("[[say:Ja.]]")] });
  return {
    whole: [whole.status, whole.output_text],
    kinds: events.map((event) => event.type).filter((kind, at, kinds) => kind !== kinds[at - 1]),
    numbers: events.every((event, at) => event.sequence_number === at),
    final: [final.status, final.output_text, final.usage.total_tokens],
    runner: [completed.choices[0].message.content, completed.choices[0].finish_reason, deltas],
    usage: completed.usage.total_tokens,
    plain: [plain.choices[0].message.content, plain.choices[0].finish_reason],
    limited: (await raised(() => client.chat.completions.create({ model, messages: [user("[[status:429]]")] }))).name,
  };
}

async function atOurDoor() {
  const first = await client.responses.create({ model, input: "[[say:Paris.]]" });
  const again = await losing().responses.create({ input: "[[say:Rome.]]", previous_response_id: first.id });
  const key = crypto.randomUUID();
  const keyed = await losing().responses.create({ model, input: "[[say:Once.]]" }, { headers: { "Idempotency-Key": key } });
  const same = await client.responses.create({ model, input: "[[say:Once.]]" }, { headers: { "Idempotency-Key": key } });
  const begun = await client.responses.create({ model, input: "[[words:10]][[delay:20]]", background: true });
  const events = await all(await client.responses.retrieve(begun.id, { stream: true }));
  const rest = await all(await client.responses.retrieve(begun.id, { stream: true, starting_after: 4 }));
  const endless = await client.responses.create({ model, input: "[[words:3]][[hold:js]]", background: true });
  return {
    begun: begun.status,
    resumed: JSON.stringify(rest) === JSON.stringify(events.slice(5)),
    cancelled: (await client.responses.cancel(endless.id)).status,
    conversation: [first.conversation.id, again.output_text],
    once: keyed.id === same.id,
    models: (await all(await client.models.list())).some((one) => one.id === model),
    refused: await raised(() => client.responses.create({ model, input: "a", temperature: 0.3 })),
    unknown: await raised(() => client.responses.retrieve("resp_1")),
  };
}

console.log(JSON.stringify({ talk: await talk(), here: where === "here" ? await atOurDoor() : null }));
