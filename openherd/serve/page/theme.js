// Light or dark, before the first paint. Not a module, so that it runs at once; the switch is in `switch.js`.
"use strict";
try {
  const chosen = localStorage.getItem("openherd-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // A browser that stores nothing follows the system.
}
