/**
 * The events of a turn in the AI SDK's words.
 *
 * @typedef {import("./schema.js").components["schemas"]} Schemas
 * @typedef {import("./turn.js").TurnEvent} TurnEvent
 * @typedef {import("ai").UIMessageChunk} Chunk
 */

/** Tools run at the provider, and nobody here knows their input before they are done. */
const TOOL = { providerExecuted: true, dynamic: true };

export class ChunkWriter {
  #write;
  #parts = 0;
  /** @type {string | undefined} the part of text that is open */
  #text;
  /** @type {Map<string, string[]>} calls that are not done, of each tool */
  #calls = new Map();

  /** @param {(chunk: Chunk) => void} write */
  constructor(write) {
    this.#write = write;
  }

  /** @param {TurnEvent} event */
  write(event) {
    switch (event.type) {
      case "stream_started":
        return this.#start(event.data);
      case "delta":
        return this.#say(event.data.content);
      case "tool":
        return this.#use(event.data);
      case "citations":
        this.#closeText();
        return this.cite(event.data.items);
      case "done":
        return this.#finish(event.data);
      case "error":
        return this.#fail(event.data);
    }
  }

  /** @param {Schemas["CitationView"][]} citations */
  cite(citations) {
    for (const [index, { source, url, attachment_id, title, snippet, span }] of citations.entries()) {
      const sourceId = `source-${index}`;
      const about = { snippet, ...(span && { span }), ...(attachment_id && { attachmentId: attachment_id }) };
      const providerMetadata = { minichat: about };
      if (source === "web" && url) this.#write({ type: "source-url", sourceId, url, title, providerMetadata });
      else {
        const mediaType = "application/octet-stream";
        this.#write({ type: "source-document", sourceId, mediaType, title, filename: title, providerMetadata });
      }
    }
  }

  /** @param {Schemas["StreamStartedData"]} data */
  #start({ request_id: requestId, message_id: messageId }) {
    this.#write({ type: "start", messageId, messageMetadata: { requestId } });
    this.#write({ type: "start-step" });
  }

  /** @param {string} delta */
  #say(delta) {
    if (this.#text === undefined) {
      this.#text = `text-${(this.#parts += 1)}`;
      this.#write({ type: "text-start", id: this.#text });
    }
    this.#write({ type: "text-delta", id: this.#text, delta });
  }

  #closeText() {
    if (this.#text !== undefined) this.#write({ type: "text-end", id: this.#text });
    this.#text = undefined;
  }

  /** @param {Schemas["ToolData"]} data */
  #use({ phase, name, details }) {
    this.#closeText();
    const open = this.#calls.get(name) ?? [];
    this.#calls.set(name, open);
    if (phase === "start" || open.length === 0) {
      const toolCallId = `tool-${(this.#parts += 1)}`;
      open.push(toolCallId);
      this.#write({ type: "tool-input-start", toolCallId, toolName: name, ...TOOL });
    }
    if (phase !== "done") return;
    const toolCallId = /** @type {string} */ (open.shift());
    const input = details.query === undefined ? {} : { query: details.query };
    this.#write({ type: "tool-input-available", toolCallId, toolName: name, input, ...TOOL });
    this.#write({ type: "tool-output-available", toolCallId, output: details, ...TOOL });
  }

  /** @param {Schemas["DoneData"]} data */
  #finish(data) {
    this.#closeText();
    this.#write({ type: "finish-step" });
    this.#write({ type: "finish", finishReason: reasonOf(data.completion_signal), messageMetadata: data });
  }

  /** @param {Schemas["ErrorData"]} data */
  #fail({ code, message }) {
    this.#closeText();
    this.#write(code === "cancelled" ? { type: "abort" } : { type: "error", errorText: message });
  }
}

/**
 * @param {Schemas["CompletionView"]} signal
 * @returns {import("ai").FinishReason}
 */
function reasonOf({ kind, reason }) {
  if (reason === "content_filter") return "content-filter";
  if (reason === "length") return "length";
  return kind === "incomplete" ? "other" : "stop";
}
