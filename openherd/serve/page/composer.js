// The box that messages are written in, with send and stop.

export class Composer {
  #chat;
  #form = document.getElementById("composer");
  #prompt = document.getElementById("prompt");
  #send = document.getElementById("send");
  #stop = document.getElementById("stop");

  constructor(chat, { editLast }) {
    this.#chat = chat;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    this.#prompt.addEventListener("input", () => this.show());
    this.#prompt.addEventListener("keydown", (event) => {
      // An input method's own Enter chooses a word.
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.send();
      } else if (event.key === "ArrowUp" && !this.#prompt.value && editLast()) event.preventDefault();
    });
    this.#stop.addEventListener("click", () => chat.stop());
    for (const type of ["open", "messages", "ended"]) chat.addEventListener(type, () => this.show());
    this.show();
  }

  focus() {
    this.#prompt.focus();
  }

  send(text = this.#prompt.value) {
    if (!text.trim() || this.#chat.isAnswering) return;
    if (text === this.#prompt.value) this.#prompt.value = "";
    this.#chat.send(text.trim());
    this.focus();
  }

  show() {
    const answers = this.#chat.isAnswering;
    const stopHadFocus = document.activeElement === this.#stop;
    this.#stop.hidden = !answers;
    this.#send.hidden = answers;
    this.#send.disabled = !this.#prompt.value.trim();
    if (stopHadFocus && !answers) this.focus();
    if (!CSS.supports("field-sizing", "content")) this.#grow();
  }

  #grow() {
    this.#prompt.style.height = "auto";
    this.#prompt.style.height = `${this.#prompt.scrollHeight}px`;
  }
}
