// What a model writes, as elements. It is hostile input, and goes through two walls before it is in the document:
// the renderer shows HTML in it as the characters it is made of, and the sanitizer lets through a short list of elements
// and attributes whatever it is given. The server's Content-Security-Policy is the third.

import { Marked } from "./vendor/marked/marked.esm.js";
import DOMPurify from "./vendor/dompurify/purify.es.mjs";
import { copyButton, element } from "./elements.js";
import { escaped, highlighted } from "./highlighting.js";

const TAGS = [
  "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre",
  "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
];
const ALLOWED = {
  ALLOWED_TAGS: TAGS,
  ALLOWED_ATTR: ["href", "class", "align", "start"],
  ADD_URI_SAFE_ATTR: ["align", "start"], // no addresses, so the rule for those is not theirs
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  RETURN_DOM_FRAGMENT: true,
};
const SCHEMES = new Set(["http:", "https:", "mailto:"]);
// Of code only, so that no text can dress as a part of this page.
const CODE_CLASS = /^(?:hljs-[\w-]+|language-[\w+#.-]+|[a-z]+_)$/;

const renderer = {
  html(token) {
    if (/^<br\s*\/?>$/i.test(token.text.trim())) return "<br>";
    return token.block ? `<p>${escaped(token.text)}</p>` : escaped(token.text);
  },
  image(token) {
    const shown = escaped(token.text || token.href);
    return `<a href="${escaped(token.href)}">[image: ${shown}]</a>`;
  },
  code(token) {
    const language = (token.lang ?? "").split(/[\s,{]/)[0].toLowerCase();
    const named = /^[\w+#.-]+$/.test(language) ? ` class="language-${language}"` : "";
    return `<pre><code${named}>${highlighted(token.text, language)}</code></pre>`;
  },
  checkbox: (token) => (token.checked ? "☑ " : "☐ "),
};
const marked = new Marked({ gfm: true, breaks: true, renderer });

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.hasAttribute("class")) {
    const isCode = node.localName === "code" || node.localName === "span";
    if (!isCode || ![...node.classList].every((name) => CODE_CLASS.test(name))) node.removeAttribute("class");
  }
  if (node.localName === "a") secureLink(node);
});

function secureLink(link) {
  const address = URL.parse ? URL.parse(link.getAttribute("href") ?? "") : parsed(link.getAttribute("href"));
  if (!address || !SCHEMES.has(address.protocol)) {
    link.removeAttribute("href");
    return;
  }
  link.setAttribute("target", "_blank");
  link.setAttribute("rel", "noopener noreferrer nofollow");
  link.setAttribute("title", address.href); // where it goes, whatever it says
}

function parsed(text) {
  try {
    return new URL(text);
  } catch {
    return null;
  }
}

// Any HTML as a fragment of allowed elements.
export function sanitized(html) {
  return DOMPurify.sanitize(html, ALLOWED);
}

// The blocks of a growing text. What has not changed stays in the document, so that it can be selected meanwhile.
export class MarkdownView {
  #root;
  #blocks = []; // each {raw, nodes}
  #links = "";

  constructor(root) {
    this.#root = root;
  }

  show(text) {
    try {
      this.#show(text);
    } catch (error) {
      // Nested deeper than the parser goes.
      console.warn("shown as plain text:", error);
      this.#blocks = [];
      this.#root.replaceChildren(element("p", { class: "as-written" }, text));
    }
  }

  #show(text) {
    const tokens = marked.lexer(text);
    const links = JSON.stringify(tokens.links); // a definition changes blocks before it
    let same = 0;
    if (links === this.#links) {
      while (same < Math.min(tokens.length, this.#blocks.length) && tokens[same].raw === this.#blocks[same].raw) same++;
    }
    this.#links = links;
    if (!this.#blocks.length) this.#root.replaceChildren();
    for (const block of this.#blocks.splice(same)) for (const node of block.nodes) node.remove();
    for (const token of tokens.slice(same)) {
      const fragment = sanitized(marked.parser([token]));
      for (const code of fragment.querySelectorAll("pre")) frame(code);
      for (const table of fragment.querySelectorAll("table")) scrollable(table);
      const nodes = [...fragment.childNodes];
      this.#root.append(fragment);
      this.#blocks.push({ raw: token.raw, nodes });
    }
  }
}

// A head with the language and a button that copies.
function frame(pre) {
  const code = pre.querySelector("code") ?? pre;
  const language = [...code.classList].find((name) => name.startsWith("language-"))?.slice("language-".length);
  const head = element(
    "div",
    { class: "code-head" },
    element("span", {}, language ?? "text"),
    copyButton("Copy the code", () => code.textContent),
  );
  const framed = element("div", { class: "code" }, head);
  pre.replaceWith(framed);
  pre.tabIndex = 0; // so that arrow keys reach the ends of long lines
  framed.append(pre);
}

function scrollable(table) {
  const frameOfTable = element("div", { class: "table", tabindex: "0" });
  table.replaceWith(frameOfTable);
  frameOfTable.append(table);
}
