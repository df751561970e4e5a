// What a running stack does not do when asked: gateways in between, silence, a page that sleeps. Each test has a
// server of its own that answers as its script says, over real HTTP.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { describe, test } from "node:test";
import {
  ConnectionLost,
  InvalidRequest,
  MiniChat,
  Problem,
  QuotaExceeded,
  RateLimited,
  ServiceUnavailable,
} from "../src/index.js";
import { SseParser } from "../src/sse.js";

const CHAT = "11111111-1111-4111-8111-111111111111";
const TURN = "22222222-2222-4222-8222-222222222222";

/** A server that answers one request after the other as scripted, the last way for ever; and a client of it. */
async function scripted(t, script, options = {}) {
  const asked = [];
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    asked.push({
      method: request.method,
      url: request.url,
      headers: request.headers,
      body: Buffer.concat(chunks).toString(),
    });
    await script[Math.min(asked.length, script.length) - 1](response, request);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const client = new MiniChat({
    baseUrl: `http://127.0.0.1:${server.address().port}/mini-chat/v1`,
    token: "t",
    ...options,
  });
  return { client, asked };
}

const refuses =
  (status, document, headers = {}) =>
  (response) => {
    response.writeHead(status, { "content-type": "application/problem+json", ...headers });
    response.end(JSON.stringify({ status, ...document }));
  };
const says = (body) => (response) =>
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(body));
const page = (status) => (response) =>
  response.writeHead(status, { "content-type": "text/html" }).end("<h1>Gateway</h1>");
const frame = (id, type, data) => `id: ${id}\nevent: ${type}\ndata: ${JSON.stringify(data)}\n\n`;
const STARTED = frame(1, "stream_started", { request_id: TURN, message_id: TURN, is_new_turn: true });
const delta = (id, content) => frame(id, "delta", { type: "text", content });
const done = (id) => frame(id, "done", { completion_signal: { kind: "complete" } });
const streams =
  (text, { isCut = false, isSilent = false } = {}) =>
  (response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write(text);
    if (isCut) setTimeout(() => response.destroy(), 20);
    else if (!isSilent) response.end();
  };

async function eventsOf(turn) {
  const events = [];
  for await (const event of turn) events.push(event);
  return events;
}

describe("calls", { concurrency: true }, () => {
  test("what is refused for now is tried again after Retry-After, in seconds or as a date, or in the document", async (t) => {
    const soon = new Date(Date.now() + 1500).toUTCString();
    const { client, asked } = await scripted(t, [
      refuses(503, { code: "service_unavailable" }, { "retry-after": "0" }),
      refuses(429, { code: "rate_limited", retry_after_seconds: 0 }),
      refuses(503, { code: "service_unavailable" }, { "retry-after": soon }),
      page(502),
      says({ ok: 1 }),
    ]);
    assert.deepEqual(await client.quota(), { ok: 1 });
    assert.equal(asked.length, 5);
  });

  test("a longer wait than is reasonable is the caller's", async (t) => {
    const { client, asked } = await scripted(t, [
      refuses(429, { code: "rate_limited", scope: "uploads_per_hour" }, { "retry-after": "3000" }),
    ]);
    await assert.rejects(client.quota(), (error) => error instanceof RateLimited && error.retryAfter === 3000);
    await assert.rejects(client.send(CHAT, "A word.").answer(), RateLimited);
    assert.equal(asked.length, 2);
  });

  test("a quota that is used up is no reason to try again", async (t) => {
    const { client, asked } = await scripted(t, [refuses(429, { code: "quota_exceeded", quota_scope: "tokens" })]);
    await assert.rejects(
      client.send(CHAT, "A word.").answer(),
      (error) => error instanceof QuotaExceeded && error.document.quota_scope === "tokens",
    );
    assert.equal(asked.length, 1);
  });

  test("what is not safe to repeat is not repeated, and a chat is made with a key that makes it so", async (t) => {
    const { client, asked } = await scripted(
      t,
      [refuses(503, { code: "service_unavailable" }, { "retry-after": "0" })],
      { retries: 1 },
    );
    await assert.rejects(client.request("POST", "/anything", { json: {} }), ServiceUnavailable);
    assert.equal(asked.length, 1);
    await assert.rejects(client.chats.create(), ServiceUnavailable);
    assert.equal(asked.length, 3);
    assert.ok(asked[1].headers["idempotency-key"]);
    assert.equal(asked[1].headers["idempotency-key"], asked[2].headers["idempotency-key"]);
  });

  test("a deletion whose answer was lost is no error when the thing is gone", async (t) => {
    const { client } = await scripted(t, [(response) => response.destroy(), refuses(404, { code: "chat_not_found" })]);
    await client.chats.delete(CHAT);
  });

  test("a gateway's own page is a Problem without a code, and nobody there is ConnectionLost", async (t) => {
    const { client } = await scripted(t, [page(403)]);
    await assert.rejects(
      client.quota(),
      (error) => error instanceof Problem && error.code === "" && error.status === 403,
    );
    const nowhere = new MiniChat({ baseUrl: "http://127.0.0.1:9/v1", retries: 0, attemptsToBegin: 1 });
    await assert.rejects(nowhere.quota(), ConnectionLost);
    await assert.rejects(nowhere.send(CHAT, "A word.").answer(), ConnectionLost);
  });
});

