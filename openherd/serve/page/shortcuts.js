// Keys. Those with Alt go by the key's place, because with Alt some systems write other letters.

import { element } from "./elements.js";

const LISTED = [
  ["Enter", "Send the message"],
  ["Shift Enter", "Begin a new line"],
  ["Esc", "Stop the answer"],
  ["↑", "In an empty box: edit the last message"],
  ["/", "Go to the message box"],
  ["Alt N", "New chat"],
  ["Alt R", "Answer again"],
  ["Alt C", "Copy the last answer"],
  ["Alt P", "Settings of this conversation"],
  ["Alt L", "List of conversations"],
  ["Alt ↑ ↓", "The conversation above, below"],
  ["?", "These shortcuts"],
];

// `commands`: functions by the names used here.
export function installShortcuts(commands) {
  const dialog = document.getElementById("shortcuts");
  const rows = LISTED.flatMap(([keys, what]) => [
    element("dt", {}, ...keys.split(" ").map((key) => element("kbd", {}, key))),
    element("dd", {}, what),
  ]);
  document.getElementById("shortcut-list").append(...rows);
  const list = () => dialog.showModal();
  document.getElementById("show-shortcuts").addEventListener("click", list);

  const withAlt = {
    KeyN: commands.newChat,
    KeyR: commands.regenerate,
    KeyC: commands.copyAnswer,
    KeyP: commands.settings,
    KeyL: commands.list,
    ArrowUp: () => commands.step(-1),
    ArrowDown: () => commands.step(1),
  };
  const alone = { "/": commands.focusPrompt, "?": list };

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || document.querySelector("dialog[open], :popover-open")) return;
    const { altKey, ctrlKey, metaKey, shiftKey } = event;
    let command = null;
    if (altKey && !ctrlKey && !metaKey && !shiftKey) command = withAlt[event.code];
    else if (event.key === "Escape") command = commands.stop;
    else if (!altKey && !ctrlKey && !metaKey && !isWriting(event.target)) command = alone[event.key];
    if (!command) return;
    event.preventDefault();
    command();
  });
}

function isWriting(target) {
  return target.matches("textarea, input:not([type=radio]), select");
}
