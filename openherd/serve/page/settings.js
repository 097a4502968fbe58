// System prompt and sampling parameters of the conversation. An empty field leaves the choice to the server.

const NUMBERS = ["temperature", "top_p", "max_tokens", "seed"];

export class Settings {
  #chat;
  #dialog = document.getElementById("settings");
  #form = this.#dialog.querySelector("form");

  constructor(chat) {
    this.#chat = chat;
    const button = document.getElementById("show-settings");
    button.addEventListener("click", () => this.open());
    this.#dialog.addEventListener("close", () => this.#take());
    chat.addEventListener("models", () => this.#mark(button));
    chat.addEventListener("open", () => this.#mark(button));
  }

  open() {
    const { system, params } = this.#chat.current;
    this.#form.elements.system.value = system;
    for (const name of NUMBERS) this.#form.elements[name].value = params[name] ?? "";
    this.#dialog.showModal();
  }

  // Done is not taken while a number is out of its range; leaving in another way keeps what is right.
  #take() {
    const params = {};
    for (const name of NUMBERS) {
      const field = this.#form.elements[name];
      if (field.value !== "" && field.validity.valid) params[name] = field.valueAsNumber;
    }
    this.#chat.configure({ system: this.#form.elements.system.value, params });
  }

  // A dot where something is set, so that nobody wonders about answers.
  #mark(button) {
    const { system, params } = this.#chat.current;
    button.classList.toggle("marked", Boolean(system.trim()) || Object.keys(params).length > 0);
  }
}
