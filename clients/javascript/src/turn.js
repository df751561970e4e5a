/**
 * A turn's stream that survives: cuts, sleep, another network, a token that expires.
 *
 * @typedef {import("./schema.js").components["schemas"]} Schemas
 * @typedef {{ id: number, type: "stream_started", data: Schemas["StreamStartedData"] }} StreamStarted
 * @typedef {{ id: number, type: "delta", data: Schemas["DeltaData"] }} Delta
 * @typedef {{ id: number, type: "tool", data: Schemas["ToolData"] }} Tool
 * @typedef {{ id: number, type: "citations", data: Schemas["CitationsData"] }} Citations
 * @typedef {{ id: number, type: "done", data: Schemas["DoneData"] }} Done
 * @typedef {{ id: number, type: "error", data: Schemas["ErrorData"] }} Failed
 * @typedef {StreamStarted | Delta | Tool | Citations | Done | Failed} TurnEvent
 *
 * @typedef {{
 *   state: "open" | "lost",
 *   after: number,
 *   failures: number,
 *   error?: unknown,
 * }} ConnectionChange `after`: the last event that was told; `failures`: tries since then
 *
 * @typedef {{
 *   signal?: AbortSignal | undefined,
 *   onConnection?: ((change: ConnectionChange) => void) | undefined,
 * }} FollowOptions `signal` leaves the stream; the turn goes on
 *
 * @typedef {{
 *   chatId: string,
 *   requestId?: string | undefined,
 *   after?: number,
 *   opening?: { method: string, path: string, json?: unknown } | undefined,
 *   isRepeated?: boolean,
 *   onSend?: () => Promise<void>,
 *   onSettled?: () => Promise<void>,
 * }} Beginning `opening` makes the turn, and without it there is one. `isRepeated`: it may have been made before.
 *   `onSend` is awaited before the first try, `onSettled` once the turn is known to be there, or never to be.
 *
 * @typedef {{ attempts: number, attemptsToBegin: number, silence: number }} Patience
 *   tries in a row without a new event; seconds without a byte after which a connection is taken for dead
 */
import { Connection } from "./connection.js";
import { ConnectionLost, InvalidRequest, Problem, TurnNotFound } from "./errors.js";
import { retryAfterOf } from "./http.js";
import { delayOf, isOffline, wait } from "./waiting.js";

/**
 * The events of one turn, each once: `for await (const event of turn)`. Nothing is sent before somebody reads.
 *
 * Leaving the loop, or aborting the signal, leaves the stream and not the turn; `cancel()` ends the turn.
 */
export class Turn {
  #http;
  #beginning;
  #options;
  #patience;
  #events = this.#told();
  #leaving = new AbortController();
  #hasBegun = false;
  #isCancelled = false;
  /** Whether `text` is all of the answer up to `lastEventId`. */
  #isWhole;
  /** @type {number | undefined} Of a stream that is told whole again: how much of its text the caller has had. */
  #toSkip;

  /**
   * @param {import("./http.js").Http} http
   * @param {Beginning} beginning
   * @param {FollowOptions} options
   * @param {Patience} patience
   */
  constructor(http, beginning, options, patience) {
    this.#http = http;
    this.#beginning = beginning;
    this.#options = options;
    this.#patience = patience;
    this.chatId = beginning.chatId;
    /** The turn's id. A send has it from the start, a retry or an edit from its first event on. */
    this.requestId = beginning.requestId;
    /** The id of the last event that was told: where `resume` goes on. */
    this.lastEventId = beginning.after ?? 0;
    this.#isWhole = this.lastEventId === 0;
    /** The answer as far as it has been told here. */
    this.text = "";
    /** Whether the last event has been told, or the stream was left or refused. */
    this.isOver = false;
  }

  [Symbol.asyncIterator]() {
    return this.#events;
  }

  /** Leaves the stream, as aborting the signal does, but without an error: the loop ends. The turn goes on. */
  leave() {
    this.#leaving.abort();
  }

  /**
   * Ends the turn; its stream then ends with the error `cancelled`, or as it would have when that came first.
   *
   * @returns {Promise<Schemas["TurnStatus"] | undefined>} where the turn stands; undefined when it never began
   */
  async cancel() {
    if (!this.#hasBegun && this.#beginning.opening) {
      this.#isCancelled = true;
      await this.#beginning.onSettled?.();
      return undefined;
    }
    for (;;) {
      const isOver = this.isOver;
      try {
        const call = { method: "POST", path: `${this.#path}/cancel`, repeatable: true };
        if (this.requestId) return await this.#http.json(call);
      } catch (error) {
        const isOnItsWay = this.#beginning.opening && this.lastEventId === 0;
        if (!(error instanceof TurnNotFound) || !isOnItsWay) throw error;
      }
      if (isOver) {
        await this.#beginning.onSettled?.();
        return undefined;
      }
      await wait(200);
    }
  }

  /**
   * Reads to the end.
   *
   * @returns {Promise<{ text: string, citations: Schemas["CitationView"][], end: Done | Failed | undefined }>}
   *   `end` is undefined when there was nothing more to tell
   */
  async answer() {
    /** @type {Schemas["CitationView"][]} */
    let citations = [];
    let end;
    for await (const event of this) {
      if (event.type === "citations") citations = event.data.items;
      if (event.type === "done" || event.type === "error") end = event;
    }
    return { text: this.text, citations, end };
  }

