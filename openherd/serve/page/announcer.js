// Tells those who listen what those who look see: an answer is read out sentence by sentence, as it comes.

const region = document.getElementById("live");

export class Announcer {
  #message = null;
  #told = 0; // characters

  say(words) {
    region.textContent = words;
  }

  started(message) {
    if (message === this.#message) return;
    this.#message = message;
    this.#told = 0;
    region.textContent = "Answering.";
  }

  grew(message) {
    if (message !== this.#message) return;
    const rest = message.content.slice(this.#told);
    const end = Math.max(...[". ", "! ", "? ", "\n"].map((mark) => rest.lastIndexOf(mark)));
    if (end <= 0) return;
    region.textContent = rest.slice(0, end + 1);
    this.#told += end + 1;
  }

  ended(message) {
    if (message !== this.#message) return;
    const rest = message.content.slice(this.#told);
    const how = message.failure ?? (message.finish === "stopped" ? "Stopped." : "End of the answer.");
    region.textContent = `${rest} ${how}`.trim();
    this.#message = null;
  }
}
