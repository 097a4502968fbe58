// What the page knows and what can be done with it; nothing here touches the document. Events: "list" when the list of
// conversations changed, "open" when another one is shown, "messages" when its messages changed, "piece" (detail: the
// message) when an answer grew, "ended" (detail: the message), "models".

import { fill } from "./answering.js";
import {
  add, choose, drop, isFollowed, isRunning, newConversation, newSeed, pathOf, versionsOf,
} from "./conversation.js";
import { models, pause } from "./server.js";

const SAVE_MS = 2000; // while an answer grows
const MODELS_MS = 1500;

export class Chat extends EventTarget {
  conversations = new Map();
  current = newConversation();
  models = null; // null: not known yet
  unreachable = null; // words, while the list of models cannot be had
  #storage;
  #running = new Map(); // message id -> AbortController
  #watching = false;

  constructor(storage) {
    super();
    this.#storage = storage;
  }

  async load() {
    for (const conversation of await this.#storage.open()) this.#take(conversation);
    this.start();
    this.#say("list");
  }

  // Asks until the models are known, and again after the server was away.
  async watchModels() {
    if (this.#watching) return;
    this.#watching = true;
    do {
      try {
        this.models = await models();
        this.unreachable = null;
      } catch (failure) {
        this.unreachable = failure.message;
      }
      this.#say("models");
    } while ((this.isLoading || this.unreachable) && (await pause(MODELS_MS).then(() => true)));
    this.#watching = false;
  }

  get model() {
    const names = (this.models ?? []).map(({ id }) => id);
    return names.includes(this.current.model) ? this.current.model : (names[0] ?? this.current.model);
  }

  get context() {
    return this.#facts?.context ?? null;
  }

  // A model that is loaded when it is first asked for is not: nothing is on its way.
  get isLoading() {
    return ["loading", "unloading", "restarting"].includes(this.#facts?.status.value);
  }

  get #facts() {
    return this.models?.find(({ id }) => id === this.model);
  }

  get path() {
    return pathOf(this.current);
  }

  get isAnswering() {
    return this.path.some(({ id }) => this.#running.has(id));
  }

  get newestFirst() {
    return [...this.conversations.values()].sort((a, b) => b.updated - a.updated);
  }

  hasRunning(conversation) {
    return Object.keys(conversation.messages).some((id) => this.#running.has(id));
  }

  // A new conversation, with the settings of the newest. It is kept from its first message on.
  start() {
    const { system, params, model } = this.newestFirst[0] ?? this.current;
    this.current = newConversation({ system, params: { ...params }, model });
    this.#say("open");
  }

  open(id) {
    const found = this.conversations.get(id);
    if (!found) return;
    this.current = found;
    this.#say("open");
  }

  send(text) {
    add(this.current, { role: "user", content: text, parent: this.current.leaf });
    this.conversations.set(this.current.id, this.current);
    this.#answer(this.current.leaf);
  }

  // A message of the person's in other words: what followed the old ones stays beside it.
  edit(message, text) {
    add(this.current, { role: "user", content: text, parent: message.parent });
    this.#answer(this.current.leaf);
  }

  // The same question again. An answer that never began makes room.
  regenerate(message) {
    if (isRunning(message)) return;
    const neverBegan = message.failure && !message.content && !message.reasoning;
    if (neverBegan && !isFollowed(this.current, message)) drop(this.current, message);
    this.#answer(message.parent);
  }

  stop() {
    for (const { id } of this.path) this.#running.get(id)?.abort();
  }

  choose(message) {
    choose(this.current, message);
    this.#save(this.current);
    this.#say("messages");
  }

  rename(conversation, title) {
    conversation.title = title;
    this.#save(conversation);
    this.#say("list");
  }

  remove(conversation) {
    for (const id of Object.keys(conversation.messages)) this.#running.get(id)?.abort();
    this.conversations.delete(conversation.id);
    this.#storage.remove(conversation.id);
    if (conversation === this.current) this.start();
    this.#say("list");
  }

  // `changes`: of system, params and model.
  configure(changes) {
    Object.assign(this.current, changes);
    if (this.conversations.has(this.current.id)) this.#save(this.current);
    this.#say("models");
  }

  // Another tab stored or deleted it.
  async reload(id) {
    const mine = this.conversations.get(id);
    if (mine && this.hasRunning(mine)) return;
    const stored = await this.#storage.read(id);
    if (stored) this.#take(stored);
    else this.conversations.delete(id);
    if (this.current.id === id && stored) {
      this.current = stored;
      this.#say("messages");
    } else if (this.current.id === id) this.start();
    this.#say("list");
  }

  saveRunning() {
    for (const conversation of this.conversations.values()) if (this.hasRunning(conversation)) this.#save(conversation);
  }

  async #answer(parent) {
    const conversation = this.current;
    conversation.model = this.model;
    const message = add(conversation, {
      role: "assistant",
      parent,
      model: conversation.model,
      seed: this.#seed(conversation, parent),
    });
    const controller = new AbortController();
    this.#running.set(message.id, controller);
    this.#save(conversation);
    this.#say("list");
    this.#say("messages");
    let saved = Date.now();
    await fill(conversation, message, controller.signal, () => {
      this.#say("piece", message);
      if (Date.now() - saved < SAVE_MS) return;
      saved = Date.now();
      this.#save(conversation);
    });
    this.#running.delete(message.id);
    this.#save(conversation);
    this.#say("list");
    this.#say("ended", message);
    if (message.failure || this.context === null) this.watchModels();
  }

  // The seed that is set makes the first answer; made again it counts up, because the same would be the same answer.
  #seed(conversation, parent) {
    if (conversation.params.seed === undefined) return newSeed();
    return conversation.params.seed + versionsOf(conversation, { parent }).length;
  }

  #take(conversation) {
    for (const message of Object.values(conversation.messages)) {
      if (isRunning(message)) message.finish = "interrupted";
    }
    this.conversations.set(conversation.id, conversation);
  }

  #save(conversation) {
    if (this.conversations.has(conversation.id)) this.#storage.save(conversation);
  }

  #say(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
