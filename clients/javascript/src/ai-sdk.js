/**
 * The AI SDK's `useChat`, and every UI kit above it, on chats of Mini Chat.
 *
 * @typedef {import("./schema.js").components["schemas"]} Schemas
 * @typedef {import("./turn.js").Turn} Turn
 * @typedef {import("./turn.js").TurnEvent} TurnEvent
 * @typedef {import("ai").UIMessageChunk} Chunk
 *
 * @typedef {Partial<Schemas["DoneData"]> & { requestId?: string }} Metadata
 *   of a message: its turn, and what the end of the turn's stream said
 * @typedef {import("ai").UIMessage<Metadata>} ChatMessage
 * @typedef {import("ai").ChatTransport<ChatMessage>} Transport
 * @typedef {{ webSearch?: boolean, attachmentIds?: string[] }} SendBody what `sendMessage(…, { body })` may say
 */
import { uuid } from "./http.js";
import { ChunkWriter } from "./ai-sdk-chunks.js";

const UUID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i;

/**
 * `useChat({ id, messages, transport })`, where `id` is a chat of the server and `messages` are `messagesOf(…)` it.
 *
 * A new message is a send, an edited one an edit, and to regenerate is to retry: the last two are for the latest turn
 * (`NotLatestTurn`). `stop()` cancels the turn. A message whose id is a UUID is one turn however often it is sent.
 *
 * @implements {Transport}
 */
export class MiniChatTransport {
  /** What is resumed is told from its start. */
  resumeStreamIsReplay = true;
  #client;
  /** @type {Map<string, { requestId: string, hasBegun: boolean }>} the turn of each user's message, by its id */
  #turns = new Map();
  /** @type {Map<string, Promise<void>>} turns that are about to end, by their chat */
  #stopping = new Map();

  /** @param {import("./index.js").MiniChat} client */
  constructor(client) {
    this.#client = client;
  }

  /**
   * @param {Parameters<Transport["sendMessages"]>[0]} request
   * @returns {Promise<ReadableStream<Chunk>>}
   */
  async sendMessages({ trigger, chatId, messageId, messages, abortSignal, body }) {
    const message = messages.findLast(({ role }) => role === "user");
    if (!message) throw new TypeError("There is no message to be answered");
    await this.#stopping.get(chatId);
    const isEdit = trigger === "submit-message" && messageId === message.id;
    const known = this.#turns.get(message.id);
    // A message that this page has not sent is one of the chat's history, and has its turn's name.
    const { requestId, hasBegun } = known ?? { requestId: message.id, hasBegun: UUID.test(message.id) };
    /** @type {Turn} */
    let turn;
    if (hasBegun && isEdit) turn = this.#client.edit(chatId, requestId, textOf(message));
    else if (hasBegun && trigger === "regenerate-message") turn = this.#client.retry(chatId, requestId);
    else turn = await this.#send(chatId, message, body, known);
    return this.#streamed(turn, message, abortSignal);
  }

  /**
   * The running turn of a chat, whoever began it.
   *
   * @param {Parameters<Transport["reconnectToStream"]>[0]} request
   * @returns {Promise<ReadableStream<Chunk> | null>}
   */
  async reconnectToStream({ chatId, abortSignal }) {
    const { running_request_id: requestId } = await this.#client.chats.get(chatId);
    if (!requestId) return null;
    return this.#streamed(this.#client.resume(chatId, requestId), undefined, abortSignal);
  }

  /**
   * @param {string} chatId
   * @param {ChatMessage} message
   * @param {SendBody | undefined} wish
   * @param {{ requestId: string } | undefined} before what an earlier try was called
   */
  async #send(chatId, message, { webSearch, attachmentIds = [] } = {}, before) {
    const requestId = before?.requestId ?? (UUID.test(message.id) ? message.id : uuid());
    this.#turns.set(message.id, { requestId, hasBegun: false });
    const files = message.parts.filter((part) => part.type === "file");
    const uploaded = files.map(async ({ url, filename = "file" }, index) => {
      const blob = await (await fetch(url)).blob();
      const key = `${requestId}-${index}`;
      return (await this.#client.attachments.upload(chatId, blob, { filename, idempotencyKey: key })).id;
    });
    const ids = [...attachmentIds, ...(await Promise.all(uploaded))];
    const said = { content: textOf(message), attachmentIds: ids, ...(webSearch !== undefined && { webSearch }) };
    return this.#client.send(chatId, said, { requestId });
  }

