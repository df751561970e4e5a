/**
 * Files of a chat.
 *
 * @typedef {import("./schema.js").components["schemas"]} Schemas
 * @typedef {import("./paging.js").Page<Schemas["AttachmentDetail"]>} AttachmentPage
 * @typedef {Schemas["AttachmentDetail"]} Attachment
 * @typedef {{
 *   filename?: string,
 *   onProgress?: ((sent: number, total: number) => void) | undefined,
 *   idempotencyKey?: string,
 *   wait?: boolean,
 *   signal?: AbortSignal | undefined,
 * }} UploadOptions `filename` of a Blob without a name; `onProgress` hears of bytes, in browsers as they leave;
 *   `wait` (by default) until the file is `ready` or `failed`
 */
import { ConnectionLost, problemOf } from "./errors.js";
import { uuid } from "./http.js";
import { paged } from "./paging.js";

/** What fits into a request of the API; a larger file is posted to a form that the API gives. */
const LARGEST_IN_A_REQUEST = 4_600_000;
/** Seconds that one look at a file may wait; the server may answer sooner. */
const LOOK = { prefer: "wait=15" };

export class Attachments {
  #http;

  /** @param {import("./http.js").Http} http */
  constructor(http) {
    this.#http = http;
  }

  /**
   * Gives a file to a chat. Repeating it with the same `idempotencyKey` gives the same attachment.
   *
   * @param {string} chatId
   * @param {Blob} file a File, or a Blob with `filename` among the options
   * @param {UploadOptions} [options]
   * @returns {Promise<Attachment>}
   */
  async upload(chatId, file, options = {}) {
    const { idempotencyKey = uuid(), wait = true, signal } = options;
    const filename = options.filename ?? ("name" in file ? String(file.name) : "file");
    const sent = { file, filename, idempotencyKey, signal, sentBy: senderWith(file.size, options.onProgress) };
    const isSmall = file.size <= LARGEST_IN_A_REQUEST;
    const attachment = await (isSmall ? this.#inARequest(chatId, sent) : this.#byForm(chatId, sent));
    return wait ? this.#settled(chatId, attachment, signal) : attachment;
  }

  /**
   * @param {string} chatId
   * @param {{ limit?: number, cursor?: string, signal?: AbortSignal }} [options]
   * @returns {Promise<AttachmentPage>} the last added first
   */
  list(chatId, { limit, cursor, signal } = {}) {
    return this.#http.json({ method: "GET", path: of(chatId), query: { limit, cursor }, signal });
  }

  /**
   * Every attachment of a chat, over all pages.
   *
   * @param {string} chatId
   * @param {{ limit?: number, signal?: AbortSignal }} [options]
   */
  each(chatId, options = {}) {
    return paged((cursor) => this.list(chatId, { ...options, ...cursor }));
  }

  /**
   * @param {string} chatId
   * @param {string} attachmentId
   * @param {{ wait?: boolean, signal?: AbortSignal }} [options] `wait` until it is `ready` or `failed`
   * @returns {Promise<Attachment>}
   */
  async get(chatId, attachmentId, { wait = false, signal } = {}) {
    const found = await this.#http.json({ method: "GET", path: of(chatId, attachmentId), signal });
    return wait ? this.#settled(chatId, found, signal) : found;
  }

  /**
   * @param {string} chatId
   * @param {string} attachmentId
   * @returns {Promise<void>}
   */
  delete(chatId, attachmentId) {
    return this.#http.json({ method: "DELETE", path: of(chatId, attachmentId) });
  }

  /**
   * @param {string} chatId
   * @param {Sent} sent
   * @returns {Promise<Attachment>}
   */
  #inARequest(chatId, { file, filename, idempotencyKey, signal, sentBy }) {
    const headers = { "idempotency-key": idempotencyKey };
    const body = formOf({}, file, filename);
    return this.#http.json({ method: "POST", path: of(chatId), headers, body, signal, sentBy, repeatable: true });
  }

