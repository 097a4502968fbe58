// The conversation as it is shown: one view for each message of the path, kept while the message is there.

import { AnswerView } from "./answer.js";
import { isRunning } from "./conversation.js";
import { Welcome } from "./welcome.js";
import { QuestionView } from "./question.js";

const NEAR_END = 60; // pixels
// Long answers take longer to draw: of the time, drawing gets about this part.
const DRAWING_SHARE = 0.25;

export class MessagesView {
  #chat;
  #root = document.getElementById("messages");
  #scroller = document.getElementById("scroll");
  #toLatest = document.getElementById("to-latest");
  #views = new Map();
  #welcome;
  #follows = true; // whether the end stays in sight
  #grown = new Set(); // messages to draw
  #drawing = false;

  constructor(chat, { ask, actions }) {
    this.#chat = chat;
    this.#welcome = new Welcome(ask);
    this.actions = actions;
    chat.addEventListener("open", () => this.show({ fromEnd: true }));
    chat.addEventListener("messages", () => this.show({ fromEnd: this.#follows }));
    chat.addEventListener("models", () => this.#showWelcome());
    chat.addEventListener("piece", (event) => this.#grow(event.detail));
    chat.addEventListener("ended", (event) => this.#grow(event.detail));
    this.#scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.#toLatest.addEventListener("click", () => this.toEnd());
    new ResizeObserver(() => this.#follows && this.toEnd()).observe(this.#scroller);
  }

  show({ fromEnd }) {
    const path = this.#chat.path;
    const views = path.map((message) => this.#viewOf(message));
    const kept = new Set(path.map(({ id }) => id));
    for (const [id, view] of this.#views) {
      if (kept.has(id)) continue;
      view.root.remove();
      this.#views.delete(id);
    }
    views.forEach((view, place) => {
      view.isLast = place === views.length - 1;
      view.show();
      if (this.#root.children[place] !== view.root) this.#root.insertBefore(view.root, this.#root.children[place] ?? null);
    });
    this.#showWelcome();
    if (fromEnd) this.toEnd();
  }

  toEnd() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#scrolled();
  }

  viewOf(message) {
    return this.#views.get(message.id);
  }

  #viewOf(message) {
    const known = this.#views.get(message.id);
    if (known?.message === message) return known;
    known?.root.remove();
    const View = message.role === "user" ? QuestionView : AnswerView;
    const view = new View(message, this.#chat, this.actions);
    this.#views.set(message.id, view);
    return view;
  }

  #showWelcome() {
    const isEmpty = !this.#chat.path.length;
    this.#root.classList.toggle("empty", isEmpty);
    if (isEmpty) {
      this.#welcome.show(this.#chat);
      this.#root.append(this.#welcome.root);
    } else this.#welcome.root.remove();
  }

  #grow(message) {
    this.#grown.add(message);
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    const began = performance.now();
    for (const message of this.#grown) this.#views.get(message.id)?.show();
    this.#grown.clear();
    if (this.#follows) this.toEnd();
    const rest = (performance.now() - began) * (1 / DRAWING_SHARE - 1);
    setTimeout(() => {
      this.#drawing = false;
      if (this.#grown.size) this.#grow([...this.#grown][0]);
    }, rest);
  }

  #scrolled() {
    const { scrollTop, clientHeight, scrollHeight } = this.#scroller;
    this.#follows = scrollHeight - scrollTop - clientHeight < NEAR_END;
    this.#toLatest.hidden = this.#follows;
    this.#toLatest.classList.toggle("growing", this.#chat.path.some(isRunning));
  }
}