describe("streams", { concurrency: true }, () => {
  test("a send is repeated with the id and the words that it had, and goes on where it is known", async (t) => {
    const { client, asked } = await scripted(t, [
      (response) => response.destroy(),
      refuses(503, { code: "service_unavailable" }, { "retry-after": "0" }),
      refuses(409, { code: "request_id_conflict", turn_state: "running" }),
      streams(STARTED + delta(2, "one "), { isCut: true }),
      streams(delta(2, "one ") + delta(3, "two") + done(4)),
    ]);
    const turn = client.send(CHAT, "Größe");
    assert.deepEqual(
      (await eventsOf(turn)).map(({ id }) => id),
      [1, 2, 3, 4],
    );
    assert.equal(turn.text, "one two");
    assert.equal(new Set(asked.slice(0, 4).map(({ body }) => body)).size, 1);
    assert.deepEqual(
      asked.map(({ headers }) => headers["last-event-id"]),
      [undefined, undefined, undefined, "0", "2"],
    );
    assert.match(asked[4].url, /\/turns\/2222.*\/stream$/);
  });

  test("a first conflict is the caller's: another turn runs", async (t) => {
    const { client, asked } = await scripted(t, [refuses(409, { code: "generation_in_progress" })]);
    await assert.rejects(client.send(CHAT, "A word.").answer(), (error) => error.code === "generation_in_progress");
    assert.equal(asked.length, 1);
  });

  test("a connection that says nothing is given up, and so is one that never answers", async (t) => {
    const { client, asked } = await scripted(
      t,
      [() => {}, streams(STARTED, { isSilent: true }), streams(delta(2, "one") + done(3))],
      { silence: 0.2 },
    );
    assert.equal((await client.send(CHAT, "A word.").answer()).text, "one");
    assert.equal(asked.length, 3);
  });

  test("pings keep a connection, and are not told", async (t) => {
    const pings = async (response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(STARTED);
      for (let number = 0; number < 8; number += 1) {
        await new Promise((resolve) => setTimeout(resolve, 100));
        response.write("event: ping\ndata: {}\n\n");
      }
      response.end(delta(2, "one") + done(3));
    };
    const { client, asked } = await scripted(t, [pings], { silence: 0.6 });
    assert.deepEqual(
      (await eventsOf(client.send(CHAT, "A word."))).map(({ type }) => type),
      ["stream_started", "delta", "done"],
    );
    assert.equal(asked.length, 1);
  });

  test("who was away until single events were forgotten is told the rest of the text", async (t) => {
    const { client, asked } = await scripted(t, [
      streams(STARTED + delta(2, "one ") + delta(3, "🙂 "), { isCut: true }),
      refuses(400, { code: "invalid_request", errors: [{ field: "Last-Event-ID", code: "expired", message: "" }] }),
      streams(STARTED + delta(8, "one 🙂 and the rest") + done(9)),
    ]);
    const events = await eventsOf(client.send(CHAT, "A word."));
    assert.deepEqual(
      events.map(({ id }) => id),
      [1, 2, 3, 8, 9],
    );
    assert.equal(events[3].data.content, "and the rest");
    assert.deepEqual(
      asked.map(({ headers }) => headers["last-event-id"]),
      [undefined, "3", undefined],
    );
  });

  test("who has only a part of such a text is told that it is refused", async (t) => {
    const { client } = await scripted(t, [refuses(400, { code: "invalid_request" })]);
    await assert.rejects(client.resume(CHAT, TURN, { after: 3 }).answer(), InvalidRequest);
  });

  test("a stream that never goes on is given up after so many tries", async (t) => {
    const { client, asked } = await scripted(t, [streams(STARTED, { isCut: true })], { attempts: 2 });
    await assert.rejects(client.resume(CHAT, TURN).answer(), ConnectionLost);
    assert.equal(asked.length, 3);
  });

  test("a token that runs out between two connections is renewed", async (t) => {
    const { client, asked } = await scripted(
      t,
      [
        streams(STARTED, { isCut: true }),
        refuses(401, { code: "unauthenticated" }),
        streams(delta(2, "one") + done(3)),
      ],
      { token: () => `token-${asked?.length ?? 0}` },
    );
    assert.equal((await client.send(CHAT, "A word.").answer()).text, "one");
    assert.deepEqual(
      asked.map(({ headers }) => headers.authorization),
      ["Bearer token-0", "Bearer token-0", "Bearer token-2"],
    );
  });

  test("a page of a network's own door is no answer", async (t) => {
    const { client } = await scripted(t, [page(200), streams(STARTED + delta(2, "one") + done(3))]);
    assert.equal((await client.send(CHAT, "A word.").answer()).text, "one");
  });
});

