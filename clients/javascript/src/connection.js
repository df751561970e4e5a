/** One connection of a stream, which is given up when it says nothing for too long. */
import { ConnectionLost } from "./errors.js";
import { SseParser } from "./sse.js";
import { onReturn } from "./waiting.js";

/** A server that lives says something every 15 seconds; a page that was away asks a little sooner than usual. */
const SILENCE_AFTER_RETURN = 20_000;

export class Connection {
  #controller = new AbortController();
  #heardAt;
  #isListening = true;
  #outer;
  #silence;
  #timer;
  #deaf;

  /**
   * @param {AbortSignal} outer the caller's, who may leave
   * @param {number} silence seconds without a byte after which the connection is taken for dead
   * @param {number} sending seconds that the request may take besides, until there is an answer
   */
  constructor(outer, silence, sending) {
    this.#outer = outer;
    this.#silence = silence * 1000;
    this.#heardAt = Date.now() + sending * 1000;
    outer.addEventListener("abort", this.#left);
    if (outer.aborted) this.#left();
    // By the clock: timers stand still while a device sleeps.
    this.#timer = setInterval(() => this.#lookAt(this.#silence), Math.min(this.#silence / 4, 5_000));
    const atReturn = Math.min(this.#silence, SILENCE_AFTER_RETURN);
    this.#deaf = onReturn((reason) => this.#lookAt(reason === "online" ? 0 : atReturn));
  }

  /** Aborted when the caller leaves, or the connection is dead. */
  get signal() {
    return this.#controller.signal;
  }

  close() {
    clearInterval(this.#timer);
    this.#deaf();
    this.#outer.removeEventListener("abort", this.#left);
    this.#controller.abort(new ConnectionLost("The stream was left"));
  }

  /**
   * The events of an answer, until it ends or breaks.
   *
   * @param {Response} response
   * @returns {AsyncGenerator<import("./sse.js").Frame, void, void>}
   * @throws {ConnectionLost} when it breaks
   */
  async *framesOf(response) {
    if (response.status === 204) return;
    if (!response.headers.get("content-type")?.startsWith("text/event-stream")) {
      throw new ConnectionLost("The answer is no stream: something between here and the server has answered");
    }
    this.#isListening = false;
    const reader = response.body?.getReader();
    const parser = new SseParser();
    while (reader) {
      const { done, value } = await this.#read(reader);
      if (done) return;
      yield* parser.push(value);
    }
  }

  /** @param {ReadableStreamDefaultReader<Uint8Array>} reader */
  async #read(reader) {
    // Only while it is listened to is a connection silent.
    this.#heardAt = Date.now();
    this.#isListening = true;
    try {
      return await reader.read();
    } catch (cause) {
      throw new ConnectionLost("The stream was cut", { cause });
    } finally {
      this.#isListening = false;
    }
  }

  #left = () => this.#controller.abort(this.#outer.reason);

  /** @param {number} silence milliseconds */
  #lookAt(silence) {
    if (!this.#isListening || Date.now() - this.#heardAt < silence) return;
    this.#controller.abort(new ConnectionLost("The connection said nothing, or the network is another one"));
  }
}
