// Puts the page together.

import { Announcer } from "./announcer.js";
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { isRunning } from "./conversation.js";
import { installDialogs } from "./dialogs.js";
import { copy } from "./elements.js";
import { ConversationMenu } from "./menu.js";
import { MessagesView } from "./messages.js";
import { Settings } from "./settings.js";
import { installShortcuts } from "./shortcuts.js";
import { Sidebar } from "./sidebar.js";
import { Storage } from "./storage.js";
import { installThemeSwitch } from "./switch.js";
import { TopBar } from "./top.js";

const notice = document.getElementById("notice");
const storage = new Storage({
  failed: (words) => {
    notice.textContent = words;
    notice.hidden = false;
  },
  changed: (id) => chat.reload(id),
});
const chat = new Chat(storage);

const regenerate = (message) => {
  if (chat.isAnswering) return;
  chat.regenerate(message);
  messages.toEnd();
  composer.focus(); // the button that was pressed has gone with its answer
};
const actions = {
  regenerate,
  edit: (message, text) => {
    chat.edit(message, text);
    composer.focus();
  },
  choose: (version, side) => {
    if (chat.isAnswering) chat.stop();
    chat.choose(version);
    messages.viewOf(version)?.focusVersions(side);
  },
};
const messages = new MessagesView(chat, { ask: (prompt) => composer.send(prompt), actions });
const editLast = () => {
  const last = chat.path.findLast(({ role }) => role === "user");
  if (last && !chat.isAnswering) messages.viewOf(last).edit();
  return Boolean(last);
};
const composer = new Composer(chat, { editLast });
const menu = new ConversationMenu(chat);
const sidebar = new Sidebar(chat, menu);
const settings = new Settings(chat);
new TopBar(chat);

const lastAnswer = () => chat.path.findLast(({ role }) => role === "assistant");
installShortcuts({
  newChat: () => chat.start(),
  regenerate: () => lastAnswer() && regenerate(lastAnswer()),
  copyAnswer: async () => {
    const said = lastAnswer() ? await copy(lastAnswer().content) : false;
    announcer.say(said ? "The answer is copied." : "There is nothing to copy.");
  },
  settings: () => settings.open(),
  list: () => sidebar.toggle(true),
  step: (by) => sidebar.step(by),
  focusPrompt: () => composer.focus(),
  stop: () => chat.stop(),
});
installDialogs();
installThemeSwitch();

const announcer = new Announcer();
chat.addEventListener("messages", () => chat.path.filter(isRunning).forEach((message) => announcer.started(message)));
chat.addEventListener("piece", (event) => announcer.grew(event.detail));
chat.addEventListener("ended", (event) => announcer.ended(event.detail));
// On a touch screen the focus brings a keyboard, which hides what was opened.
chat.addEventListener("open", () => matchMedia("(hover: hover)").matches && composer.focus());
addEventListener("pagehide", () => chat.saveRunning());

await chat.load();
chat.watchModels();
