/** Files on their way to the chat: dropped, pasted or chosen. */
import { api, sentence } from "./session.js";
import { draft, madeChat, obstacle } from "./chat.js";

let last = 0;

/** @param {Iterable<File>} files */
export async function attach(files) {
  const wanted = [...files];
  if (!wanted.length) return;
  try {
    const chat = await madeChat();
    await Promise.all(wanted.map((file) => sendFile(chat, file)));
  } catch (error) {
    obstacle.value = { text: sentence(error) };
  }
}

async function sendFile(chat, file) {
  const key = ++last;
  const leaving = new AbortController();
  draft.value = { ...draft.value, files: [...draft.value.files, { key, name: file.name || "pasted", state: "sending", share: 0, leaving, size: file.size }] };
  const change = (news) => {
    draft.value = { ...draft.value, files: draft.value.files.map((one) => (one.key === key ? { ...one, ...news } : one)) };
  };
  try {
    const onProgress = (sent, total) => change({ share: total ? sent / total : 1 });
    const made = await api.value.attachments.upload(chat, file, { filename: file.name || "pasted.png", onProgress, signal: leaving.signal });
    if (made.status === "ready") change({ state: "ready", id: made.id, kind: made.kind, thumbnail: made.img_thumbnail });
    else change({ state: "failed", why: `It cannot be used: ${made.error_code ?? "it failed"}.` });
  } catch (error) {
    if (!leaving.signal.aborted) change({ state: "failed", why: sentence(error) });
  }
}

export function takeAway(file) {
  file.leaving?.abort();
  draft.value = { ...draft.value, files: draft.value.files.filter((one) => one.key !== file.key) };
}
