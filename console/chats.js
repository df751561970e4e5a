/** The list of chats: pages, search, new, rename, delete with a way back. */
import { api, sentence } from "./session.js";
import { batch, computed, signal } from "./lib.js";
import { notify } from "./notices.js";
import { tellOthers } from "./windows.js";

const PAGE_SIZE = 50;
const UNDO_SECONDS = 6;

const loaded = signal([]);
const next = signal(null);
const going = signal(new Map());
export const search = signal("");
export const isLoading = signal(true);
export const hasMore = computed(() => next.value !== null);
export const chats = computed(() => loaded.value.filter((chat) => !going.value.has(chat.id)));
let reading = 0;

/** Reads the list from its start, as far as it is shown. */
export async function readChats() {
  const mine = ++reading;
  isLoading.value = true;
  try {
    const limit = Math.min(Math.max(loaded.value.length, PAGE_SIZE), 100);
    const page = await api.value.chats.list({ limit, filter: wanted() });
    if (mine === reading) batch(() => ((loaded.value = page.items), (next.value = page.page_info.next_cursor)));
  } catch (error) {
    if (mine === reading) notify(sentence(error), { tone: "bad" });
  } finally {
    if (mine === reading) isLoading.value = false;
  }
}

export async function readMoreChats() {
  if (isLoading.value || next.value === null) return;
  const mine = reading;
  isLoading.value = true;
  try {
    const page = await api.value.chats.list({ limit: PAGE_SIZE, cursor: next.value, filter: wanted() });
    if (mine !== reading) return;
    const known = new Set(loaded.value.map((chat) => chat.id));
    loaded.value = [...loaded.value, ...page.items.filter((chat) => !known.has(chat.id))];
    next.value = page.page_info.next_cursor;
  } catch (error) {
    next.value = null;
    notify(sentence(error), { tone: "bad" });
  } finally {
    if (mine === reading) isLoading.value = false;
  }
}

let typing;
/** Searches a moment after the last key. */
export function searchFor(text) {
  search.value = text;
  clearTimeout(typing);
  typing = setTimeout(() => ((loaded.value = []), readChats()), 200);
}

function wanted() {
  const text = search.value.trim();
  return text ? `contains(title,'${text.replace(/'/g, "''")}')` : undefined;
}

/** @param {any} chat as it is now; a new one comes to the top */
export function noteChat(chat) {
  if (loaded.value.some((one) => one.id === chat.id)) loaded.value = loaded.value.map((one) => (one.id === chat.id ? chat : one));
  else if (!search.value && !chat.is_temporary) loaded.value = [chat, ...loaded.value];
}

export async function renameChat(chat, title) {
  try {
    noteChat(await api.value.chats.update(chat.id, { title }));
    tellOthers({ kind: "chats" });
    return "";
  } catch (error) {
    return sentence(error);
  }
}

/** Hides a chat, and deletes it once nobody has wanted it back; a page that closes deletes at once. */
export function deleteChat(chat) {
  const timer = setTimeout(() => finish(chat.id), UNDO_SECONDS * 1000);
  going.value = new Map(going.value).set(chat.id, timer);
  const name = chat.title ? `“${chat.title}”` : "The chat";
  notify(`${name} is deleted.`, { seconds: UNDO_SECONDS, undo: () => keep(chat.id) });
}

function keep(id) {
  clearTimeout(going.value.get(id));
  const left = new Map(going.value);
  left.delete(id);
  going.value = left;
}

async function finish(id) {
  clearTimeout(going.value.get(id));
  try {
    await api.value.chats.delete(id);
    loaded.value = loaded.value.filter((chat) => chat.id !== id);
    tellOthers({ kind: "chats" });
  } catch (error) {
    notify(`It could not be deleted. ${sentence(error)}`, { tone: "bad" });
  }
  keep(id);
}

addEventListener("pagehide", () => [...going.value.keys()].forEach(finish));
