// What went wrong, in words that say what to do.

export class Failure extends Error {
  // `seconds`: how long the server asks to wait; `code`: the server's name for it.
  constructor(words, { code = null, seconds = 0 } = {}) {
    super(words);
    this.code = code;
    this.seconds = seconds;
  }
}

export const UNREACHABLE = "The server cannot be reached. Is herd serve still running?";
export const BROKEN_OFF = "The connection broke off before the answer ended.";

const BY_CODE = {
  queue_full: "The server is busy, and its queue is full.",
  shutting_down: "The server is shutting down and takes no new requests.",
  context_length_exceeded:
    "The conversation no longer fits into the model's context. Begin a new one, or shorten a message by editing it.",
};
const BY_STATUS = {
  401: "The server wants a key. Reload the page, and give the key when your browser asks.",
  403: "The server does not take requests from this address.",
  408: "The message took too long to arrive.",
  413: "The conversation is longer than the server takes. Begin a new one.",
};

// Of a response that is not 200.
export async function failureOf(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // Not this server's: a proxy's page, perhaps.
  }
  const seconds = Number(response.headers.get("Retry-After")) || 0;
  return failureFrom(error, response.status, seconds);
}

// Of an error as the API writes it, in a response or inside a stream.
export function failureFrom(error, status = 0, seconds = 0) {
  const known = BY_CODE[error.code] ?? BY_STATUS[status];
  const said = sentence(error.message ?? (status ? `The server answered with status ${status}` : "The answer failed"));
  const words = known ?? said;
  return new Failure(seconds > 1 ? `${words} Try again in ${seconds} s.` : words, { code: error.code ?? null, seconds });
}

function sentence(text) {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}
