/** Markdown of strangers as elements: nothing of it runs, loads, or leaves without a click. */
import "./vendor/dompurify.js";
import { Marked } from "./vendor/marked.js";
import { html, useEffect, useMemo, useRef } from "./lib.js";

const escaped = (text) => text.replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);

const marked = new Marked({
  gfm: true,
  renderer: {
    // Tags are text: who writes one shows it. Pictures of elsewhere would tell elsewhere who reads.
    html: ({ text }) => escaped(text),
    image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`,
  },
});

const ALLOWED = {
  ALLOWED_TAGS: "a blockquote br code del em h1 h2 h3 h4 h5 h6 hr input li ol p pre strong table tbody td th thead tr ul".split(" "),
  ALLOWED_ATTR: ["href", "title", "align", "start", "type", "checked", "disabled", "class"],
  ALLOWED_URI_REGEXP: /^(https?:|mailto:)/i,
  RETURN_DOM_FRAGMENT: true,
};

/**
 * A text as it grows: what has been drawn stays, only its last block is drawn anew.
 *
 * @param {{ text: string }} props
 */
export function Markdown({ text }) {
  const tokens = useMemo(() => marked.lexer(text), [text]);
  const links = tokens.links;
  return html`<div class="markdown" dir="auto">
    ${tokens.map((token, index) => token.type !== "space" && html`<${Block} key=${index} token=${token} links=${links} />`)}
  </div>`;
}

function Block({ token, links }) {
  const place = useRef(null);
  useEffect(() => {
    const one = Object.assign([token], { links });
    place.current.replaceChildren(finished(globalThis.DOMPurify.sanitize(marked.parser(one), ALLOWED)));
  }, [token.raw]);
  return html`<div class="block" dir="auto" ref=${place}></div>`;
}

function finished(fragment) {
  for (const link of fragment.querySelectorAll("a")) {
    if (!link.getAttribute("href")) link.replaceWith(...link.childNodes);
    else Object.assign(link, { target: "_blank", rel: "noopener noreferrer nofollow" });
  }
  for (const box of fragment.querySelectorAll("input")) {
    if (box.type !== "checkbox") box.remove();
    else box.setAttribute("aria-label", box.checked ? "done" : "to do");
  }
  for (const table of fragment.querySelectorAll("table")) scrolled(table, "Table");
  for (const code of fragment.querySelectorAll("pre")) withCopy(code);
  return fragment;
}

function scrolled(element, label) {
  const frame = document.createElement("div");
  frame.className = "scrolls";
  frame.tabIndex = 0;
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-label", label);
  element.replaceWith(frame);
  frame.append(element);
}

function withCopy(pre) {
  const frame = document.createElement("div");
  frame.className = "code";
  const head = document.createElement("div");
  head.className = "code-head";
  const language = document.createElement("span");
  language.textContent = /language-(\S+)/.exec(pre.firstElementChild?.className ?? "")?.[1] ?? "text";
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.setAttribute("aria-label", `Copy the ${language.textContent} code`);
  button.addEventListener("click", async () => {
    button.textContent = (await copied(pre.textContent)) ? "Copied" : "Select it to copy";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  head.append(language, button);
  pre.tabIndex = 0;
  pre.dir = "ltr";
  pre.replaceWith(frame);
  frame.append(head, pre);
}

/** Whether a text is in the clipboard now: pages without TLS have none. */
export async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
