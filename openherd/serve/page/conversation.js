// A conversation is a tree of messages: an answer made again, or a message edited, stands beside the one before it, and
// nothing is lost. What is shown, and what the model reads, is the path from the first message to the leaf.
//
// A message: {id, parent, role, content, created}; an answer also has model, seed, reasoning, thinking (seconds), usage,
// rate (tokens/s), wait (seconds to the first text), and how it ended: finish (stop, length, stopped, interrupted, ...)
// or failure (words). `next` of any message is the one after it that was shown last.

const TITLE_CHARACTERS = 60;

export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// Four bytes: what a person can still read out.
export function newSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}

export function newConversation({ system = "", params = {}, model = null } = {}) {
  const now = Date.now();
  return { id: newId(), title: "", created: now, updated: now, system, params, model, messages: {}, leaf: null };
}

export function titleOf(conversation) {
  return conversation.title || "New conversation";
}

// The messages from the first to the leaf, or to `last`.
export function pathOf(conversation, last = conversation.leaf) {
  const path = [];
  for (let id = last; id; id = conversation.messages[id].parent) path.unshift(conversation.messages[id]);
  return path;
}

// The message itself and what stands beside it, oldest first.
export function versionsOf(conversation, message) {
  return Object.values(conversation.messages).filter((other) => other.parent === message.parent);
}

export function add(conversation, message) {
  const made = { id: newId(), created: Date.now(), content: "", ...message };
  conversation.messages[made.id] = made;
  conversation.leaf = made.id;
  remember(conversation, made);
  conversation.updated = made.created;
  if (!conversation.title && made.role === "user") conversation.title = titleFrom(made.content);
  return made;
}

export function isFollowed(conversation, message) {
  return Object.values(conversation.messages).some(({ parent }) => parent === message.id);
}

// Takes one message without children away, as an answer that failed before its first word.
export function drop(conversation, message) {
  delete conversation.messages[message.id];
  const before = conversation.messages[message.parent];
  if (before?.next === message.id) delete before.next;
  if (conversation.leaf === message.id) conversation.leaf = message.parent;
}

// Shows another version, and what followed it when it was shown last.
export function choose(conversation, message) {
  remember(conversation, message);
  let leaf = message;
  while (leaf.next) leaf = conversation.messages[leaf.next];
  conversation.leaf = leaf.id;
}

function remember(conversation, message) {
  const before = conversation.messages[message.parent];
  if (before) before.next = message.id;
}

// What the server is asked for `answer`. Reasoning is not sent back, nor answers that have no text.
export function requestFor(conversation, answer) {
  const before = pathOf(conversation, answer.parent).filter(({ role, content }) => role === "user" || content);
  const messages = before.map(({ role, content }) => ({ role, content }));
  if (conversation.system.trim()) messages.unshift({ role: "system", content: conversation.system });
  return { model: answer.model, messages, ...conversation.params, seed: answer.seed };
}

export function isRunning(message) {
  return message.role === "assistant" && !message.finish && !message.failure;
}

// One line of the message that began it.
function titleFrom(text) {
  const line = text.trim().split("\n")[0].replace(/\s+/g, " ");
  if (line.length <= TITLE_CHARACTERS) return line;
  const cut = line.slice(0, TITLE_CHARACTERS);
  return `${cut.slice(0, Math.max(cut.lastIndexOf(" "), TITLE_CHARACTERS / 2))}…`;
}