  get #path() {
    return `/chats/${encodeURIComponent(this.chatId)}/turns/${encodeURIComponent(this.requestId ?? "")}`;
  }

  /** @returns {AsyncGenerator<TurnEvent, void, void>} */
  async *#told() {
    const { signal } = this.#options;
    const leave = () => this.#leaving.abort();
    signal?.addEventListener("abort", leave);
    try {
      signal?.throwIfAborted();
      if (this.#isCancelled) return;
      this.#hasBegun = true;
      await this.#beginning.onSend?.();
      for (let failures = 0; ;) {
        const before = this.lastEventId;
        const error = yield* this.#connected(failures);
        signal?.throwIfAborted();
        if (!error || this.#leaving.signal.aborted) return;
        failures = this.lastEventId > before ? 1 : failures + 1;
        await this.#rested(error, failures);
        signal?.throwIfAborted();
      }
    } finally {
      this.isOver = true;
      signal?.removeEventListener("abort", leave);
    }
  }

  /**
   * What one connection tells.
   *
   * @param {number} failures
   * @returns {AsyncGenerator<TurnEvent, unknown, void>} why it ended too early; undefined at the turn's end
   */
  async *#connected(failures) {
    const opening = this.lastEventId > 0 ? undefined : this.#beginning.opening;
    const connection = new Connection(this.#leaving.signal, this.#patience.silence, secondsToSend(opening?.json));
    try {
      const response = await this.#opened(connection.signal, failures);
      this.#changed({ state: "open", after: this.lastEventId, failures });
      for await (const frame of connection.framesOf(response)) {
        const event = this.#news(frame);
        if (!event) continue;
        if (event.type === "stream_started") await this.#begun(event.data.request_id);
        yield event;
        if (event.type === "done" || event.type === "error") return undefined;
      }
      // The client had everything, or the server let go: the turn's own stream tells how it stands.
      return response.status === 204 ? undefined : new ConnectionLost("The stream ended before its turn");
    } catch (error) {
      if (this.#leaving.signal.aborted || connection.signal.aborted) return connection.signal.reason;
      return this.#judged(error);
    } finally {
      connection.close();
    }
  }

  /**
   * The stream from where the caller stands.
   *
   * @param {AbortSignal} signal
   * @param {number} failures
   * @returns {Promise<Response>}
   */
  async #opened(signal, failures) {
    const { opening, isRepeated } = this.#beginning;
    const headers = { accept: "text/event-stream" };
    if (!opening || this.lastEventId > 0) {
      const after = this.#toSkip === undefined ? this.lastEventId : 0;
      const position = { ...headers, "last-event-id": after ? String(after) : undefined };
      return this.#http.once({ method: "GET", path: `${this.#path}/stream`, headers: position, signal });
    }
    const call = { ...opening, signal };
    try {
      return await this.#http.once({ ...call, headers });
    } catch (error) {
      // An earlier try has made the turn. With a position, however early, its stream is told as it stands.
      const isMade = error instanceof Problem && error.status === 409 && (isRepeated || failures > 0);
      if (!isMade) throw error;
      return this.#http.once({ ...call, headers: { ...headers, "last-event-id": "0" } });
    }
  }

  /**
   * An event that the caller does not have yet. Pings have no number.
   *
   * @param {import("./sse.js").Frame} frame
   * @returns {TurnEvent | undefined}
   */
  #news(frame) {
    const event = /** @type {TurnEvent} */ (frame);
    if (event.type === "delta" && this.#toSkip) {
      const { content } = event.data;
      event.data = { ...event.data, content: content.slice(this.#toSkip) };
      this.#toSkip = Math.max(this.#toSkip - content.length, 0);
    }
    if (frame.id === undefined || frame.id <= this.lastEventId) return undefined;
    if (event.type === "delta") this.text += event.data.content;
    this.lastEventId = frame.id;
    return event;
  }

  /** @param {string} requestId */
  async #begun(requestId) {
    this.requestId = requestId;
    await this.#beginning.onSettled?.();
  }

  /**
   * A failure that may pass. Any other is thrown: the turn was refused, or cannot be read.
   *
   * @param {unknown} error
   */
  async #judged(error) {
    if (this.#http.mayBeRepeated(error)) return error;
    if (error instanceof InvalidRequest && this.#toSkip === undefined && this.#isWhole && this.lastEventId > 0) {
      // Away for so long that single events are no longer kept: the text comes as a whole.
      this.#toSkip = this.text.length;
      return error;
    }
    const isRefused = error instanceof Problem && error.status < 500 && error.status !== 401;
    if (isRefused && this.lastEventId === 0) await this.#beginning.onSettled?.();
    throw error;
  }

  /**
   * Waits before the next try.
   *
   * @param {unknown} error
   * @param {number} failures
   */
  async #rested(error, failures) {
    this.#changed({ state: "lost", after: this.lastEventId, failures, error });
    const { attempts, attemptsToBegin } = this.#patience;
    if (failures > (this.lastEventId > 0 || !this.#beginning.opening ? attempts : attemptsToBegin)) throw error;
    const { signal } = this.#leaving;
    if (isOffline()) await wait(Infinity, { signal, wakes: true });
    else await wait(delayOf(failures, retryAfterOf(error)), { signal, wakes: error instanceof ConnectionLost });
  }

  /** @param {ConnectionChange} change */
  #changed(change) {
    this.#options.onConnection?.(change);
  }
}

/**
 * Seconds that a slow network (10 kB/s) takes for a body.
 *
 * @param {unknown} json
 */
function secondsToSend(json) {
  return (JSON.stringify(json) ?? "").length / 10_000;
}
