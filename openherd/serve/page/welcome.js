// What stands where no message does yet: which model this is, and something to begin with.

import { element, icon } from "./elements.js";

const EXAMPLES = [
  ["Explain", "Why is the sky blue? Explain it to a ten-year-old."],
  ["Write", "Write a haiku about a river in the morning."],
  ["Code", "Write a Python function that says whether a word is a palindrome."],
  ["Plan", "Give me a plan of three days for learning to bake bread."],
];
const WHILE_LOADING = "You can write already; the answer begins when it is there.";

export class Welcome {
  #name = element("h2");
  #state = element("p");

  constructor(ask) {
    const examples = EXAMPLES.map(([what, prompt]) =>
      element("li", {}, element("button", { type: "button", click: () => ask(prompt) }, element("b", {}, what), prompt)),
    );
    const mark = icon("herd");
    mark.classList.add("mark");
    this.root = element("div", { class: "welcome" }, mark, this.#name, this.#state, element("ul", {}, ...examples));
  }

  show(chat) {
    this.#name.textContent = chat.isLoading ? "The model is being loaded" : (chat.model ?? "openherd");
    this.#state.textContent = chat.unreachable ?? (chat.isLoading ? WHILE_LOADING : facts(chat));
    this.root.classList.toggle("loading", chat.isLoading);
  }
}

function facts({ context }) {
  const tokens = context ? `${context.toLocaleString("en")} tokens of context. ` : "";
  return `${tokens}What you write goes to this server and nowhere else.`;
}
