/**
 * A client of Mini Chat for pages, workers, Node 20 and later, and Deno.
 *
 * @typedef {import("./schema.js").components["schemas"]} Schemas
 * @typedef {import("./turn.js").TurnEvent} TurnEvent
 * @typedef {import("./turn.js").ConnectionChange} ConnectionChange
 * @typedef {import("./turn.js").FollowOptions} FollowOptions
 * @typedef {import("./pending.js").KeptSend} KeptSend
 */

/**
 * @template T
 * @typedef {import("./paging.js").Page<T>} Page
 */

/**
 * @typedef {{
 *   baseUrl: string,
 *   token?: import("./http.js").Token | undefined,
 *   fetch?: typeof globalThis.fetch | undefined,
 *   storage?: import("./pending.js").KeyValues | null | undefined,
 *   account?: string | undefined,
 *   retries?: number,
 *   longestWait?: number,
 *   attempts?: number,
 *   attemptsToBegin?: number,
 *   silence?: number,
 * }} Options
 *   - `baseUrl`: up to and with `/mini-chat/v1`
 *   - `token`: a bearer token, or a function that gives one; it is asked again when its token is refused
 *   - `storage`: where pending sends are kept; by default `localStorage` where there is one, `null` for nowhere
 *   - `account`: whose pending sends these are; by default issuer and subject of the token
 *   - `retries` (4) of calls that may be repeated; `longestWait` (60): a longer `Retry-After`, in seconds, is thrown
 *   - `attempts` (30) in a row without a new event, before a stream is given up, and `attemptsToBegin` (8) before its
 *     first; `silence` (45): seconds without a byte after which a connection is taken for dead
 *
 * @typedef {{ content: string, attachmentIds?: string[], webSearch?: boolean }} Message
 * @typedef {{ limit?: number, cursor?: string, filter?: string, signal?: AbortSignal }} ListOptions
 * @typedef {ListOptions & { select?: string[], orderBy?: string }} MessageListOptions
 */
import { Attachments } from "./attachments.js";
import { NotLatestTurn, TurnNotFound } from "./errors.js";
import { Http, uuid } from "./http.js";
import { paged } from "./paging.js";
import { PendingSends, accountOf, ownStorage } from "./pending.js";
import { Turn } from "./turn.js";

export * from "./errors.js";
export { Turn };

/** One caller of one deployment. */
export class MiniChat {
  #http;
  #patience;
  #pending;

