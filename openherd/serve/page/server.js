// Requests to the server that this page came from, and to no other.

import { BROKEN_OFF, Failure, UNREACHABLE, failureFrom, failureOf } from "./failures.js";

const CHAT = "/v1/chat/completions";
const POLL_MS = 1000;

// The models that can be asked, each {id, context, status}; what was never loaded has no context yet.
export async function models(signal) {
  const response = await request("/v1/models", { signal });
  if (!response.ok) throw await failureOf(response);
  return (await response.json()).data;
}

// "ready", "loading" or "draining".
export async function status(signal) {
  const response = await request("/ready", { signal });
  try {
    return (await response.json()).status;
  } catch {
    throw new Failure(UNREACHABLE);
  }
}

// Resolves when requests are taken.
export async function untilReady(signal) {
  for (;;) {
    const now = await status(signal);
    if (now === "ready") return;
    if (now !== "loading") throw failureFrom({ code: "shutting_down" });
    await pause(POLL_MS, signal);
  }
}

export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

// The chunks of an answer as the server sends them. A model that is being loaded is waited for; `loading` is called then.
export async function* answer(body, signal, loading) {
  let response = await post(body, signal);
  while (response.status === 503 && (await status(signal)) === "loading") {
    loading();
    await untilReady(signal);
    response = await post(body, signal);
  }
  if (!response.ok) throw await failureOf(response);
  let isWhole = false;
  for await (const data of events(response.body)) {
    if (data === "[DONE]") isWhole = true; // and the end of the stream comes with it
    else if (!isWhole) yield checked(JSON.parse(data));
  }
  if (!isWhole) throw new Failure(BROKEN_OFF);
}

function checked(chunk) {
  if (chunk.error) throw failureFrom(chunk.error);
  return chunk;
}

function post(body, signal) {
  const asked = { ...body, stream: true, stream_options: { include_usage: true } };
  const headers = { "Content-Type": "application/json" };
  return request(CHAT, { method: "POST", headers, body: JSON.stringify(asked), signal });
}

async function request(path, options) {
  try {
    return await fetch(path, { ...options, cache: "no-store", redirect: "error" });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Failure(UNREACHABLE);
  }
}

// WHATWG HTML, section 9.2, as far as the server uses it: `data:` lines with an empty line after each.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (text + value).split("\n\n");
      text = parts.pop();
      for (const part of parts) if (part.startsWith("data: ")) yield part.slice("data: ".length);
    }
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Failure(BROKEN_OFF);
  } finally {
    reader.cancel().catch(() => {});
  }
}
