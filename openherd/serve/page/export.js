// A conversation as a file: Markdown for people, JSON with everything that is known about it.

import { pathOf, titleOf } from "./conversation.js";
import { element } from "./elements.js";

export function exportMarkdown(conversation) {
  save(`${fileName(conversation)}.md`, "text/markdown", markdown(conversation));
}

export function exportJson(conversation) {
  save(`${fileName(conversation)}.json`, "application/json", `${JSON.stringify(conversation, null, 2)}\n`);
}

// What is shown, without the versions beside it.
function markdown(conversation) {
  const parts = [`# ${titleOf(conversation)}`];
  if (conversation.system.trim()) parts.push(`## System\n\n${conversation.system.trim()}`);
  for (const message of pathOf(conversation)) {
    const head = message.role === "user" ? "## You" : `## ${message.model ?? "Model"}`;
    parts.push(`${head}\n\n${message.content.trim()}`);
  }
  return `${parts.join("\n\n")}\n`;
}

function fileName(conversation) {
  const words = titleOf(conversation).replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "");
  return words.slice(0, 60).toLowerCase() || "conversation";
}

function save(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
