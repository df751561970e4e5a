/** The chat in the middle of the page. */
import { html, icon, IconButton, plain, signal, useEffect, useRef } from "./lib.js";
import { chatId, detail, hasEarlier, isReading, live, messages, obstacle, readEarlier } from "./chat.js";
import { Composer } from "./composer.js";
import { attach } from "./files.js";
import { Message, Question, Telling } from "./message.js";
import { isPanelOpen, showPanel } from "./panel.js";
import { go, isDrawerOpen } from "./sidebar.js";

const isDropping = signal(false);

export function Conversation() {
  const drop = {
    onDragOver: (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      isDropping.value = true;
    },
    onDragLeave: (event) => event.currentTarget.contains(event.relatedTarget) || (isDropping.value = false),
    onDrop: (event) => {
      event.preventDefault();
      isDropping.value = false;
      attach(event.dataTransfer.files);
    },
  };
  return html`<main class=${`conversation ${isDropping.value ? "dropping" : ""}`} ...${drop}>
    <header class="top">
      <${IconButton} name="menu" label="Open the list of chats" class="icon-button only-narrow" onClick=${() => (isDrawerOpen.value = true)} />
      <h1 dir="auto">${plain(detail.value?.title || (chatId.value ? "New chat" : "A new chat"))}</h1>
      ${detail.value && html`<span class="quiet model only-wide">${detail.value.model}</span>`}
      <button type="button" class=${`toggle ${isPanelOpen.value ? "on" : ""}`} aria-pressed=${isPanelOpen.value} aria-label="What happened" onClick=${() => showPanel(isPanelOpen.value ? null : "happened")}>
        ${icon("info")}<span class="only-wide">What happened</span>
      </button>
    </header>
    ${obstacle.value?.isGone ? html`<${Gone} />` : html`<${Thread} /><${Composer} />`}
    <p class="drop-hint" aria-hidden="true">Drop the files here</p>
  </main>`;
}

function Gone() {
  return html`<div class="greeting">
    <h2>This chat is not here</h2>
    <p class="quiet">It was deleted, or it is somebody else's.</p>
    <button type="button" class="primary" onClick=${() => go("#/")}>A new chat</button>
  </div>`;
}

function Thread() {
  const place = useRef(null);
  const follows = useRef(true);
  const before = useRef({ height: 0, first: null });
  const shown = live.value;
  const text = shown?.text.value;
  const list = messages.value;
  // At its end, the thread stays there; with earlier messages above, it stays where it is read.
  useEffect(() => {
    const box = place.current;
    const first = list[0]?.id ?? null;
    const grewAbove = before.current.first !== null && first !== before.current.first && !follows.current;
    if (grewAbove) box.scrollTop += box.scrollHeight - before.current.height;
    else if (follows.current) box.scrollTop = box.scrollHeight;
    before.current = { height: box.scrollHeight, first };
  }, [list, text, shown, shown?.state.value, shown?.tools.value]);
  useEffect(() => {
    follows.current = true;
    const box = place.current;
    const watch = new ResizeObserver(() => follows.current && (box.scrollTop = box.scrollHeight));
    watch.observe(box.firstElementChild);
    return () => watch.disconnect();
  }, [chatId.value]);
  const scrolled = ({ currentTarget: box }) => {
    follows.current = box.scrollHeight - box.scrollTop - box.clientHeight < 80;
    if (box.scrollTop < 300 && hasEarlier.value && !isReading.value && !follows.current) readEarlier();
  };
  const hasQuestion = shown && list.some((one) => one.request_id === shown.requestId.value && one.role === "user");
  const hasAnswer = shown && list.some((one) => one.request_id === shown.requestId.value && one.role === "assistant");
  const isEmpty = !list.length && !shown && !isReading.value;
  return html`<div class="thread" ref=${place} onScroll=${scrolled} tabindex="0" role="region" aria-label="Messages">
    <div class="measure">
      ${hasEarlier.value && html`<button type="button" class="quiet-button earlier" onClick=${readEarlier}>Earlier messages</button>`}
      ${isEmpty && html`<div class="greeting"><h2>What shall it be?</h2><p class="quiet">Ask, drop files, or paste a picture.</p></div>`}
      ${list
        .filter((one) => !(shown && one.request_id === shown.requestId.value && one.role === "assistant" && !shown.isOver))
        .map((one) => html`<${Message} key=${one.id} message=${one} />`)}
      ${shown && shown.content !== null && !hasQuestion && html`<${Question} key="asked" content=${shown.content} attachments=${shown.attachments} />`}
      ${shown && !(hasAnswer && shown.isOver) && html`<${Telling} key="telling" shown=${shown} />`}
    </div>
  </div>`;
}
