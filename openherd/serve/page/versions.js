// "2 of 3" with a step to each side, where a message has versions beside it.

import { versionsOf } from "./conversation.js";
import { element, iconButton } from "./elements.js";

export class Versions {
  root = element("span", { class: "versions" });
  #message;
  #chat;
  #chosen;
  #shown = "";

  // `chosen` is called with the version to show and with the side that was pressed.
  constructor(message, chat, chosen) {
    this.#message = message;
    this.#chat = chat;
    this.#chosen = chosen;
  }

  show() {
    const all = versionsOf(this.#chat.current, this.#message);
    const place = all.indexOf(this.#message);
    const shown = `${place + 1}/${all.length}`;
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.root.hidden = all.length < 2;
    this.root.replaceChildren(
      this.#step("left", "The version before", all[place - 1]),
      element("span", { "aria-label": `Version ${place + 1} of ${all.length}` }, shown),
      this.#step("right", "The next version", all[place + 1]),
    );
  }

  // After a step, where the one who pressed it goes on.
  focus(side) {
    const buttons = [...this.root.querySelectorAll("button")];
    const wanted = side === "left" ? buttons[0] : buttons[1];
    (wanted.disabled ? buttons.find((button) => !button.disabled) : wanted)?.focus();
  }

  #step(side, label, version) {
    return iconButton(side, label, () => this.#chosen(version, side), { disabled: !version });
  }
}
