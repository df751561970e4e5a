/** Which of the panels at the side is open. */
import { computed, ofBrowser, signal } from "./lib.js";

/** `happened`, `quota` or null */
export const panel = signal(ofBrowser.get("panel"));
export const isPanelOpen = computed(() => panel.value !== null);

export function showPanel(name) {
  panel.value = name;
  ofBrowser.set("panel", name);
}
