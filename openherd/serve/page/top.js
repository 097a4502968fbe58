// The bar above the messages: which model answers, how full its context is, and the page's title.

import { titleOf } from "./conversation.js";
import { element } from "./elements.js";

export class TopBar {
  #chat;
  #model = document.getElementById("model");
  #context = document.getElementById("context");
  #title = document.getElementById("title");

  constructor(chat) {
    this.#chat = chat;
    this.#model.addEventListener("change", () => chat.configure({ model: this.#model.value }));
    for (const type of ["open", "list", "models", "ended"]) chat.addEventListener(type, () => this.show());
    this.show();
  }

  show() {
    const { models, model, current } = this.#chat;
    this.#model.disabled = !models;
    const options = models?.map(({ id }) => element("option", { value: id }, id)) ?? [element("option", {}, "loading…")];
    this.#model.replaceChildren(...options);
    if (models) this.#model.value = model;
    this.#showContext();
    this.#title.textContent = titleOf(current);
    document.title = current.title ? `${current.title} · openherd` : "openherd";
  }

  #showContext() {
    const { usage } = this.#chat.path.findLast(({ usage }) => usage) ?? {};
    const { context } = this.#chat;
    this.#context.hidden = !usage || !context;
    if (this.#context.hidden) return;
    const used = usage.prompt + usage.completion;
    const digits = (count) => count.toLocaleString("en");
    this.#context.textContent = `${digits(used)} of ${digits(context)} tokens`;
    this.#context.classList.toggle("nearly-full", used > 0.8 * context);
  }
}
