// A page that reads an answer through @microsoft/fetch-event-source in a tab that is hidden for a while, and shown again.
// Arguments: url, token, body (JSON), events after which the tab is hidden, milliseconds for which it is.
// Prints what the page has been told: { events: [[id, event, data], …], opened: [status, …] }.
import { createRequire } from "node:module";

const [modules, url, token, body, events, milliseconds] = process.argv.slice(2);
const { fetchEventSource } = createRequire(`${modules}/`)("@microsoft/fetch-event-source");

const page = new EventTarget();
page.hidden = false;
globalThis.document = page;
globalThis.window = globalThis;

function shows(hidden) {
  page.hidden = hidden;
  page.dispatchEvent(new Event("visibilitychange"));
}

const told = { events: [], opened: [] };
await fetchEventSource(url, {
  method: "POST",
  headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
  body,
  async onopen(response) {
    told.opened.push(response.status);
    if (!response.headers.get("content-type")?.startsWith("text/event-stream")) throw new Error(await response.text());
  },
  onmessage({ id, event, data }) {
    if (event === "ping") return;
    told.events.push([Number(id), event, JSON.parse(data)]);
    if (told.events.length === Number(events)) {
      setTimeout(() => { shows(true); setTimeout(() => shows(false), Number(milliseconds)); });
    }
  },
});
console.log(JSON.stringify(told));
