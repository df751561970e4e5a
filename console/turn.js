/** One turn as it is shown: its text, tools, sources, end, and all that happened on the way. */
import { MiniChatError, Problem } from "../clients/javascript/src/index.js";
import { signal } from "./lib.js";
import { sentence } from "./session.js";

/** Milliseconds between two drawings of a growing text. */
const FRAME = 40;

export class ShownTurn {
  /**
   * @param {{ chatId: string, request: { method: string, path: string, body?: any }, content?: string, attachments?: any[] }} about
   *   what was asked, as it can be shown and repeated; `content` is null for a turn that others began
   */
  constructor({ chatId, request, content = null, attachments = [] }) {
    Object.assign(this, { chatId, request, content, attachments });
    this.requestId = signal(null);
    this.text = signal("");
    this.tools = signal([]);
    this.citations = signal([]);
    /** `waiting`, `running`, `done`, `error`, `cancelled` or `refused` */
    this.state = signal("waiting");
    /** @type {any} what `done` or `error` said, or the refusal */
    this.end = signal(null);
    this.isConnected = signal(true);
    /** @type {any} `{ kind, id, at, note }`, as it came */
    this.log = signal([]);
    this.startedAt = performance.now();
    this.startedOn = new Date();
    this.firstDeltaAt = signal(null);
    this.endedAt = signal(null);
  }

  get isOver() {
    return !["waiting", "running"].includes(this.state.value);
  }

  /** @param {(options: any) => import("../clients/javascript/src/turn.js").Turn} begin */
  begin(begin) {
    this.turn = begin({ onConnection: (change) => this.#connection(change) });
    this.requestId.value = this.turn.requestId ?? null;
    return this;
  }

  /**
   * Follows to the end.
   *
   * @param {() => void} onStart called when the turn is known to be there
   * @returns {Promise<unknown>} the refusal, where there was one
   */
  async follow(onStart) {
    let drawing;
    const draw = () => {
      drawing = undefined;
      this.text.value = this.turn.text;
    };
    try {
      for await (const event of this.turn) {
        this.#note(event);
        if (event.type === "delta") drawing ??= setTimeout(draw, FRAME);
        else if (event.type === "tool") this.#tool(event.data);
        else if (event.type === "citations") this.citations.value = event.data.items;
        else if (event.type === "stream_started") this.#started(event, onStart);
        else this.#ended(event);
      }
      if (!this.isOver) this.state.value = "done";
      return undefined;
    } catch (error) {
      this.end.value = { code: error.code, message: sentence(error), problem: error };
      this.state.value = this.turn.lastEventId > 0 || !(error instanceof MiniChatError) ? "error" : "refused";
      this.#log("problem", undefined, error instanceof Problem ? `${error.status} ${error.code}` : error.message);
      return error;
    } finally {
      clearTimeout(drawing);
      draw();
      this.endedAt.value = performance.now() - this.startedAt;
    }
  }

  #started(event, onStart) {
    this.requestId.value = event.data.request_id;
    this.messageId = event.data.message_id;
    this.state.value = "running";
    onStart?.();
  }

  #ended({ type, data }) {
    this.end.value = data;
    this.state.value = type === "done" ? "done" : data.code === "cancelled" ? "cancelled" : "error";
  }

  #tool({ phase, name, details }) {
    const before = this.tools.value;
    const last = before.findLastIndex((one) => one.name === name && one.phase !== "done");
    if (phase === "start" || last < 0) this.tools.value = [...before, { name, phase, details }];
    else this.tools.value = before.map((one, index) => (index === last ? { name, phase, details: { ...one.details, ...details } } : one));
  }

  #note({ id, type, data }) {
    if (type === "delta") this.firstDeltaAt.value ??= performance.now() - this.startedAt;
    this.#log(type, id, NOTES[type]?.(data) ?? "");
  }

  #connection({ state, after, failures, error }) {
    this.isConnected.value = state === "open";
    if (state === "open" && failures === 0 && after === 0) this.#log("connected", undefined, "");
    else if (state === "open") this.#log("resumed", undefined, `after event ${after}`);
    else this.#log("lost", undefined, `after event ${after}: ${error?.message ?? "the connection is gone"}`);
  }

  #log(kind, id, note) {
    this.log.value = [...this.log.value, { kind, id, at: performance.now() - this.startedAt, note }];
  }
}

const NOTES = {
  stream_started: (data) => (data.is_new_turn ? "new turn" : "known turn"),
  delta: (data) => JSON.stringify(data.content.length > 60 ? `${data.content.slice(0, 60)}…` : data.content),
  tool: (data) => `${data.name} ${data.phase}`,
  citations: (data) => `${data.items.length} sources`,
  done: (data) => [data.completion_signal.kind, data.completion_signal.reason, data.effective_model].filter(Boolean).join(", "),
  error: (data) => data.code,
};
