/** The chats at the side, and who is here. */
import { html, icon, IconButton, plain, signal, useEffect, useRef, useState, when } from "./lib.js";
import { chatId } from "./chat.js";
import { chats, deleteChat, hasMore, isLoading, readMoreChats, renameChat, search, searchFor } from "./chats.js";
import { QuotaLine } from "./quota.js";
import { canOperate, identity, signOut } from "./session.js";

/** On a narrow screen the list is a drawer. */
export const isDrawerOpen = signal(false);
export const go = (hash) => {
  isDrawerOpen.value = false;
  location.hash = hash;
};
const renaming = signal(null);

export function Sidebar({ route }) {
  return html`<nav class=${`sidebar ${isDrawerOpen.value ? "open" : ""}`} aria-label="Chats">
    <div class="sidebar-head">
      <span class="mark">${icon("send")}</span>
      <strong>Mini Chat</strong>
      <${IconButton} name="close" label="Close the list" class="icon-button only-narrow" onClick=${() => (isDrawerOpen.value = false)} />
    </div>
    <button type="button" class="primary wide" onClick=${() => go("#/")}>${icon("plus")} New chat</button>
    <input
      type="search"
      class="search"
      aria-label="Search chats by title"
      placeholder="Search by title"
      value=${search.value}
      onInput=${(event) => searchFor(event.target.value)}
    />
    <${ChatList} />
    <div class="sidebar-foot">
      <${QuotaLine} />
      ${canOperate.value && html`<a class="foot-link" href="#/operate" aria-current=${route === "operate" ? "page" : null}>${icon("gauge")} Operate</a>`}
      <${Who} />
    </div>
  </nav>`;
}

function ChatList() {
  const end = useRef(null);
  useEffect(() => {
    const seen = new IntersectionObserver((entries) => entries.some((one) => one.isIntersecting) && readMoreChats(), { rootMargin: "600px" });
    if (end.current) seen.observe(end.current);
    return () => seen.disconnect();
  }, [hasMore.value, chats.value.length]);
  if (!chats.value.length && !isLoading.value) {
    return html`<p class="empty quiet">${search.value ? "No title has that in it; upper and lower case count." : "No chats yet."}</p>`;
  }
  return html`<ul class="chats">
    ${chats.value.map((chat) => html`<${ChatRow} key=${chat.id} chat=${chat} isOpen=${chat.id === chatId.value} />`)}
    ${hasMore.value && html`<li class="more" ref=${end}><button type="button" class="quiet-button" onClick=${readMoreChats}>More chats</button></li>`}
  </ul>`;
}

function ChatRow({ chat, isOpen }) {
  if (renaming.value === chat.id) return html`<li class="chat-row"><${Rename} chat=${chat} /></li>`;
  const title = plain(chat.title || "New chat");
  return html`<li class=${`chat-row ${isOpen ? "current" : ""}`}>
    <a href=${`#/chat/${chat.id}`} onClick=${() => (isDrawerOpen.value = false)} aria-current=${isOpen ? "page" : null}>
      <span class="chat-title" dir="auto">${title}</span>
      <span class="chat-when">${chat.running_request_id ? html`<span class="pulse" title="An answer is being written"></span>` : when(chat.updated_at)}</span>
    </a>
    <span class="row-tools">
      <${IconButton} name="edit" label=${`Rename ${title}`} onClick=${() => (renaming.value = chat.id)} />
      <${IconButton} name="bin" label=${`Delete ${title}`} onClick=${() => leave(chat, isOpen)} />
    </span>
  </li>`;
}

function leave(chat, isOpen) {
  deleteChat(chat);
  if (isOpen) go("#/");
}

function Rename({ chat }) {
  const field = useRef(null);
  const [refusal, setRefusal] = useState("");
  useEffect(() => field.current.select(), []);
  const submit = async (event) => {
    event.preventDefault();
    const title = field.current.value.trim();
    const why = title && title !== chat.title ? await renameChat(chat, title) : "";
    if (why) setRefusal(why);
    else renaming.value = null;
  };
  const leaveIt = (event) => event.key === "Escape" && (renaming.value = null);
  return html`<form class="rename" onSubmit=${submit} onKeyDown=${leaveIt}>
    <input ref=${field} aria-label="Title" defaultValue=${chat.title ?? ""} dir="auto" autocomplete="off" />
    <button type="submit" class="small">Save</button>
    ${refusal && html`<p role="alert" class="bar-note">${refusal}</p>`}
  </form>`;
}

function Who() {
  const who = identity.value;
  const name = who.user ?? who.claims?.email ?? who.claims?.name ?? who.claims?.sub ?? "signed in";
  return html`<div class="who">
    <span class="avatar" aria-hidden="true">${[...plain(name)][0]?.toUpperCase()}</span>
    <span class="who-text">
      <span dir="auto">${plain(name)}</span>
      <span class="quiet">${[who.tenant, who.role].filter(Boolean).map(plain).join(" · ")}</span>
    </span>
    ${who.kind !== "none" && html`<button type="button" class="quiet-button" onClick=${signOut}>Leave</button>`}
  </div>`;
}
