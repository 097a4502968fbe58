// An answer: its thinking folded away, its text as Markdown, how it ended, and what can be done with it.

import { isRunning } from "./conversation.js";
import { copyButton, element, iconButton } from "./elements.js";
import { MarkdownView } from "./markdown.js";
import { Versions } from "./versions.js";

const ENDINGS = {
  length: "Cut off: the most tokens, or the end of the context, was reached.",
  stopped: "Stopped.",
  interrupted: "The page was closed before the answer ended.",
  content_filter: "Withheld by the server's policy.",
};

export class AnswerView {
  isLast = false;
  #actions;
  #thinking;
  #reasoning = null; // its MarkdownView, from the first time it is unfolded
  #text = element("div", { class: "text" });
  #markdown = new MarkdownView(this.#text);
  #drawn = null;
  #waiting = element("p", { class: "waiting" });
  #ending = element("p", { class: "ending", hidden: true });
  #failure = element("p", { class: "failure", hidden: true });
  #facts = element("span", { class: "facts" });
  #versions;
  #foot;

  constructor(message, chat, actions) {
    this.message = message;
    this.#actions = actions;
    this.#thinking = element(
      "details",
      { class: "thinking", hidden: true, toggle: () => this.#showThinking() },
      element("summary", {}, "Thinking"),
      element("div", { class: "text" }),
    );
    this.#versions = new Versions(message, chat, actions.choose);
    this.#foot = element(
      "div",
      { class: "message-foot" },
      copyButton("Copy the answer", () => message.content),
      iconButton("again", "Answer again", () => actions.regenerate(message)),
      this.#versions.root,
      this.#facts,
    );
    const head = element("h2", { class: "unseen" }, `${message.model ?? "The model"} answered`);
    this.root = element(
      "article",
      { class: "answer" },
      head, this.#thinking, this.#text, this.#waiting, this.#ending, this.#failure, this.#foot,
    );
  }

  show() {
    const { message } = this;
    const runs = isRunning(message);
    this.root.classList.toggle("last", this.isLast);
    this.root.classList.toggle("running", runs);
    this.root.setAttribute("aria-busy", String(runs));
    this.#showThinking();
    if (this.#drawn !== message.content) {
      this.#drawn = message.content;
      this.#markdown.show(message.content);
    }
    const waits = runs && !message.content && !message.reasoning;
    this.#waiting.hidden = !waits;
    if (waits) this.#waiting.replaceChildren(...this.#dots(), message.loading ? "The model is being loaded. The answer begins when it is there." : "");
    this.#ending.hidden = !ENDINGS[message.finish];
    this.#ending.textContent = ENDINGS[message.finish] ?? "";
    this.#showFailure();
    this.#foot.classList.toggle("busy", runs);
    this.#versions.show();
    this.#showFacts();
  }

  focusVersions(side) {
    this.#versions.focus(side);
  }

  #dots() {
    return [element("span", { class: "dots", "aria-hidden": "true" }, element("i"), element("i"), element("i"))];
  }

  #showThinking() {
    const { message } = this;
    this.#thinking.hidden = !message.reasoning;
    if (!message.reasoning) return;
    const done = message.content || !isRunning(message);
    const time = message.thinking ? ` for ${message.thinking.toFixed(message.thinking < 10 ? 1 : 0)} s` : "";
    const summary = this.#thinking.firstElementChild;
    const words = done ? `Thought${time}` : "Thinking…";
    if (summary.textContent !== words) summary.textContent = words;
    if (!this.#thinking.open) return;
    this.#reasoning ??= new MarkdownView(this.#thinking.lastElementChild);
    this.#reasoning.show(message.reasoning);
  }

  #showFailure() {
    const { failure } = this.message;
    if (Boolean(failure) !== this.#failure.hidden) return;
    this.#failure.hidden = !failure;
    const again = () => this.#actions.regenerate(this.message);
    if (failure) {
      const button = element("button", { type: "button", class: "plain", click: again }, "Try again");
      this.#failure.replaceChildren(element("span", {}, failure), button);
    }
  }

  #showFacts() {
    const { usage, pieces, rate, wait, seed, model } = this.message;
    const count = usage?.completion ?? pieces;
    const facts = [];
    if (count) facts.push(`${usage ? "" : "≈ "}${count} ${count === 1 ? "token" : "tokens"}`);
    if (rate) facts.push(`${rate < 10 ? rate.toFixed(1) : Math.round(rate)} tokens/s`);
    const more = [model, usage && `${usage.prompt} prompt tokens`, wait && `first text after ${wait} s`, `seed ${seed}`];
    this.#facts.textContent = facts.join(" · ");
    this.#facts.title = more.filter(Boolean).join("\n");
  }
}
