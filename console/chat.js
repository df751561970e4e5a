/** The open chat: its messages, the turn that runs, and what can be done with the latest. */
import { GenerationInProgress, Problem } from "../clients/javascript/src/index.js";
import { api, sentence } from "./session.js";
import { batch, computed, signal } from "./lib.js";
import { noteChat, readChats } from "./chats.js";
import { say } from "./notices.js";
import { ShownTurn } from "./turn.js";
import { readQuota } from "./quota.js";
import { hearOthers, tellOthers } from "./windows.js";

const PAGE_SIZE = 40;
/** Milliseconds between two looks for what other devices did. */
const LOOK = 4000;

export const chatId = signal(null);
export const detail = signal(null);
export const messages = signal([]);
/** @type {any} The turn that is told here, until its messages are read. */
export const live = signal(null);
/** The turns that were told in this window, by request id: what the panel shows. */
export const told = signal(new Map());
/** Which turn the panel shows; null for the latest. */
export const inspected = signal(null);
export const isReading = signal(false);
/** What stands in the way of the chat, or of the last thing that was wanted. */
export const obstacle = signal(null);
/** What is written and not sent, by chat; of the chat that is not there yet under "". */
export const draft = signal({ text: "", files: [], webSearch: false, model: "" });
const earlier = signal(null);
export const hasEarlier = computed(() => earlier.value !== null);
export const isRunning = computed(() => live.value !== null && !["done", "error", "cancelled", "refused"].includes(live.value.state.value));
/** Only the latest turn can be changed. */
export const latestRequest = computed(() => messages.value.findLast((one) => one.request_id)?.request_id ?? null);

const drafts = new Map();
let opening = 0;

/** @param {string | null} id null for a chat that its first message makes */
export async function openChat(id) {
  if (id === chatId.value && (id === null || detail.value)) return;
  drafts.set(chatId.value, draft.value);
  live.value?.turn?.leave();
  batch(() => {
    chatId.value = id;
    detail.value = null;
    messages.value = [];
    live.value = null;
    inspected.value = null;
    obstacle.value = null;
    earlier.value = null;
    draft.value = drafts.get(id) ?? { text: "", files: [], webSearch: false, model: "" };
  });
  opening += 1;
  if (id !== null) await readChat();
}

/** The chat as it is: its latest messages, and whatever runs in it is followed. */
export async function readChat() {
  const [id, mine] = [chatId.value, opening];
  isReading.value = messages.value.length === 0;
  try {
    const [chat] = await Promise.all([api.value.chats.get(id), readLatest()]);
    if (mine !== opening) return;
    detail.value = chat;
    noteChat(chat);
    await goOn(chat);
  } catch (error) {
    if (mine === opening) obstacle.value = { text: sentence(error), isGone: error instanceof Problem && error.status === 404 };
  } finally {
    if (mine === opening) isReading.value = false;
  }
}

async function goOn(chat) {
  if (isRunning.value) return;
  const pending = (await api.value.pending()).find((one) => one.chatId === chat.id);
  if (pending) {
    const shown = new ShownTurn({ chatId: chat.id, request: sendRequest(chat.id, pending.body), content: pending.content });
    follow(shown.begin((options) => pending.send(options)));
  } else if (chat.running_request_id) followRunning(chat.id, chat.running_request_id);
}

export function followRunning(id, requestId) {
  const path = `/chats/${id}/turns/${requestId}/stream`;
  follow(new ShownTurn({ chatId: id, request: { method: "GET", path } }).begin((options) => api.value.resume(id, requestId, options)));
}

async function readLatest() {
  const [id, mine] = [chatId.value, opening];
  const page = await api.value.messages.list(id, { limit: PAGE_SIZE, orderBy: "created_at desc" });
  if (mine !== opening) return;
  const newest = page.items.toReversed();
  const from = newest[0]?.created_at ?? "";
  const older = messages.value.filter((one) => one.created_at < from);
  messages.value = newest.length ? [...older, ...newest] : [];
  if (older.length === 0) earlier.value = page.page_info.next_cursor;
}

export async function readEarlier() {
  const [id, cursor] = [chatId.value, earlier.value];
  if (cursor === null || isReading.value) return;
  isReading.value = true;
  try {
    const page = await api.value.messages.list(id, { limit: PAGE_SIZE, cursor, orderBy: "created_at desc" });
    if (id !== chatId.value) return;
    messages.value = [...page.items.toReversed(), ...messages.value];
    earlier.value = page.page_info.next_cursor;
  } catch (error) {
    obstacle.value = { text: sentence(error) };
  } finally {
    isReading.value = false;
  }
}

/** Tells a turn to its end, and then reads what it left. */
async function follow(shown) {
  const [id, mine] = [shown.chatId, opening];
  const isOpen = () => mine === opening;
  live.value = shown;
  inspected.value = null;
  if (shown.requestId.value) note(shown);
  const refusal = await shown.follow(() => {
    note(shown);
    say("The answer begins.");
    tellOthers({ kind: "turn", chatId: id });
  });
  note(shown);
  if (!isOpen()) return;
  if (refusal) refused(shown, refusal);
  else say(shown.state.value === "done" ? "The answer is finished." : `The answer ended: ${shown.end.value?.message ?? shown.state.value}`);
  await readLatest().catch(() => {});
  if (isOpen() && live.value === shown && hasMessages(shown)) live.value = null;
  if (isOpen() && refusal instanceof GenerationInProgress) await readChat();
  tellOthers({ kind: "turn", chatId: id });
  readQuota();
  afterwards(id);
}

