// The client's source and the example app in a real browser, at a running stack: MINICHAT_URL, MINICHAT_TOKEN,
// PAGES (where `src/` and the built example are served) and CHROMIUM (its executable).
import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { chromium } from "playwright-core";
import { MiniChat } from "../src/index.js";
import { Held } from "./held.mjs";

const {
  MINICHAT_URL: baseUrl = "",
  MINICHAT_TOKEN: token = "",
  PAGES: pages = "",
  CHROMIUM: executablePath = "",
} = process.env;
const client = new MiniChat({ baseUrl, token });
let browser, context, complaints;

before(async () => {
  browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
});
after(() => browser?.close());
beforeEach(async () => {
  await context?.close();
  context = await browser.newContext();
  context.setDefaultTimeout(60_000);
  complaints = [];
});

async function opened(chatId) {
  const page = await context.newPage();
  page.on("console", (said) => said.type() === "error" && complaints.push(said.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.goto(`${pages}/ai-sdk/#${new URLSearchParams({ api: baseUrl, token, chat: chatId })}`);
  return page;
}

async function say(page, text) {
  await page.getByLabel("Message").fill(text);
  await page.getByRole("button", { name: "Send" }).click();
}

const answer = (page) => page.getByRole("article", { name: "assistant" }).last();
const isReady = (page) => page.getByRole("status").filter({ hasText: "ready" }).waitFor();
const words = (number) => Array.from({ length: number }, (_, index) => `word${index + 1}`).join(" ");

test("the example sends, stops, regenerates and edits", async () => {
  const { id } = await client.chats.create();
  const page = await opened(id);
  await say(page, "[[words:3]]");
  await answer(page).getByText(words(3)).waitFor();
  await isReady(page);
  const first = await answer(page).getAttribute("id");
  await page.getByRole("button", { name: "Regenerate" }).click();
  await page.locator(`article[data-role=assistant]:not([id="${first}"])`).getByText(words(3)).waitFor();
  await isReady(page);
  await page.getByRole("button", { name: "Edit" }).click();
  await say(page, new Held(9).content);
  await answer(page)
    .filter({ hasText: /^word1 $|^word1$/ })
    .waitFor();
  await page.getByRole("button", { name: "Stop" }).click();
  await say(page, "[[say:Now at last.]]");
  await answer(page).getByText("Now at last.").waitFor();
  await isReady(page);
  const { items } = await client.messages.list(id);
  assert.deepEqual(
    items.map(({ role }) => role),
    ["user", "assistant", "user", "assistant"],
  );
  assert.equal(items[1].completion_signal.reason, "cancelled");
  assert.deepEqual(complaints, []);
});

test("the example goes on after a reload in mid answer, and in a second tab", async () => {
  const { id } = await client.chats.create();
  const page = await opened(id);
  const held = new Held(25);
  await say(page, held.content);
  await answer(page).getByText("word1").waitFor();
  await page.reload();
  const other = await opened(id);
  for (const tab of [page, other]) await answer(tab).getByText("word1").waitFor();
  await held.release();
  for (const tab of [page, other]) {
    await answer(tab).getByText(held.text).waitFor();
    await isReady(tab);
    assert.equal(await tab.getByRole("article").count(), 2);
  }
  assert.deepEqual(complaints, []);
});

test("the source runs in a page as it is, and a stream moves to the network that comes back", async () => {
  const { id } = await client.chats.create();
  const page = await context.newPage();
  await page.goto(`${pages}/empty.html`);
  const held = new Held(25);
  const answered = page.evaluate(
    async ([options, chatId, content]) => {
      const { MiniChat } = await import("/src/index.js");
      const told = (globalThis.told = { ids: [], changes: [] });
      const onConnection = ({ state }) => told.changes.push(state);
      const turn = new MiniChat(options).send(chatId, content, { onConnection });
      for await (const event of turn) told.ids.push(event.id);
      return { ...told, text: turn.text };
    },
    [{ baseUrl, token }, id, held.content],
  );
  await page.waitForFunction(() => globalThis.told?.ids.length === 2);
  // The connection is not cut: it is of the network that was, and says nothing more.
  await context.setOffline(true);
  await context.setOffline(false);
  await page.waitForFunction(() => globalThis.told.changes.join() === "open,lost,open");
  await held.release();
  const { ids, text } = await answered;
  assert.equal(text, held.text);
  assert.deepEqual(
    ids,
    Array.from({ length: 27 }, (_, index) => index + 1),
  );
});

test("a message of a page that is closed without a network is sent once when two are opened", async () => {
  const { id } = await client.chats.create();
  const page = await context.newPage();
  await page.goto(`${pages}/empty.html`);
  const files = new RegExp(`^${baseUrl}`);
  await context.route(files, (route) => route.abort("internetdisconnected"));
  await page.evaluate(
    async ([options, chatId]) => {
      const { MiniChat } = await import("/src/index.js");
      const lost = new Promise((resolve) => {
        new MiniChat(options)
          .send(chatId, "[[words:3]]", { onConnection: resolve })
          .answer()
          .catch(() => {});
      });
      await lost;
    },
    [{ baseUrl, token }, id],
  );
  await page.close();
  await context.unroute(files);
  const tabs = await Promise.all([context.newPage(), context.newPage()]);
  const sent = await Promise.all(
    tabs.map(async (tab) => {
      await tab.goto(`${pages}/empty.html`);
      return tab.evaluate(
        async (options) => {
          const { MiniChat } = await import("/src/index.js");
          const texts = [];
          for (const one of await new MiniChat(options).pending()) texts.push((await one.send().answer()).text);
          return texts;
        },
        { baseUrl, token },
      );
    }),
  );
  assert.ok(sent.flat().length >= 1);
  assert.deepEqual(new Set(sent.flat()), new Set([words(3)]));
  assert.deepEqual(
    (await client.messages.list(id)).items.map(({ role }) => role),
    ["user", "assistant"],
  );
});

test("a file is uploaded with its progress as it leaves", async () => {
  const { id } = await client.chats.create();
  const page = await context.newPage();
  await page.goto(`${pages}/empty.html`);
  const [status, told] = await page.evaluate(
    async ([options, chatId]) => {
      const { MiniChat } = await import("/src/index.js");
      const told = [];
      const file = new File(["words ".repeat(100_000)], "words.txt", { type: "text/plain" });
      const { status } = await new MiniChat(options).attachments.upload(chatId, file, {
        onProgress: (sent, total) => told.push([sent, total]),
      });
      return [status, told];
    },
    [{ baseUrl, token }, id],
  );
  assert.equal(status, "ready");
  assert.deepEqual(
    [told[0], told.at(-1)],
    [
      [0, 600_000],
      [600_000, 600_000],
    ],
  );
  assert.deepEqual(
    told,
    told.toSorted(([one], [other]) => one - other),
  );
});
