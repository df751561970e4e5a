// A conversation with the client that @hey-api/openapi-ts makes. Arguments: the address, a token.
import { client } from "./hey/client.gen";
import * as api from "./hey/sdk.gen";
import type { StreamData } from "./hey/types.gen";

declare const process: { argv: string[] };

const [, , baseUrl = "", token = ""] = process.argv;
client.setConfig({ baseUrl, auth: token });

async function told(stream: AsyncGenerator<string | StreamData | void>): Promise<StreamData[]> {
  const all: StreamData[] = [];
  for await (const data of stream) if (typeof data === "object") all.push(data);
  return all;
}

function text(all: StreamData[]): string {
  return all.map((data) => ("content" in data ? data.content : "")).join("");
}

async function main() {
  const chat = await api.createChat({ body: { title: "The moon" }, throwOnError: true });
  const path = { chat_id: chat.data.id };
  const sent = await told((await api.sendMessage({ path, body: { content: "[[say:Far away.]]" } })).stream);
  const started = sent[0];
  if (!started || !("request_id" in started)) throw new Error("it did not start");
  const turn = { ...path, request_id: started.request_id };
  const resumed = await told((await api.resumeTurn({ path: turn, headers: { "last-event-id": 1 } })).stream);
  const retried = await told((await api.retryTurn({ path: turn })).stream);
  const list = await api.listMessages({ path, throwOnError: true });
  const gone = await api.deleteChat({ path });
  const refused = await api.getChat({ path });
  console.log(JSON.stringify({
    said: text(sent), resumed: text(resumed), retried: text(retried),
    messages: list.data.items.map((message) => message.content), gone: gone.response?.status,
    refused: refused.error?.code,
  }));
}

main();
