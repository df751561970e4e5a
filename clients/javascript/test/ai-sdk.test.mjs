// `useChat`'s own machinery (the package `ai`, below any framework) on chats of a running stack.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { AbstractChat } from "ai";
import { MiniChatTransport, messagesOf } from "../src/ai-sdk.js";
import { MiniChat } from "../src/index.js";
import { Held } from "./held.mjs";

const client = new MiniChat({ baseUrl: process.env.MINICHAT_URL ?? "", token: process.env.MINICHAT_TOKEN ?? "" });

/** What a framework keeps for `useChat`. */
class State {
  status = "ready";
  error = undefined;
  messages = [];
  pushMessage = (message) => (this.messages = [...this.messages, message]);
  popMessage = () => (this.messages = this.messages.slice(0, -1));
  replaceMessage = (index, message) => (this.messages = this.messages.with(index, message));
  snapshot = (value) => structuredClone(value);
}

class Chat extends AbstractChat {
  constructor({ messages = [], ...init }) {
    const state = Object.assign(new State(), { messages });
    super({ ...init, state, generateId: () => crypto.randomUUID(), transport: new MiniChatTransport(client) });
  }

  get texts() {
    return this.messages.map(({ parts }) => parts.map((part) => (part.type === "text" ? part.text : "")).join(""));
  }

