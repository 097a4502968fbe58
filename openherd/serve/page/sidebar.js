// The list of conversations: newest first, by day, and searched by any word in them. On a phone it is a drawer.

import { titleOf } from "./conversation.js";
import { element, iconButton } from "./elements.js";

const DAY_MS = 86_400_000;

export class Sidebar {
  #chat;
  #menu;
  #root = document.getElementById("sidebar");
  #list = document.getElementById("conversations");
  #find = document.getElementById("find");
  #nothing = document.getElementById("nothing-found");
  #backdrop = document.getElementById("backdrop");
  #opener = document.getElementById("open-sidebar");
  #narrow = matchMedia("(max-width: 52rem)");

  constructor(chat, menu) {
    this.#chat = chat;
    this.#menu = menu;
    document.getElementById("new-chat").addEventListener("click", () => {
      chat.start();
      this.toggle(false);
    });
    this.#find.addEventListener("input", () => this.show());
    this.#opener.addEventListener("click", () => this.toggle(true));
    document.getElementById("close-sidebar").addEventListener("click", () => this.toggle(false));
    this.#backdrop.addEventListener("click", () => this.toggle(false));
    this.#root.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.#narrow.matches && this.#isOpen) this.toggle(false);
    });
    this.#narrow.addEventListener("change", () => this.toggle(false));
    for (const type of ["list", "open"]) chat.addEventListener(type, () => this.show());
    this.toggle(false);
  }

  show() {
    const sought = this.#find.value.trim().toLowerCase();
    const found = this.#chat.newestFirst.filter((conversation) => !sought || has(conversation, sought));
    const focused = this.#list.contains(document.activeElement) ? document.activeElement.dataset.id : null;
    const items = [];
    let day = null;
    for (const conversation of found) {
      if (dayOf(conversation) !== day) {
        day = dayOf(conversation);
        items.push(element("li", { class: "day" }, day));
      }
      items.push(this.#item(conversation));
    }
    this.#list.replaceChildren(...items);
    this.#nothing.hidden = !sought || found.length > 0;
    if (focused) this.#list.querySelector(`[data-id="${focused}"]`)?.focus();
  }

  // The conversation above (-1) or below (1) the one that is shown.
  step(by) {
    const all = this.#chat.newestFirst;
    const place = all.indexOf(this.#chat.current);
    const next = all[place < 0 ? 0 : place + by];
    if (next) this.#chat.open(next.id);
  }

  // A narrow screen's list comes and goes; a wide one's stays.
  toggle(open = !this.#isOpen) {
    const isDrawer = this.#narrow.matches;
    const wasOpen = this.#isOpen;
    document.body.classList.toggle("with-list", isDrawer && open);
    this.#root.inert = isDrawer && !open;
    document.querySelector("main").inert = isDrawer && open;
    this.#backdrop.hidden = !(isDrawer && open);
    this.#opener.setAttribute("aria-expanded", String(isDrawer && open));
    if (isDrawer && open) document.getElementById("close-sidebar").focus();
    else if (!isDrawer && open) this.#find.focus();
    else if (wasOpen) this.#opener.focus();
  }

  get #isOpen() {
    return document.body.classList.contains("with-list");
  }

  #item(conversation) {
    const isShown = conversation === this.#chat.current;
    const title = titleOf(conversation);
    const open = element(
      "button",
      {
        type: "button",
        class: "conversation",
        title,
        "data-id": conversation.id,
        "aria-current": isShown ? "true" : null,
        click: () => {
          this.#chat.open(conversation.id);
          this.toggle(false);
        },
      },
      element("span", {}, title),
      this.#chat.hasRunning(conversation) ? element("i", { class: "pulse", role: "img", "aria-label": "answering" }) : null,
    );
    const more = iconButton("dots", `More about ${title}`, () => this.#menu.open(conversation, more), {
      "aria-haspopup": "menu",
    });
    return element("li", { class: isShown ? "shown" : null }, open, more);
  }
}

function has(conversation, sought) {
  return (
    titleOf(conversation).toLowerCase().includes(sought) ||
    Object.values(conversation.messages).some(({ content }) => content.toLowerCase().includes(sought))
  );
}

function dayOf({ updated }) {
  const today = new Date().setHours(0, 0, 0, 0);
  if (updated >= today) return "Today";
  if (updated >= today - DAY_MS) return "Yesterday";
  if (updated >= today - 6 * DAY_MS) return "This week";
  return "Earlier";
}
