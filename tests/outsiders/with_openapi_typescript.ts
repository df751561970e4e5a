// A conversation with the types that openapi-typescript makes, and openapi-fetch. Arguments: the address, a token.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema";

declare const process: { argv: string[] };
type StreamEvent = components["schemas"]["StreamEvent"];

const [, , baseUrl = "", token = ""] = process.argv;
const api = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${token}` } });

function events(stream: string): StreamEvent[] {
  return stream.split("\n\n").filter(Boolean).map((frame) => {
    const fields = Object.fromEntries(frame.split("\n").map((line) => line.split(/: (.*)/s)));
    return { ...fields, data: JSON.parse(fields["data"]) };
  });
}

function text(told: StreamEvent[]): string {
  return told.map((event) => (event.event === "delta" ? event.data.content : "")).join("");
}

async function main() {
  const chat = await api.POST("/mini-chat/v1/chats", { body: { title: "The moon" } });
  if (!chat.data) throw new Error(chat.error.detail);
  const path = { chat_id: chat.data.id };
  const sent = await api.POST("/mini-chat/v1/chats/{chat_id}/messages:stream", {
    params: { path }, body: { content: "[[say:Far away.]]" }, parseAs: "text",
  });
  const first = events(String(sent.data));
  const [started] = first;
  if (started?.event !== "stream_started") throw new Error("it did not start");
  const turn = { ...path, request_id: started.data.request_id };
  const resumed = await api.GET("/mini-chat/v1/chats/{chat_id}/turns/{request_id}/stream", {
    params: { path: turn, header: { "last-event-id": 1 } }, parseAs: "text",
  });
  const retried = await api.POST("/mini-chat/v1/chats/{chat_id}/turns/{request_id}/retry", {
    params: { path: turn }, parseAs: "text",
  });
  const list = await api.GET("/mini-chat/v1/chats/{chat_id}/messages", { params: { path } });
  const gone = await api.DELETE("/mini-chat/v1/chats/{chat_id}", { params: { path } });
  const refused = await api.GET("/mini-chat/v1/chats/{chat_id}", { params: { path } });
  console.log(JSON.stringify({
    said: text(first), resumed: text(events(String(resumed.data))), retried: text(events(String(retried.data))),
    messages: list.data?.items.map((message) => message.content), gone: gone.response.status,
    refused: refused.error?.code,
  }));
}

main();