  /**
   * @param {string} chatId
   * @param {Sent} sent
   * @returns {Promise<Attachment>}
   */
  async #byForm(chatId, { file, filename, idempotencyKey, signal, sentBy = fetch }) {
    const json = { filename, content_type: file.type, size_bytes: file.size };
    const headers = { "idempotency-key": idempotencyKey };
    const call = { method: "POST", path: `${of(chatId)}/uploads`, headers, json, signal, repeatable: true };
    /** @type {Schemas["AttachmentUpload"]} */
    const { upload, ...attachment } = await this.#http.json(call);
    let response;
    try {
      const body = formOf(upload.fields, file, filename);
      response = await sentBy(upload.url, { method: "POST", body, signal: signal ?? null });
    } catch (cause) {
      if (signal?.aborted) throw signal.reason;
      throw new ConnectionLost("The file could not be sent; the same key sends it again", { cause });
    }
    if (!response.ok) throw await problemOf(response);
    return attachment;
  }

  /**
   * @param {string} chatId
   * @param {Attachment} attachment
   * @param {AbortSignal | undefined} signal
   * @returns {Promise<Attachment>}
   */
  async #settled(chatId, attachment, signal) {
    while (attachment.status !== "ready" && attachment.status !== "failed") {
      attachment = await this.#http.json({ method: "GET", path: of(chatId, attachment.id), headers: LOOK, signal });
    }
    return attachment;
  }
}

/**
 * @typedef {{
 *   file: Blob,
 *   filename: string,
 *   idempotencyKey: string,
 *   signal: AbortSignal | undefined,
 *   sentBy: import("./http.js").Sender | undefined,
 * }} Sent
 */

/**
 * @param {string} chatId
 * @param {string} [attachmentId]
 */
function of(chatId, attachmentId) {
  const attachments = `/chats/${encodeURIComponent(chatId)}/attachments`;
  return attachmentId === undefined ? attachments : `${attachments}/${encodeURIComponent(attachmentId)}`;
}

/**
 * @param {Record<string, string>} fields
 * @param {Blob} file
 * @param {string} filename
 */
function formOf(fields, file, filename) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.set(name, value);
  form.set("file", file, filename);
  return form;
}

/**
 * Sends and tells how far it is. `fetch` does not know; browsers have an older way that does.
 *
 * @param {number} total
 * @param {((sent: number, total: number) => void) | undefined} onProgress
 * @returns {import("./http.js").Sender | undefined}
 */
function senderWith(total, onProgress) {
  if (!onProgress) return undefined;
  onProgress(0, total);
  if (typeof XMLHttpRequest === "undefined") {
    return async (url, init) => {
      const response = await fetch(url, init);
      onProgress(total, total);
      return response;
    };
  }
  return (url, init) => sentByXhr(url, init, total, onProgress);
}

/**
 * @param {string} url
 * @param {RequestInit} init
 * @param {number} total
 * @param {(sent: number, total: number) => void} onProgress
 * @returns {Promise<Response>}
 */
function sentByXhr(url, init, total, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(init.method ?? "POST", url);
    request.responseType = "text";
    new Headers(init.headers).forEach((value, name) => request.setRequestHeader(name, value));
    // What leaves is the form, a little more than the file.
    request.upload.onprogress = ({ loaded }) => onProgress(Math.min(loaded, total), total);
    request.onload = () => resolve(answerOf(request));
    request.onerror = () => reject(new TypeError("The request failed"));
    const abort = () => request.abort();
    request.onabort = () => reject(init.signal?.reason);
    init.signal?.addEventListener("abort", abort);
    request.onloadend = () => init.signal?.removeEventListener("abort", abort);
    request.send(/** @type {FormData} */ (init.body));
    if (init.signal?.aborted) abort();
  });
}

/** @param {XMLHttpRequest} request */
function answerOf(request) {
  const headers = new Headers();
  for (const line of request.getAllResponseHeaders().trim().split("\r\n")) {
    const [name = "", value = ""] = line.split(/: ?(.*)/s);
    if (name) headers.append(name, value);
  }
  return new Response(request.status === 204 ? null : request.responseText, { status: request.status, headers });
}
