// Holds conversations behind a proxy that cuts, many at once, and compares what the client was told with the streams
// as the server tells them without a proxy. Arguments: proxy, server, token, conversations.
// Prints what was told wrongly, and how often connections were lost: { wrong: [...], lost: N, events: N }.
import { MiniChat } from "../src/index.js";

const [proxy, server, token, conversations] = process.argv.slice(2);
const seen = { wrong: [], lost: 0, events: 0 };
const behind = new MiniChat({ baseUrl: proxy, token });
const direct = new MiniChat({ baseUrl: server, token });
const options = { onConnection: ({ state }) => (seen.lost += state === "lost" ? 1 : 0) };
const SAID = "[[say:Größe, 数 and 🙂👩‍👩‍👧: every word counts once, однажды, and once only.]][[delay:15]]";

async function eventsOf(turn) {
  const events = [];
  for await (const event of turn) events.push(event);
  return events;
}

// What a stream that is told again leaves out: that the turn is new, and what was left of the quota then.
const comparable = (events) =>
  JSON.stringify(events.map(({ id, type, data: { is_new_turn, quota_warnings, ...data } }) => [id, type, data]));

async function compare(what, chatId, turn) {
  const told = await eventsOf(turn);
  const uncut = await eventsOf(direct.resume(chatId, turn.requestId));
  seen.events += told.length;
  const text = uncut.map((event) => event.data.content ?? "").join("");
  if (comparable(told) !== comparable(uncut)) seen.wrong.push([what, told, uncut]);
  else if (turn.text !== text || !text.includes("🙂👩‍👩‍👧")) seen.wrong.push([what, turn.text, text]);
}

const WAYS = {
  send: (id) => behind.send(id, SAID, options),
  retry: async (id) => behind.retry(id, await sentBefore(id), options),
  edit: async (id) => behind.edit(id, await sentBefore(id), `${SAID} Again.`, options),
};

async function sentBefore(id) {
  const turn = direct.send(id, SAID);
  await turn.answer();
  return turn.requestId;
}

async function conversation(_, number) {
  const { id } = await direct.chats.create();
  const way = Object.keys(WAYS)[number % 3];
  await compare(way, id, await WAYS[way](id));
  const roles = (await direct.messages.list(id)).items.map(({ role }) => role).join();
  if (roles !== "user,assistant") seen.wrong.push(["messages", roles]);
}

await Promise.all(Array.from({ length: Number(conversations) }, conversation));
console.log(JSON.stringify(seen));
