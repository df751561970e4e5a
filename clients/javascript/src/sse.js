/**
 * Server-sent events from bytes that may be cut anywhere: in an event, in a line, in a character.
 *
 * @typedef {{ id: number | undefined, type: string, data: any }} Frame
 */

/** Collects bytes and gives the events that are whole. What a cut leaves half is never an event. */
export class SseParser {
  #decoder = new TextDecoder();
  #rest = "";
  /** @type {{ id: number | undefined, type: string, data: string[] }} */
  #frame = { id: undefined, type: "message", data: [] };

  /**
   * @param {Uint8Array} bytes
   * @returns {Frame[]}
   */
  push(bytes) {
    // Only these end a line; JSON may have U+2028 as it is.
    const lines = (this.#rest + this.#decoder.decode(bytes, { stream: true })).split("\n");
    this.#rest = lines.pop() ?? "";
    /** @type {Frame[]} */
    const whole = [];
    for (const line of lines) {
      const frame = this.#line(line.endsWith("\r") ? line.slice(0, -1) : line);
      if (frame) whole.push(frame);
    }
    return whole;
  }

  /**
   * @param {string} line
   * @returns {Frame | undefined}
   */
  #line(line) {
    if (line === "") return this.#ended();
    const [, name = "", value = ""] = /^([^:]*):? ?(.*)$/su.exec(line) ?? [];
    if (name === "data") this.#frame.data.push(value);
    else if (name === "event") this.#frame.type = value;
    else if (name === "id" && /^\d+$/.test(value)) this.#frame.id = Number(value);
    return undefined;
  }

  /** @returns {Frame | undefined} */
  #ended() {
    const { id, type, data } = this.#frame;
    this.#frame = { id: undefined, type: "message", data: [] };
    const text = data.join("\n");
    return text.trim() === "" ? undefined : { id, type, data: JSON.parse(text) };
  }
}