  async until(isSo) {
    while (!isSo(this)) await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function newChat() {
  const { id } = await client.chats.create();
  return new Chat({ id });
}

async function stored(id) {
  return (await client.messages.list(id)).items;
}

describe("useChat", { concurrency: true }, () => {
  test("a message is sent, its answer streams, and both are in the chat with the ids of the page", async () => {
    const chat = await newChat();
    await chat.sendMessage({ text: "[[words:3]]" });
    assert.deepEqual([chat.status, chat.error, chat.texts], ["ready", undefined, ["[[words:3]]", "word1 word2 word3"]]);
    const { completion_signal, usage, requestId } = chat.lastMessage.metadata;
    assert.deepEqual([completion_signal.kind, usage.model], ["complete", "gpt-4.1"]);
    const [question, answer] = await stored(chat.id);
    assert.deepEqual(
      [answer.id, answer.request_id, question.request_id],
      [chat.lastMessage.id, requestId, chat.messages[0].id],
    );
  });

  test("tools and sources become parts", async () => {
    const chat = await newChat();
    await chat.sendMessage(
      { text: "[[query:rain]][[cite:https://example.com/rain Rain]][[say:It rains.]]" },
      { body: { webSearch: true } },
    );
    const tool = chat.lastMessage.parts.find(({ type }) => type === "dynamic-tool");
    assert.deepEqual([tool.toolName, tool.state, tool.input], ["web_search", "output-available", { query: "rain" }]);
    const source = chat.lastMessage.parts.find(({ type }) => type === "source-url");
    assert.deepEqual([source.url, source.title], ["https://example.com/rain", "Rain"]);
    const [, again] = messagesOf(await stored(chat.id));
    assert.deepEqual(again.parts.find(({ type }) => type === "source-url").url, source.url);
  });

  test("a file goes with its message", async () => {
    const chat = await newChat();
    const file = {
      type: "file",
      filename: "a.txt",
      mediaType: "text/plain",
      url: "data:text/plain,The%20word%20is%20Gr%C3%B6%C3%9Fe.",
    };
    await chat.sendMessage({ text: "What is the word?", files: [file] });
    assert.deepEqual(
      [chat.status, (await stored(chat.id))[0].attachments.map(({ filename }) => filename)],
      ["ready", ["a.txt"]],
    );
  });

  test("stop cancels the turn, and the next message can be sent", async () => {
    const chat = await newChat();
    const sending = chat.sendMessage({ text: new Held(3).content });
    await chat.until(() => chat.texts[1]?.includes("word1"));
    const stopped = chat.lastMessage.metadata.requestId;
    await chat.stop();
    await sending;
    await chat.sendMessage({ text: "[[words:2]]" });
    assert.equal((await client.turn(chat.id, stopped)).state, "cancelled");
    assert.deepEqual([chat.status, chat.texts.at(-1)], ["ready", "word1 word2"]);
  });

  test("to regenerate is to retry, again and again", async () => {
    const chat = await newChat();
    await chat.sendMessage({ text: "[[words:3]]" });
    const first = chat.lastMessage.id;
    await chat.regenerate();
    await chat.regenerate();
    assert.deepEqual([chat.status, chat.texts], ["ready", ["[[words:3]]", "word1 word2 word3"]]);
    assert.notEqual(chat.lastMessage.id, first);
    assert.deepEqual(
      (await stored(chat.id)).map(({ role }) => role),
      ["user", "assistant"],
    );
  });

  test("an edited message is an edit, in a page that was loaded anew too", async () => {
    const old = await newChat();
    await old.sendMessage({ text: "[[words:3]]" });
    await old.sendMessage({ text: "[[words:2]]", messageId: old.messages[0].id });
    assert.deepEqual(old.texts, ["[[words:2]]", "word1 word2"]);
    const chat = new Chat({ id: old.id, messages: messagesOf(await stored(old.id)) });
    await chat.sendMessage({ text: "[[words:4]]", messageId: chat.messages[0].id });
    assert.deepEqual(chat.texts, ["[[words:4]]", "word1 word2 word3 word4"]);
    assert.deepEqual(
      (await stored(old.id)).map(({ content }) => content),
      chat.texts,
    );
  });

  test("an earlier turn is neither edited nor retried, and says so", async () => {
    const chat = await newChat();
    await chat.sendMessage({ text: "[[words:2]]" });
    await chat.sendMessage({ text: "[[words:3]]" });
    await chat.sendMessage({ text: "Something else.", messageId: chat.messages[0].id });
    assert.deepEqual([chat.status, chat.error.name], ["error", "NotLatestTurn"]);
    assert.equal((await stored(chat.id)).length, 4);
  });

  test("a page that is loaded in mid answer goes on with it", async () => {
    const closed = await newChat();
    const held = new Held(30);
    void closed.sendMessage({ text: held.content });
    await closed.until(() => closed.texts[1]?.includes("word1"));
    const chat = new Chat({
      id: closed.id,
      messages: messagesOf((await stored(closed.id)).filter(({ role }) => role === "user")),
    });
    const resumed = chat.resumeStream();
    await chat.until(() => chat.texts[1]?.includes("word1"));
    await held.release();
    await resumed;
    await closed.until(() => closed.status === "ready");
    assert.deepEqual([chat.texts, chat.texts[1]], [closed.texts, held.text]);
    assert.deepEqual(chat.lastMessage.id, closed.lastMessage.id);
    await chat.resumeStream();
    assert.deepEqual([chat.status, chat.texts], ["ready", closed.texts]);
  });

  test("a failed answer is an error, and another one can be asked for", async () => {
    const chat = await newChat();
    await chat.sendMessage({ text: "[[words:2]][[failed:server_error]]" });
    assert.deepEqual([chat.status, chat.error.message], ["error", "The provider could not complete the answer."]);
    const failed = chat.lastMessage.metadata.requestId;
    await chat.regenerate();
    assert.notEqual(chat.lastMessage.metadata.requestId, failed);
  });

  test("what was refused before it began is sent again under its own name", async () => {
    const busy = await newChat();
    const chat = new Chat({ id: busy.id });
    const sending = busy.sendMessage({ text: new Held(3).content });
    await busy.until(() => busy.texts.length === 2);
    await chat.sendMessage({ text: "[[words:2]]" });
    assert.deepEqual([chat.status, chat.error?.name], ["error", "GenerationInProgress"]);
    await client.cancel(chat.id, busy.lastMessage.metadata.requestId);
    await sending;
    await chat.regenerate();
    assert.deepEqual([chat.status, chat.texts.at(-1)], ["ready", "word1 word2"]);
    assert.equal((await stored(chat.id)).at(-1).request_id, chat.messages[0].id);
  });
});
