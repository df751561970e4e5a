/** What the windows of one browser tell each other, so that nobody waits for the next look at the server. */
const channel = typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel("minichat.console");
const listeners = new Set();

channel?.addEventListener("message", ({ data }) => listeners.forEach((listener) => listener(data)));

/** @param {{ kind: "chats" | "turn", chatId?: string }} news */
export function tellOthers(news) {
  channel?.postMessage(news);
}

/** @param {(news: any) => void} listener */
export function hearOthers(listener) {
  listeners.add(listener);
}