test("a page that comes back, or has another network, does not wait", async (t) => {
  const browser = new EventTarget();
  Object.assign(globalThis, {
    document: Object.assign(new EventTarget(), { visibilityState: "hidden" }),
    addEventListener: browser.addEventListener.bind(browser),
    removeEventListener: browser.removeEventListener.bind(browser),
  });
  t.after(() => {
    for (const name of ["document", "addEventListener", "removeEventListener"]) delete globalThis[name];
  });
  const { client, asked } = await scripted(t, [
    streams(STARTED, { isSilent: true }),
    streams(delta(2, "one") + done(3)),
  ]);
  const events = [];
  for await (const event of client.send(CHAT, "A word.")) {
    events.push(event.type);
    // The connection is not cut: it has died with the network, and only the page can know.
    if (event.type === "stream_started") setTimeout(() => browser.dispatchEvent(new Event("online")), 20);
  }
  assert.deepEqual(events, ["stream_started", "delta", "done"]);
  assert.equal(asked.length, 2);
  const shown = Object.assign(document, { visibilityState: "visible" });
  const onConnection = () => setTimeout(() => shown.dispatchEvent(new Event("visibilitychange")), 20);
  const nowhere = new MiniChat({ baseUrl: "http://127.0.0.1:9/v1", attemptsToBegin: 6 });
  const begun = Date.now();
  await assert.rejects(nowhere.send(CHAT, "A word.", { onConnection }).answer(), ConnectionLost);
  assert.ok(Date.now() - begun < 5000, "six waits, each twice as long, would have taken 7.8 s at least");
});

test("bytes may come in any pieces", () => {
  const text =
    `: a comment\r\n\r\n${STARTED.replaceAll("\n", "\r\n")}data:\n\n` +
    `${delta(2, "Größe \u2028 🙂👩‍👩‍👧")}${done(3)}id: 4\nevent: delta\ndata: {"half`;
  const bytes = new TextEncoder().encode(text);
  const whole = new SseParser().push(bytes);
  assert.deepEqual(
    whole.map(({ id, type }) => [id, type]),
    [
      [1, "stream_started"],
      [2, "delta"],
      [3, "done"],
    ],
  );
  assert.equal(whole[1].data.content, "Größe \u2028 🙂👩‍👩‍👧");
  for (let cut = 0; cut <= bytes.length; cut += 1) {
    const parser = new SseParser();
    assert.deepEqual([...parser.push(bytes.subarray(0, cut)), ...parser.push(bytes.subarray(cut))], whole);
  }
});
