// One answer, from the request to its end, written into its message as it comes.

import { requestFor } from "./conversation.js";
import { Failure } from "./failures.js";
import { answer } from "./server.js";

// `changed` is called after every piece. Never rejects: what goes wrong stands in the message.
export async function fill(conversation, message, signal, changed) {
  const clock = new Clock(message);
  try {
    const loading = () => {
      message.loading = true;
      changed();
    };
    for await (const chunk of answer(requestFor(conversation, message), signal, loading)) {
      delete message.loading;
      take(message, chunk, clock);
      changed();
    }
    message.finish ??= "stop";
  } catch (error) {
    if (signal.aborted) message.finish = "stopped";
    else fail(message, error);
  }
  delete message.loading;
  clock.end();
  changed();
}

function take(message, chunk, clock) {
  if (chunk.usage) message.usage = { prompt: chunk.usage.prompt_tokens, completion: chunk.usage.completion_tokens };
  const choice = chunk.choices[0];
  if (!choice) return;
  const { content, reasoning_content: reasoning } = choice.delta;
  if (reasoning) message.reasoning = (message.reasoning ?? "") + reasoning;
  if (content) message.content += content;
  if (content || reasoning) clock.tick(Boolean(content));
  if (choice.finish_reason) message.finish = choice.finish_reason;
}

function fail(message, error) {
  if (!(error instanceof Failure)) console.error(error);
  message.failure = error instanceof Failure ? error.message : "The page could not read the answer.";
}

// Times of an answer. While it runs, and where it was stopped, pieces stand for tokens: nearly always they are one each.
class Clock {
  #message;
  #asked = performance.now();
  #first = 0;
  #last = 0;
  #pieces = 0;

  constructor(message) {
    this.#message = message;
  }

  tick(isContent) {
    const now = performance.now();
    const message = this.#message;
    if (!this.#first) {
      this.#first = now;
      message.wait = seconds(now - this.#asked);
    }
    if (message.reasoning && !message.thinking && isContent) message.thinking = seconds(now - this.#first);
    this.#last = now;
    this.#pieces++;
    message.pieces = this.#pieces;
    message.rate = this.#rate(this.#pieces);
  }

  end() {
    if (this.#message.usage) {
      this.#message.rate = this.#rate(this.#message.usage.completion);
      delete this.#message.pieces;
    }
  }

  // Of the tokens after the first, whose time is the prompt's.
  #rate(tokens) {
    const elapsed = (this.#last - this.#first) / 1000;
    return elapsed > 0 && tokens > 1 ? (tokens - 1) / elapsed : null;
  }
}

function seconds(milliseconds) {
  return Math.round(milliseconds) / 1000;
}
