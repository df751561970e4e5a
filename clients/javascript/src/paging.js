/**
 * @template T
 * @typedef {{ items: T[], page_info: import("./schema.js").components["schemas"]["PageInfo"] }} Page one page of a list
 */

/**
 * The items of every page.
 *
 * @template T
 * @param {(cursor: { cursor?: string }) => Promise<Page<T>>} page
 * @returns {AsyncGenerator<T, void, void>}
 */
export async function* paged(page) {
  for (let cursor = /** @type {{ cursor?: string }} */ ({}); ;) {
    const { items, page_info } = await page(cursor);
    yield* items;
    if (page_info.next_cursor === null) return;
    cursor = { cursor: page_info.next_cursor };
  }
}