  /** @param {Options} options */
  constructor({ baseUrl, token, fetch, storage = ownStorage(), account, ...patience }) {
    const { retries = 4, longestWait = 60, attempts = 30, attemptsToBegin = 8, silence = 45 } = patience;
    this.#http = new Http({ baseUrl, token, fetch, retries, longestWait });
    this.#patience = { attempts, attemptsToBegin, silence };
    const whose = async () => `${this.#http.baseUrl} ${account ?? accountOf(await this.#http.token())}`;
    this.#pending = new PendingSends(storage ?? undefined, whose);
    this.chats = new Chats(this.#http);
    this.messages = new Messages(this.#http);
    this.attachments = new Attachments(this.#http);
    this.models = new Models(this.#http);
  }

  /**
   * Sends a message and streams its answer. It is sent when somebody reads, and however often it has to be tried it is
   * one turn. Until the server has said that it has it, it is among `pending()`.
   *
   * @param {string} chatId
   * @param {string | Message} message
   * @param {FollowOptions & { requestId?: string }} [options] `requestId` of a send that was tried before
   * @returns {Turn}
   */
  send(chatId, message, { requestId, ...options } = {}) {
    const { content, attachmentIds, webSearch } = typeof message === "string" ? { content: message } : message;
    const body = {
      content,
      request_id: requestId ?? uuid(),
      ...(attachmentIds?.length && { attachment_ids: attachmentIds }),
      ...(webSearch !== undefined && { web_search: { enabled: webSearch } }),
    };
    const kept = { chatId, requestId: body.request_id, createdAt: new Date().toISOString(), body };
    return this.#sent(kept, options, requestId !== undefined);
  }

  /**
   * Sends that the server has not acknowledged: of a page that was closed or reloaded, or one that is sending now.
   *
   * @returns {Promise<PendingSend[]>} the oldest first
   */
  async pending() {
    const found = await this.#pending.all();
    return found.map((kept) => ({
      ...kept,
      content: kept.body.content,
      send: (options = {}) => this.#sent(kept, options, true),
      discard: () => this.#pending.forget(kept.requestId),
    }));
  }

  /**
   * The stream of a turn, from its start or after an event, to its end. Where the caller has everything, there is
   * nothing more to tell.
   *
   * @param {string} chatId
   * @param {string} requestId
   * @param {FollowOptions & { after?: number }} [options] `after`: the id of the last event that the caller has
   * @returns {Turn}
   */
  resume(chatId, requestId, { after = 0, ...options } = {}) {
    return new Turn(this.#http, { chatId, requestId, after }, options, this.#patience);
  }

  /**
   * Answers the latest turn's message again; the new turn takes its place.
   *
   * @param {string} chatId
   * @param {string} requestId
   * @param {FollowOptions} [options]
   * @returns {Turn}
   */
  retry(chatId, requestId, options = {}) {
    const opening = { method: "POST", path: `${turnPath(chatId, requestId)}/retry` };
    return new Turn(this.#http, { chatId, opening }, options, this.#patience);
  }

  /**
   * Replaces the latest turn's message and answers the new one.
   *
   * @param {string} chatId
   * @param {string} requestId
   * @param {string} content
   * @param {FollowOptions} [options]
   * @returns {Turn}
   */
  edit(chatId, requestId, content, options = {}) {
    const opening = { method: "PATCH", path: turnPath(chatId, requestId), json: { content } };
    return new Turn(this.#http, { chatId, opening }, options, this.#patience);
  }

  /**
   * Where a turn stands; authoritative, whatever a stream showed.
   *
   * @param {string} chatId
   * @param {string} requestId
   * @returns {Promise<Schemas["TurnStatus"]>}
   */
  turn(chatId, requestId) {
    return this.#http.json({ method: "GET", path: turnPath(chatId, requestId) });
  }

  /**
   * Ends a turn, whoever follows it; it keeps the text that it has.
   *
   * @param {string} chatId
   * @param {string} requestId
   * @returns {Promise<Schemas["TurnStatus"]>}
   */
  cancel(chatId, requestId) {
    return this.#http.json({ method: "POST", path: `${turnPath(chatId, requestId)}/cancel`, repeatable: true });
  }

  /**
   * Deletes the chat's latest turn with its messages; the one before it is the latest again. One that is deleted
   * already is no error.
   *
   * @param {string} chatId
   * @param {string} requestId
   * @returns {Promise<void>}
   */
  async deleteTurn(chatId, requestId) {
    try {
      await this.#http.json({ method: "DELETE", path: turnPath(chatId, requestId) });
    } catch (error) {
      if (!(error instanceof NotLatestTurn) || !(await this.#isGone(chatId, requestId))) throw error;
    }
  }

  /** @returns {Promise<Schemas["QuotaStatus"]>} what is left, per bucket and period */
  quota() {
    return this.#http.json({ method: "GET", path: "/quota/status" });
  }

  /**
   * What the caller has used, day by day.
   *
   * @param {{ from: string, to: string }} days in UTC, as `2026-11-27`
   * @returns {Promise<Schemas["UsageReport"]>}
   */
  usage({ from, to }) {
    return this.#http.json({ method: "GET", path: "/usage", query: { from, to } });
  }

  /**
   * Any other operation below the base URL, with the same token, retries and errors.
   *
   * @param {string} method
   * @param {string} path
   * @param {{
   *   query?: Record<string, string | number | undefined>,
   *   json?: unknown,
   *   headers?: Record<string, string>,
   *   signal?: AbortSignal,
   *   repeatable?: boolean,
   * }} [options]
   *   `repeatable`: doing it twice is doing it once; by default everything but POST
   * @returns {Promise<any>} the body; undefined without one
   */
  request(method, path, options = {}) {
    return this.#http.json({ method, path, ...options });
  }

  /**
   * @param {string} chatId
   * @param {string} requestId
   */
  async #isGone(chatId, requestId) {
    try {
      await this.turn(chatId, requestId);
      return false;
    } catch (error) {
      return error instanceof TurnNotFound;
    }
  }

  /**
   * @param {KeptSend} kept
   * @param {FollowOptions} options
   * @param {boolean} isRepeated
   */
  #sent(kept, options, isRepeated) {
    const { chatId, requestId } = kept;
    const beginning = {
      chatId,
      requestId,
      isRepeated,
      opening: { method: "POST", path: `${chatPath(chatId)}/messages:stream`, json: kept.body },
      onSend: () => this.#pending.keep(kept),
      onSettled: () => this.#pending.forget(requestId),
    };
    return new Turn(this.#http, beginning, options, this.#patience);
  }
}

/**
 * @typedef {KeptSend & {
 *   content: string,
 *   send: (options?: FollowOptions) => Turn,
 *   discard: () => Promise<void>,
 * }} PendingSend
 */

class Chats {
  #http;

  /** @param {Http} http */
  constructor(http) {
    this.#http = http;
  }

  /**
   * @param {{
   *   title?: string,
   *   model?: string,
   *   isTemporary?: boolean,
   *   idempotencyKey?: string,
   *   signal?: AbortSignal,
   * }} [wish]
   * @returns {Promise<Schemas["ChatDetail"]>}
   */
  create({ title, model, isTemporary, idempotencyKey = uuid(), signal } = {}) {
    const json = { title, model, is_temporary: isTemporary };
    const headers = { "idempotency-key": idempotencyKey };
    return this.#http.json({ method: "POST", path: "/chats", json, headers, signal, repeatable: true });
  }

  /**
   * @param {ListOptions} [options]
   * @returns {Promise<Page<Schemas["ChatDetail"]>>} the most recently active first
   */
  list({ limit, cursor, filter, signal } = {}) {
    return this.#http.json({ method: "GET", path: "/chats", query: { limit, cursor, $filter: filter }, signal });
  }

  /**
   * Every chat, over all pages.
   *
   * @param {Omit<ListOptions, "cursor">} [options]
   */
  each(options = {}) {
    return paged((cursor) => this.list({ ...options, ...cursor }));
  }

  /**
   * @param {string} chatId
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<Schemas["ChatDetail"]>}
   */
  get(chatId, { signal } = {}) {
    return this.#http.json({ method: "GET", path: chatPath(chatId), signal });
  }

  /**
   * @param {string} chatId
   * @param {{ title: string }} change
   * @returns {Promise<Schemas["ChatDetail"]>}
   */
  update(chatId, { title }) {
    return this.#http.json({ method: "PATCH", path: chatPath(chatId), json: { title } });
  }

  /**
   * @param {string} chatId
   * @returns {Promise<void>}
   */
  delete(chatId) {
    return this.#http.json({ method: "DELETE", path: chatPath(chatId) });
  }
}

class Messages {
  #http;

  /** @param {Http} http */
  constructor(http) {
    this.#http = http;
  }

  /**
   * @param {string} chatId
   * @param {MessageListOptions} [options]
   * @returns {Promise<Page<Schemas["MessageView"]>>} in the order of the conversation, unless `orderBy` says otherwise
   */
  list(chatId, { limit, cursor, filter, select, orderBy, signal } = {}) {
    const query = { limit, cursor, $filter: filter, $select: select?.join(), $orderby: orderBy };
    return this.#http.json({ method: "GET", path: `${chatPath(chatId)}/messages`, query, signal });
  }

  /**
   * Every message of a chat, over all pages.
   *
   * @param {string} chatId
   * @param {Omit<MessageListOptions, "cursor">} [options]
   */
  each(chatId, options = {}) {
    return paged((cursor) => this.list(chatId, { ...options, ...cursor }));
  }

  /**
   * Likes or dislikes an answer, or takes that back.
   *
   * @param {string} chatId
   * @param {string} messageId
   * @param {"like" | "dislike" | null} reaction
   * @returns {Promise<Schemas["ReactionView"] | undefined>}
   */
  react(chatId, messageId, reaction) {
    const path = `${chatPath(chatId)}/messages/${encodeURIComponent(messageId)}/reaction`;
    if (reaction === null) return this.#http.json({ method: "DELETE", path });
    return this.#http.json({ method: "PUT", path, json: { reaction } });
  }
}

class Models {
  #http;

  /** @param {Http} http */
  constructor(http) {
    this.#http = http;
  }

  /** @returns {Promise<Schemas["ModelView"][]>} every model that may be chosen, the best first */
  async list() {
    return (await this.#http.json({ method: "GET", path: "/models" })).items;
  }

  /**
   * @param {string} modelId
   * @returns {Promise<Schemas["ModelView"]>}
   */
  get(modelId) {
    return this.#http.json({ method: "GET", path: `/models/${modelId.split("/").map(encodeURIComponent).join("/")}` });
  }
}

/** @param {string} chatId */
function chatPath(chatId) {
  return `/chats/${encodeURIComponent(chatId)}`;
}

/**
 * @param {string} chatId
 * @param {string} requestId
 */
function turnPath(chatId, requestId) {
  return `${chatPath(chatId)}/turns/${encodeURIComponent(requestId)}`;
}
