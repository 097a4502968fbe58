// What can be done with a whole conversation: rename, export, delete. WAI-ARIA's pattern of a menu button.

import { titleOf } from "./conversation.js";
import { ask } from "./dialogs.js";
import { exportJson, exportMarkdown } from "./export.js";

const MARGIN = 8; // pixels

export class ConversationMenu {
  #chat;
  #root = document.getElementById("menu");
  #conversation = null;
  #anchor = null;

  constructor(chat) {
    this.#chat = chat;
    const button = document.getElementById("current-menu");
    button.addEventListener("click", () => this.open(chat.current, button));
    for (const type of ["open", "messages"]) {
      chat.addEventListener(type, () => (button.disabled = !chat.current.leaf));
    }
    this.#root.addEventListener("click", (event) => this.#chosen(event.target.closest("button")?.dataset.action));
    this.#root.addEventListener("keydown", (event) => this.#moved(event));
  }

  open(conversation, anchor) {
    this.#conversation = conversation;
    this.#anchor = anchor;
    this.#root.showPopover();
    const from = anchor.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.#root;
    const left = Math.min(Math.max(from.right - width, MARGIN), innerWidth - width - MARGIN);
    const below = from.bottom + 4;
    const top = below + height > innerHeight - MARGIN ? from.top - height - 4 : below;
    Object.assign(this.#root.style, { left: `${left}px`, top: `${Math.max(top, MARGIN)}px` });
    this.#items[0].focus();
  }

  get #items() {
    return [...this.#root.querySelectorAll("button")];
  }

  #moved(event) {
    const place = this.#items.indexOf(document.activeElement);
    const last = this.#items.length - 1;
    const next = {
      ArrowDown: place === last ? 0 : place + 1,
      ArrowUp: place <= 0 ? last : place - 1,
      Home: 0,
      End: last,
    }[event.key];
    if (next !== undefined) {
      event.preventDefault();
      this.#items[next].focus();
    } else if (event.key === "Tab") this.#close();
  }

  #close() {
    this.#root.hidePopover();
    this.#anchor?.focus();
  }

  async #chosen(action) {
    if (!action) return;
    this.#close();
    const conversation = this.#conversation;
    if (action === "markdown") exportMarkdown(conversation);
    else if (action === "json") exportJson(conversation);
    else if (action === "rename") {
      const form = await ask("rename", { title: titleOf(conversation) });
      const title = form?.get("title").trim();
      if (title) this.#chat.rename(conversation, title);
    } else if (action === "delete") {
      document.getElementById("delete-name").textContent = titleOf(conversation);
      if (await ask("delete")) this.#chat.remove(conversation);
    }
  }
}
