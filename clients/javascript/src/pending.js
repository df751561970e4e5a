/**
 * Sends that the server has not acknowledged yet, kept where they survive a reload.
 *
 * @typedef {{
 *   content: string,
 *   request_id: string,
 *   attachment_ids?: string[],
 *   web_search?: { enabled: boolean },
 * }} SendBody
 * @typedef {{ chatId: string, requestId: string, createdAt: string, body: SendBody }} KeptSend
 * @typedef {Pick<Storage, "getItem" | "setItem" | "removeItem" | "key" | "length">} KeyValues what is used of a Storage
 */

/**
 * The sends of one account at one deployment. A storage that is full or forbidden keeps nothing, and refuses nothing.
 */
export class PendingSends {
  #storage;
  #prefix;

  /**
   * @param {KeyValues | undefined} storage
   * @param {() => Promise<string>} account whose sends these are
   */
  constructor(storage, account) {
    this.#storage = storage;
    this.#prefix = async () => `minichat.pending ${await account()} `;
  }

  /** @param {KeptSend} send */
  async keep(send) {
    const key = (await this.#prefix()) + send.requestId;
    this.#tried((storage) => storage.setItem(key, JSON.stringify(send)));
  }

  /** @param {string} requestId */
  async forget(requestId) {
    const key = (await this.#prefix()) + requestId;
    this.#tried((storage) => storage.removeItem(key));
  }

  /** @returns {Promise<KeptSend[]>} the oldest first */
  async all() {
    const prefix = await this.#prefix();
    const found =
      this.#tried((storage) =>
        Array.from({ length: storage.length }, (_, index) => storage.key(index))
          .filter((key) => key?.startsWith(prefix))
          .map((key) => this.#read(storage, /** @type {string} */ (key))),
      ) ?? [];
    return found.filter((send) => send !== undefined).sort((one, other) => (one.createdAt < other.createdAt ? -1 : 1));
  }

  /**
   * @param {KeyValues} storage
   * @param {string} key
   * @returns {KeptSend | undefined}
   */
  #read(storage, key) {
    try {
      const send = JSON.parse(storage.getItem(key) ?? "null");
      return typeof send?.body?.content === "string" ? send : undefined;
    } catch {
      return undefined;
    }
  }

  /**
   * @template T
   * @param {(storage: KeyValues) => T} use
   * @returns {T | undefined}
   */
  #tried(use) {
    try {
      return this.#storage && use(this.#storage);
    } catch {
      return undefined;
    }
  }
}

/** The page's own storage, where there is a page and it may have one. */
export function ownStorage() {
  try {
    return typeof document === "undefined" ? undefined : globalThis.localStorage;
  } catch {
    return undefined;
  }
}

/**
 * Whose token this is, so that another account of the same browser neither sees nor sends what this one wrote.
 *
 * @param {string} token
 * @returns {string}
 */
export function accountOf(token) {
  try {
    const [, payload = ""] = token.split(".");
    const { iss = "", sub = "" } = JSON.parse(atob(payload.replace(/-/g, "+").replace(/_/g, "/")));
    return `${iss} ${sub}`;
  } catch {
    return "";
  }
}
