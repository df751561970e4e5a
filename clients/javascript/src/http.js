/** Requests: the token, retries of what may be repeated, and refusals as errors. */
import { ConnectionLost, Problem, Unauthenticated, isTemporary, problemOf, textOf } from "./errors.js";
import { delayOf, wait } from "./waiting.js";

/**
 * @typedef {string | (() => string | Promise<string>)} Token
 * @typedef {{
 *   method: string,
 *   path: string,
 *   query?: Record<string, string | number | undefined> | undefined,
 *   headers?: Record<string, string | undefined>,
 *   json?: unknown,
 *   body?: BodyInit,
 *   signal?: AbortSignal | undefined,
 *   sentBy?: Sender | undefined,
 * }} Call A request below the base URL; `json` becomes its body.
 * @typedef {(url: string, init: RequestInit) => Promise<Response>} Sender
 */

/** A connection to one deployment, as one caller. */
export class Http {
  /** @type {Token | undefined} */
  #token;
  /** @type {Promise<string> | undefined} */
  #current;
  #fetch;

  /**
   * @param {{
   *   baseUrl: string,
   *   token?: Token | undefined,
   *   fetch?: typeof fetch | undefined,
   *   retries: number,
   *   longestWait: number,
   * }} options
   *   `retries` of what may be repeated; `longestWait`: seconds, a longer `Retry-After` is the caller's to wait for
   */
  constructor({ baseUrl, token, fetch = globalThis.fetch, retries, longestWait }) {
    this.baseUrl = baseUrl.replace(/\/+$/, "");
    this.retries = retries;
    this.longestWait = longestWait;
    this.#token = token;
    /** @type {Sender} Browsers refuse `fetch` as the method of another object. */
    this.#fetch = (url, init) => fetch(url, init);
  }

  /** The caller's token; a function is asked once, and again when its token has been refused. */
  async token() {
    const token = this.#token;
    if (typeof token !== "function") return token ?? "";
    // Several requests that are refused together ask once.
    this.#current ??= Promise.resolve().then(token);
    try {
      return await this.#current;
    } catch (error) {
      this.#current = undefined;
      // As `fetch` says that there is no network.
      throw error instanceof TypeError ? new ConnectionLost("The token cannot be renewed", { cause: error }) : error;
    }
  }

  /**
   * One request, and its successful answer.
   *
   * @param {Call} call
   * @returns {Promise<Response>}
   * @throws {Problem} when it is refused; a token that was is renewed once before
   * @throws {ConnectionLost} when there is no answer
   */
  async once(call) {
    const token = await this.token();
    try {
      return await this.#answered(call, token);
    } catch (error) {
      if (!(error instanceof Unauthenticated) || typeof this.#token !== "function") throw error;
      // Another request may have renewed it meanwhile.
      if ((await this.token()) === token) this.#current = undefined;
      return this.#answered(call, await this.token());
    }
  }

  /**
   * The body of a successful answer; undefined when it has none.
   *
   * @param {Call & { repeatable?: boolean }} call `repeatable`: doing it twice is doing it once
   * @returns {Promise<any>}
   */
  async json(call) {
    const repeatable = call.repeatable ?? call.method !== "POST";
    for (let failures = 0; ;) {
      try {
        const response = await this.once(call);
        return response.status === 204 ? undefined : await bodyOf(response);
      } catch (error) {
        call.signal?.throwIfAborted();
        // The first one deleted it, and its answer was lost.
        if (failures > 0 && call.method === "DELETE" && error instanceof Problem && error.status === 404) return;
        failures += 1;
        if (!repeatable || failures > this.retries || !this.mayBeRepeated(error)) throw error;
        const wakes = error instanceof ConnectionLost;
        await wait(delayOf(failures, retryAfterOf(error)), { signal: call.signal, wakes });
        call.signal?.throwIfAborted();
      }
    }
  }

  /**
   * Whether the same request may succeed soon.
   *
   * @param {unknown} error
   */
  mayBeRepeated(error) {
    return isTemporary(error) && (retryAfterOf(error) ?? 0) <= this.longestWait;
  }

  /**
   * @param {Call} call
   * @param {string} token
   */
  async #answered({ method, path, query = {}, headers = {}, json, body, signal, sentBy = this.#fetch }, token) {
    const url = `${this.baseUrl}${path}${queryOf(query)}`;
    const sent = new Headers(token ? { authorization: `Bearer ${token}` } : {});
    if (json !== undefined) sent.set("content-type", "application/json");
    for (const [name, value] of Object.entries(headers)) if (value !== undefined) sent.set(name, value);
    const content = json === undefined ? body : JSON.stringify(json);
    let response;
    try {
      response = await sentBy(url, { method, headers: sent, body: content ?? null, signal: signal ?? null });
    } catch (cause) {
      if (signal?.aborted) throw signal.reason;
      throw new ConnectionLost("The server cannot be reached, or does not let this page call", { cause });
    }
    // A browser takes a status line that was cut, `HTTP/1.1 4`, for a status.
    if (response.status < 200) throw new ConnectionLost("The answer was cut");
    if (!response.ok) throw await problemOf(response);
    return response;
  }
}

/** @param {Record<string, string | number | undefined>} query */
function queryOf(query) {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== undefined) given.set(name, String(value));
  return `${given}` && `?${given}`;
}

/**
 * @param {Response} response
 * @returns {Promise<any>}
 */
async function bodyOf(response) {
  const text = await textOf(response);
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new ConnectionLost("The answer is no JSON: it was cut, or something else has answered", { cause });
  }
}

/**
 * @param {unknown} error
 * @returns {number | undefined} seconds
 */
export function retryAfterOf(error) {
  return error instanceof Problem ? error.retryAfter : undefined;
}

/** A random UUID, also on a page without TLS, where `crypto.randomUUID` is not there. */
export function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
