// A message of the person's: plain text, which can be edited and sent again.

import { copyButton, element, iconButton } from "./elements.js";
import { Versions } from "./versions.js";

export class QuestionView {
  isLast = false;
  #chat;
  #actions;
  #text;
  #foot;
  #versions;
  #editor = null;

  constructor(message, chat, actions) {
    this.message = message;
    this.#chat = chat;
    this.#actions = actions;
    this.#text = element("div", { class: "bubble" }, message.content);
    this.#versions = new Versions(message, chat, actions.choose);
    this.#foot = element(
      "div",
      { class: "message-foot" },
      this.#versions.root,
      copyButton("Copy the message", () => message.content),
      iconButton("edit", "Edit and send again", () => this.edit()),
    );
    const head = element("h2", { class: "unseen" }, "You wrote");
    this.root = element("article", { class: "question" }, head, this.#text, this.#foot);
  }

  show() {
    this.#versions.show();
  }

  focusVersions(side) {
    this.#versions.focus(side);
  }

  edit() {
    if (this.#editor) return;
    const area = element("textarea", { "aria-label": "Edit the message", rows: "3" });
    area.value = this.message.content;
    const send = () => {
      const text = area.value.trim();
      if (!text || this.#chat.isAnswering) return;
      this.#close();
      this.#actions.edit(this.message, text);
    };
    const cancel = () => {
      this.#close();
      this.#foot.querySelector("button[aria-label^=Edit]").focus();
    };
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") cancel();
      else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    this.#editor = element(
      "div",
      { class: "editor" },
      area,
      element("p", { class: "hint" }, "The conversation so far is kept as a version beside this one."),
      element(
        "div",
        { class: "actions" },
        element("button", { type: "button", class: "plain", click: cancel }, "Cancel"),
        element("button", { type: "button", class: "primary", click: send }, "Send"),
      ),
    );
    this.#text.replaceWith(this.#editor);
    this.#foot.hidden = true;
    area.focus();
    area.setSelectionRange(area.value.length, area.value.length);
  }

  #close() {
    this.#editor.replaceWith(this.#text);
    this.#editor = null;
    this.#foot.hidden = false;
  }
}
