// A page that sends a message and dies on the way; or, opened again in two tabs with the same storage, each of which
// sends what is pending. Arguments: server, token, chat, storage (a file), and where it dies ("never" when opened
// again).
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { MiniChat } from "../src/index.js";

const [baseUrl, token, chatId, file, death] = process.argv.slice(2);

function dies(where) {
  if (where === death) process.kill(process.pid, "SIGKILL");
}

/** A Storage in a file: what was set is there for whoever opens it next. */
class FileStorage {
  #entries = new Map(existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : []);

  get length() {
    return this.#entries.size;
  }

  key(index) {
    return [...this.#entries.keys()][index] ?? null;
  }

  getItem(key) {
    return this.#entries.get(key) ?? null;
  }

  setItem(key, value) {
    dies("before it is kept");
    this.#entries.set(key, value);
    this.#write();
    dies("once it is kept");
  }

  removeItem(key) {
    dies("before it is forgotten");
    this.#entries.delete(key);
    this.#write();
    dies("once it is forgotten");
  }

  #write() {
    writeFileSync(file, JSON.stringify([...this.#entries]));
  }
}

async function deadlyFetch(url, init) {
  const answer = fetch(url, init);
  if (death === "while it is sent") setTimeout(() => dies(death), 20);
  const response = await answer;
  dies("once it is answered");
  return response;
}

const options = { baseUrl, token, storage: new FileStorage(), fetch: deadlyFetch };
const client = new MiniChat(options);

async function openedAgain(tab) {
  const pending = await tab.pending();
  const answers = [];
  for (const one of pending) answers.push((await one.send().answer()).text);
  return { pending: pending.map(({ content }) => content), answers };
}

if (death === "never") {
  const tabs = await Promise.all([client, new MiniChat(options)].map(openedAgain));
  console.log(JSON.stringify({ tabs, left: (await client.pending()).length }));
} else {
  for await (const event of client.send(chatId, "[[words:10]][[delay:30]]")) {
    if (event.type === "stream_started") dies("once it has begun");
    if (event.id === 5) dies("in the answer");
  }
  dies("at the end");
}
