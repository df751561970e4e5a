/** Waiting: for the next try, and for the moment at which a device or a network comes back. */

/**
 * What a page hears when it may be reached again. Outside of pages there are no such events, and nothing is heard.
 *
 * @param {(reason: "online" | "visible") => void} listener
 * @returns {() => void} stops listening
 */
export function onReturn(listener) {
  const online = () => listener("online");
  const visible = () => {
    if (globalThis.document?.visibilityState === "visible") listener("visible");
  };
  // Workers have `online`, but no document.
  globalThis.addEventListener?.("online", online);
  globalThis.document?.addEventListener("visibilitychange", visible);
  return () => {
    globalThis.removeEventListener?.("online", online);
    globalThis.document?.removeEventListener("visibilitychange", visible);
  };
}

/** Whether the device knows that it has no network. Without such knowledge it may have one. */
export function isOffline() {
  return globalThis.navigator?.onLine === false;
}

/**
 * Milliseconds before another try: 250 to 10,000, doubled each time, less up to a half so that clients do not come all
 * at once; or what the server asked for.
 *
 * @param {number} failures how many tries have failed, 1 at least
 * @param {number} [retryAfter] seconds
 */
export function delayOf(failures, retryAfter) {
  if (retryAfter !== undefined) return retryAfter * 1000 + Math.random() * 250;
  return Math.min(250 * 2 ** (failures - 1), 10_000) * (1 - Math.random() / 2);
}

/**
 * Waits. Ends early when `signal` is aborted, and, where `wakes`, when the page or the network comes back.
 *
 * @param {number} milliseconds `Infinity` waits for the network alone
 * @param {{ signal?: AbortSignal | undefined, wakes?: boolean }} [options]
 * @returns {Promise<void>}
 */
export function wait(milliseconds, { signal, wakes = false } = {}) {
  return new Promise((resolve) => {
    const timer = milliseconds === Infinity ? undefined : setTimeout(over, milliseconds);
    const deaf = wakes ? onReturn(over) : undefined;
    signal?.addEventListener("abort", over);
    function over() {
      clearTimeout(timer);
      deaf?.();
      signal?.removeEventListener("abort", over);
      resolve();
    }
    if (signal?.aborted) over();
  });
}
