// Answers that stop after their first word until they are released: MINICHAT_PROVIDER is the scripted provider.

export class Held {
  #name = crypto.randomUUID();

  /** @param {number} words */
  constructor(words) {
    this.content = `[[words:${words}]][[delay:1]][[hold:${this.#name}]]`;
    this.text = Array.from({ length: words }, (_, index) => `word${index + 1}`).join(" ");
  }

  async release() {
    await fetch(`${process.env.MINICHAT_PROVIDER}/control/release/${this.#name}`, { method: "POST" });
  }
}
