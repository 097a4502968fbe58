// Conversations in this browser (IndexedDB). Where it cannot store, they live until the page is closed, and the page says so.

const DATABASE = "openherd";
const STORE = "conversations";

export class Storage {
  #database = null;
  #failed;
  #others = "BroadcastChannel" in globalThis ? new BroadcastChannel("openherd") : null;

  // `failed` is called with words for the person; `changed` with the id of what another tab stored or deleted.
  constructor({ failed, changed }) {
    this.#failed = failed;
    this.#others?.addEventListener("message", (event) => changed(event.data));
  }

  // Every stored conversation.
  async open() {
    try {
      const opening = indexedDB.open(DATABASE, 1);
      opening.onupgradeneeded = () => opening.result.createObjectStore(STORE, { keyPath: "id" });
      opening.onblocked = () => this.#failed("Another tab of this page is older; close it.");
      this.#database = await done(opening);
      this.#database.onversionchange = () => this.#database.close();
      return await done(this.#store("readonly").getAll());
    } catch (error) {
      this.#report(error);
      return [];
    }
  }

  // One conversation; undefined when it is not there any more.
  async read(id) {
    return this.#database ? done(this.#store("readonly").get(id)) : undefined;
  }

  async save(conversation) {
    await this.#write((store) => store.put(conversation), conversation.id);
  }

  async remove(id) {
    await this.#write((store) => store.delete(id), id);
  }

  async #write(change, id) {
    if (!this.#database) return;
    try {
      await done(change(this.#store("readwrite")));
      this.#others?.postMessage(id);
    } catch (error) {
      this.#report(error);
    }
  }

  #store(mode) {
    return this.#database.transaction(STORE, mode).objectStore(STORE);
  }

  #report(error) {
    console.warn("storage:", error);
    this.#failed(
      error?.name === "QuotaExceededError"
        ? "This browser's storage is full: what is new here is lost when the page is closed. Delete old conversations."
        : "This browser does not store for this page: conversations are lost when it is closed. Export what you need.",
    );
  }
}

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