/** Titles are written a moment after the first answer. */
async function afterwards(id) {
  const look = async () => {
    const chat = await api.value.chats.get(id).catch(() => null);
    if (chat) noteChat(chat);
    if (chat && chat.id === chatId.value) detail.value = chat;
    return chat;
  };
  for (const pause of [0, 1500, 4000, 10_000]) {
    await new Promise((over) => setTimeout(over, pause));
    const chat = await look();
    if (!chat || chat.title) return;
  }
}

function hasMessages(shown) {
  return shown.state.value !== "refused" && messages.value.some((one) => one.request_id === shown.requestId.value);
}

function note(shown) {
  if (shown.requestId.value) told.value = new Map(told.value).set(shown.requestId.value, shown);
}

function refused(shown, refusal) {
  if (shown.state.value !== "refused") return;
  live.value = null;
  const busy = refusal instanceof GenerationInProgress;
  obstacle.value = {
    text: busy ? "An answer is being written in this chat, perhaps in another window. Your message is still below." : sentence(refusal),
    code: refusal.code,
  };
  if (shown.content !== null && !draft.value.text) draft.value = { ...draft.value, text: shown.content, files: shown.files ?? [] };
}

function sendRequest(id, body) {
  return { method: "POST", path: `/chats/${id}/messages:stream`, body };
}

let making = null;

/** The chat that is open, made when it is not there yet: once, whatever wants it at the same time. */
export async function madeChat() {
  if (chatId.value !== null) return chatId.value;
  making ??= newChat().finally(() => (making = null));
  return making;
}

async function newChat() {
  const wished = draft.value;
  const chat = await api.value.chats.create({ ...(wished.model && { model: wished.model }) });
  opening += 1;
  batch(() => {
    chatId.value = chat.id;
    detail.value = chat;
    noteChat(chat);
  });
  history.replaceState(null, "", `#/chat/${chat.id}`);
  tellOthers({ kind: "chats" });
  return chat.id;
}

export async function send() {
  const { text, files, webSearch } = draft.value;
  const ready = files.filter((file) => file.state === "ready");
  if (!text.trim() || isRunning.value || files.some((file) => file.state === "sending")) return;
  obstacle.value = null;
  let id;
  try {
    id = await madeChat();
  } catch (error) {
    obstacle.value = { text: sentence(error) };
    return;
  }
  const message = { content: text, attachmentIds: ready.map((file) => file.id), ...(webSearch && { webSearch }) };
  draft.value = { ...draft.value, text: "", files: [] };
  const body = { content: text, ...(ready.length && { attachment_ids: message.attachmentIds }), ...(webSearch && { web_search: { enabled: true } }) };
  const shown = new ShownTurn({ chatId: id, request: sendRequest(id, body), content: text, attachments: ready.map(asSummary) });
  shown.files = ready;
  await follow(shown.begin((options) => api.value.send(id, message, options)));
}

const asSummary = (file) => ({ attachment_id: file.id, filename: file.name, kind: file.kind, status: "ready" });

export async function retry(requestId) {
  const question = messages.value.find((one) => one.request_id === requestId && one.role === "user");
  const request = { method: "POST", path: `/chats/${chatId.value}/turns/${requestId}/retry` };
  await again(requestId, { request, content: question?.content, attachments: question?.attachments }, (options) =>
    api.value.retry(chatId.value, requestId, options),
  );
}

export async function edit(requestId, content) {
  const question = messages.value.find((one) => one.request_id === requestId && one.role === "user");
  const request = { method: "PATCH", path: `/chats/${chatId.value}/turns/${requestId}`, body: { content } };
  await again(requestId, { request, content, attachments: question?.attachments }, (options) =>
    api.value.edit(chatId.value, requestId, content, options),
  );
}

/** A new turn in the latest one's place. */
async function again(requestId, about, begin) {
  obstacle.value = null;
  const before = messages.value;
  const shown = new ShownTurn({ chatId: chatId.value, ...about });
  shown.replaces = requestId;
  batch(() => {
    messages.value = before.filter((one) => one.request_id !== requestId);
    live.value = shown;
  });
  await follow(shown.begin(begin));
}

export async function cancel() {
  const shown = live.value;
  try {
    await shown?.turn.cancel();
  } catch (error) {
    obstacle.value = { text: sentence(error) };
  }
}

/** Looks for what other windows and devices have done. */
async function look() {
  const [id, mine] = [chatId.value, opening];
  if (!api.value || id === null || !detail.value || isRunning.value || document.hidden) return;
  const chat = await api.value.chats.get(id).catch(() => null);
  if (!chat || mine !== opening || isRunning.value) return;
  const moved = chat.updated_at !== detail.value.updated_at || chat.message_count !== detail.value.message_count;
  detail.value = chat;
  if (!moved && !chat.running_request_id) return;
  noteChat(chat);
  await readLatest().catch(() => {});
  if (mine === opening && chat.running_request_id && !isRunning.value) followRunning(id, chat.running_request_id);
}

export function watch() {
  hearOthers((news) => {
    if (news.kind === "chats") readChats();
    if (news.kind === "turn" && news.chatId === chatId.value) look();
  });
  setInterval(look, LOOK);
  document.addEventListener("visibilitychange", look);
  resendElsewhere();
}

/** What was sent in other chats and never acknowledged: a page was closed at that moment. It is sent, once. */
async function resendElsewhere() {
  for (const one of await api.value.pending()) {
    if (one.chatId !== chatId.value) await one.send().answer().catch(() => {});
  }
}
