/** The page: who is here, what is open, and the views of it. */
import { effect, html, render, signal } from "./lib.js";
import { openChat, watch } from "./chat.js";
import { readChats } from "./chats.js";
import { readModels } from "./composer.js";
import { Conversation } from "./conversation.js";
import { Panel } from "./happened.js";
import { Notices } from "./notices.js";
import { readQuota } from "./quota.js";
import { api, identity, start } from "./session.js";
import { isDrawerOpen, Sidebar } from "./sidebar.js";
import { Renewal, SignIn } from "./signin.js";

const route = signal("chat");
/** The operator's view, which few need and nobody waits for. */
const operate = signal(null);

function read() {
  const [, where = "", id = ""] = location.hash.split("/");
  route.value = where === "operate" ? "operate" : "chat";
  if (where === "operate") import("./operate.js").then((views) => (operate.value = () => views.Operate));
  else openChat(where === "chat" && id ? decodeURIComponent(id) : null);
}

function App() {
  if (!identity.value) return html`<${SignIn} /><${Notices} />`;
  const Operate = operate.value?.();
  return html`<div class="frame">
    <${Sidebar} route=${route.value} />
    ${isDrawerOpen.value && html`<div class="veil" onClick=${() => (isDrawerOpen.value = false)}></div>`}
    ${route.value === "operate" ? Operate && html`<${Operate} />` : html`<${Conversation} /><${Panel} />`}
    <${Notices} />
    <${Renewal} />
  </div>`;
}

await start();
let isRead = false;
effect(() => {
  if (!api.value || isRead) return;
  isRead = true;
  queueMicrotask(() => {
    read();
    addEventListener("hashchange", read);
    readChats();
    readQuota();
    readModels();
    watch();
  });
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") isDrawerOpen.value = false;
  if (event.key === "k" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    document.querySelector(".search")?.focus();
  }
});
const root = document.getElementById("app");
root.replaceChildren();
render(html`<${App} />`, root);
