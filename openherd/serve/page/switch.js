// The switch between the system's colours, light and dark.

const KEY = "openherd-theme";

export function installThemeSwitch() {
  const chosen = document.documentElement.dataset.theme ?? "system";
  for (const choice of document.querySelectorAll("input[name=theme]")) {
    choice.checked = choice.value === chosen;
    choice.addEventListener("change", () => choose(choice.value));
  }
}

function choose(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    if (theme === "system") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, theme);
  } catch {
    // It holds until the page is closed.
  }
}
