// What a program does with the client, at a running stack: MINICHAT_URL, MINICHAT_TOKEN, MINICHAT_EXPIRED_TOKEN.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as minichat from "../src/index.js";
import { Held } from "./held.mjs";

const { MINICHAT_URL: baseUrl = "", MINICHAT_TOKEN: token = "", MINICHAT_EXPIRED_TOKEN: expired = "" } = process.env;
const { MiniChat } = minichat;
const client = new MiniChat({ baseUrl, token });

async function eventsOf(turn) {
  const events = [];
  for await (const event of turn) events.push(event);
  return events;
}

describe("the client", { concurrency: true }, () => {
  test("an answer comes as typed events, each once, and is in the chat", async () => {
    const chat = await client.chats.create({ title: "Words" });
    const turn = client.send(chat.id, "[[words:5]][[delay:1]]");
    const sent = turn.requestId;
    const events = await eventsOf(turn);
    assert.deepEqual(
      events.map(({ type }) => type),
      ["stream_started", ...Array(5).fill("delta"), "done"],
    );
    assert.deepEqual(
      events.map(({ id }) => id),
      [1, 2, 3, 4, 5, 6, 7],
    );
    assert.equal(turn.text, "word1 word2 word3 word4 word5");
    assert.deepEqual([turn.requestId, turn.lastEventId, turn.isOver], [sent, 7, true]);
    const { items } = await client.messages.list(chat.id);
    assert.deepEqual(
      items.map(({ role, request_id }) => [role, request_id]),
      [
        ["user", sent],
        ["assistant", sent],
      ],
    );
    assert.equal((await client.turn(chat.id, sent)).state, "done");
  });

  test("nothing is sent before somebody reads, and what is cancelled before is never sent", async () => {
    const chat = await client.chats.create();
    const turn = client.send(chat.id, "A word.");
    assert.equal(await turn.cancel(), undefined);
    assert.deepEqual(await eventsOf(turn), []);
    assert.equal((await client.chats.get(chat.id)).message_count, 0);
  });

  test("leaving is not cancelling, and what was left is resumed after the last event", async () => {
    const chat = await client.chats.create();
    const held = new Held(30);
    const turn = client.send(chat.id, held.content);
    for await (const event of turn) if (event.type === "delta") break;
    const after = turn.lastEventId;
    assert.equal((await client.chats.get(chat.id)).running_request_id, turn.requestId);
    await held.release();
    const rest = await eventsOf(client.resume(chat.id, turn.requestId, { after }));
    assert.deepEqual(
      rest.map(({ id }) => id),
      Array.from({ length: 30 }, (_, index) => index + 3),
    );
    assert.equal(rest.at(-1).type, "done");
    assert.deepEqual(await eventsOf(client.resume(chat.id, turn.requestId, { after: 32 })), []);
  });

  test("a signal leaves with its reason, and leave() without one", async () => {
    const chat = await client.chats.create();
    const leaving = new AbortController();
    const turn = client.send(chat.id, new Held(3).content, { signal: leaving.signal });
    await assert.rejects(async () => {
      for await (const event of turn) if (event.type === "delta") leaving.abort(new Error("gone home"));
    }, /gone home/);
    const follower = client.resume(chat.id, turn.requestId);
    setTimeout(() => follower.leave(), 50);
    await eventsOf(follower);
    assert.equal((await client.turn(chat.id, turn.requestId)).state, "running");
    await client.cancel(chat.id, turn.requestId);
  });

  test("cancel ends the turn, also while its request is on its way", async () => {
    const chat = await client.chats.create();
    for (const at of [0, 2]) {
      const turn = client.send(chat.id, new Held(3).content);
      const events = eventsOf(turn);
      while (turn.lastEventId < at) await new Promise((resolve) => setTimeout(resolve, 5));
      const status = await turn.cancel();
      assert.ok(["running", "cancelled"].includes(status.state));
      assert.equal((await events).at(-1).data.code, "cancelled");
    }
  });

  test("retry and edit take the turn's place, and what is deleted may be deleted again", async () => {
    const chat = await client.chats.create();
    const first = client.send(chat.id, "[[words:2]]");
    await first.answer();
    const second = client.retry(chat.id, first.requestId);
    assert.equal((await second.answer()).text, "word1 word2");
    const third = client.edit(chat.id, second.requestId, "[[words:3]]");
    assert.equal((await third.answer()).text, "word1 word2 word3");
    assert.equal(new Set([first.requestId, second.requestId, third.requestId]).size, 3);
    await assert.rejects(client.retry(chat.id, first.requestId).answer(), minichat.NotLatestTurn);
    await client.deleteTurn(chat.id, third.requestId);
    await client.deleteTurn(chat.id, third.requestId);
    assert.equal((await client.chats.get(chat.id)).message_count, 0);
  });

  test("a request id names one turn, whoever sends it again", async () => {
    const chat = await client.chats.create();
    const one = client.send(chat.id, "[[words:20]][[delay:30]]");
    const other = client.send(chat.id, "[[words:20]][[delay:30]]", { requestId: one.requestId });
    const answers = await Promise.all([one.answer(), other.answer()]);
    assert.equal(answers[0].text, answers[1].text);
    assert.equal((await client.chats.get(chat.id)).message_count, 2);
    const reused = client.send(chat.id, "Something else.", { requestId: one.requestId });
    await assert.rejects(reused.answer(), minichat.RequestIdReused);
  });

  test("of two messages at once one is answered, and the other is told which", async () => {
    const chat = await client.chats.create();
    const both = [new Held(2), new Held(2)];
    const refusals = [];
    const answers = both.map(({ content }) => client.send(chat.id, content).answer());
    // The other one is held until here.
    for (const answer of answers)
      answer.catch((error) => refusals.push(error)).then(() => both.forEach((one) => one.release()));
    const outcomes = await Promise.allSettled(answers);
    assert.deepEqual(outcomes.map(({ status }) => status).sort(), ["fulfilled", "rejected"]);
    assert.ok(refusals[0] instanceof minichat.GenerationInProgress);
    assert.match(refusals[0].document.stream_url, /\/turns\/.*\/stream$/);
  });

  test("each refusal has a class of its own, with what the document says", async () => {
    const nobodys = "00000000-0000-4000-8000-000000000001";
    await assert.rejects(client.chats.get(nobodys), (error) => {
      assert.ok(error instanceof minichat.ChatNotFound && error instanceof minichat.Problem);
      assert.deepEqual([error.name, error.code, error.status], ["ChatNotFound", "chat_not_found", 404]);
      return error.traceId.length === 32;
    });
    await assert.rejects(
      client.chats.list({ limit: 1000 }),
      (error) => error.errors[0].field === "limit" && error instanceof minichat.InvalidRequest,
    );
    await assert.rejects(client.send(nobodys, "A word.").answer(), minichat.ChatNotFound);
    const stranger = new MiniChat({ baseUrl, token: expired });
    await assert.rejects(stranger.quota(), minichat.Unauthenticated);
  });

  test("a function is asked for another token when its token is refused, in a stream too", async () => {
    const chat = await client.chats.create();
    const given = [expired, token];
    let asked = 0;
    const patient = new MiniChat({ baseUrl, token: async () => given[asked++] ?? token });
    assert.equal((await patient.send(chat.id, "[[words:3]]").answer()).text, "word1 word2 word3");
    await Promise.all([patient.quota(), patient.chats.list()]);
    assert.equal(asked, 2);
  });

  test("lists are read page by page, or over all pages", async () => {
    const made = [];
    for (let number = 0; number < 3; number += 1)
      made.unshift((await client.chats.create({ title: `Listed ${number}` })).id);
    const filter = "startswith(title,'Listed ')";
    const page = await client.chats.list({ limit: 2, filter });
    assert.deepEqual(
      page.items.map(({ id }) => id),
      made.slice(0, 2),
    );
    const all = [];
    for await (const chat of client.chats.each({ limit: 2, filter })) all.push(chat.id);
    assert.deepEqual(all, made);
    await client.chats.update(made[0], { title: "Renamed" });
    assert.equal((await client.chats.get(made[0])).title, "Renamed");
    await client.chats.delete(made[0]);
    await assert.rejects(client.chats.get(made[0]), minichat.ChatNotFound);
  });

  test("messages are selected, ordered and liked", async () => {
    const chat = await client.chats.create();
    await client.send(chat.id, "[[words:2]]").answer();
    const { items } = await client.messages.list(chat.id, { orderBy: "created_at desc", select: ["id", "role"] });
    assert.deepEqual(
      items.map(({ role }) => role),
      ["assistant", "user"],
    );
    assert.equal((await client.messages.react(chat.id, items[0].id, "like")).reaction, "like");
    assert.equal((await client.messages.list(chat.id)).items[1].my_reaction, "like");
    await client.messages.react(chat.id, items[0].id, null);
    assert.equal((await client.messages.list(chat.id)).items[1].my_reaction, null);
  });

  test("a file is uploaded with its progress, is ready then, and goes with a message; a large one by a form", async () => {
    const chat = await client.chats.create();
    const told = [];
    const file = new File(["The secret word is Größe."], "größe <b>.txt", { type: "text/plain" });
    const small = await client.attachments.upload(chat.id, file, {
      onProgress: (...progress) => told.push(progress),
      idempotencyKey: chat.id,
    });
    assert.deepEqual([small.status, small.filename], ["ready", "größe <b>.txt"]);
    assert.deepEqual(told, [
      [0, file.size],
      [file.size, file.size],
    ]);
    assert.equal((await client.attachments.upload(chat.id, file, { idempotencyKey: chat.id })).id, small.id);
    const large = await client.attachments.upload(
      chat.id,
      new Blob(["words ".repeat(800_000)], { type: "text/plain" }),
      { filename: "large.txt" },
    );
    assert.deepEqual([large.status, large.size_bytes], ["ready", 4_800_000]);
    const { end } = await client
      .send(chat.id, { content: "What is it?", attachmentIds: [small.id, large.id] })
      .answer();
    assert.equal(end.type, "done");
    const listed = [];
    for await (const one of client.attachments.each(chat.id, { limit: 1 })) listed.push(one.id);
    assert.deepEqual(listed, [large.id, small.id]);
    await assert.rejects(client.attachments.delete(chat.id, small.id), minichat.AttachmentLocked);
  });

  test("models, quota and usage are told", async () => {
    const models = await client.models.list();
    assert.deepEqual(await client.models.get(models[0].model_id), models[0]);
    assert.deepEqual(
      (await client.quota()).tiers.map(({ tier }) => tier),
      ["premium", "total"],
    );
    const today = new Date().toISOString().slice(0, 10);
    assert.ok(Array.isArray((await client.usage({ from: today, to: today })).items));
    assert.equal((await client.request("GET", "/health")).status, "ok");
  });

  test("a storage that is forbidden or full is no reason not to send", async () => {
    const forbidden = new Proxy(
      {},
      {
        get() {
          throw new DOMException("The operation is insecure.", "SecurityError");
        },
      },
    );
    const chat = await client.chats.create();
    const blocked = new MiniChat({ baseUrl, token, storage: forbidden });
    assert.equal((await blocked.send(chat.id, "[[words:2]]").answer()).text, "word1 word2");
    assert.deepEqual(await blocked.pending(), []);
  });
});