  /**
   * A turn as chunks. What is refused before its first event is thrown here, where `useChat` expects it.
   *
   * @param {Turn} turn
   * @param {ChatMessage | undefined} message whose answer it is
   * @param {AbortSignal | undefined} signal cancels the turn
   * @returns {Promise<ReadableStream<Chunk>>}
   */
  async #streamed(turn, message, signal) {
    const events = turn[Symbol.asyncIterator]();
    /** @type {() => void} */
    let isRead = () => {};
    const read = new Promise((resolve) => (isRead = () => resolve(undefined)));
    const stop = () => {
      const cancelled = turn.cancel().catch(() => turn.leave());
      // `useChat` is ready at once; its next message can be sent when the turn is over.
      this.#stopping.set(
        turn.chatId,
        Promise.all([cancelled, read]).then(() => {}),
      );
    };
    if (signal?.aborted) stop();
    signal?.addEventListener("abort", stop);
    const ended = () => {
      signal?.removeEventListener("abort", stop);
      isRead();
    };
    const first = await events.next().catch((error) => {
      ended();
      throw error;
    });
    if (message && turn.requestId) this.#turns.set(message.id, { requestId: turn.requestId, hasBegun: true });
    let isLeft = false;
    return new ReadableStream({
      async start(controller) {
        const writer = new ChunkWriter((chunk) => isLeft || controller.enqueue(chunk));
        try {
          for (let next = first; !next.done; next = await events.next()) writer.write(next.value);
          if (!isLeft) controller.close();
        } catch (error) {
          if (!isLeft) controller.error(error);
        } finally {
          ended();
        }
      },
      cancel() {
        isLeft = true;
        // Whoever reads no longer, a page that shows another chat perhaps, has not stopped the turn. A turn that was
        // stopped is read to its end.
        if (!signal?.aborted) turn.leave();
      },
    });
  }
}

/**
 * A chat's messages as `useChat` keeps them. A user's has the id of its turn, by which it can be edited.
 *
 * @param {Schemas["MessageView"][]} messages in the order of the conversation
 * @returns {ChatMessage[]}
 */
export function messagesOf(messages) {
  return messages.map(({ id, request_id: requestId, role, content, attachments, citations = [], ...rest }) => {
    /** @type {Chunk[]} */
    const sources = [];
    const writer = new ChunkWriter((chunk) => sources.push(chunk));
    if (citations.length > 0) writer.cite(citations);
    const { completion_signal, effective_model, selected_model, quota_decision } = rest;
    const told = { completion_signal, effective_model, selected_model, quota_decision };
    const known = Object.entries(told).filter(([, value]) => value !== undefined);
    const files = attachments.map(({ filename, img_thumbnail: picture }) => ({
      type: /** @type {const} */ ("file"),
      filename,
      mediaType: picture?.content_type ?? "application/octet-stream",
      url: picture ? `data:${picture.content_type};base64,${picture.data_base64}` : "data:,",
    }));
    const text = { type: /** @type {const} */ ("text"), text: content };
    const metadata = { requestId, ...Object.fromEntries(known) };
    return { id: role === "user" ? requestId : id, role, metadata, parts: [...files, text, ...partsOf(sources)] };
  });
}

/**
 * @param {Chunk[]} sources
 * @returns {ChatMessage["parts"]}
 */
function partsOf(sources) {
  return sources.filter((chunk) => chunk.type === "source-url" || chunk.type === "source-document");
}

/** @param {ChatMessage} message */
function textOf({ parts }) {
  return parts.map((part) => (part.type === "text" ? part.text : "")).join("");
}
