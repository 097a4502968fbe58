// Questions in front of the page.

// Shows the dialog with its fields filled. Resolves to what stands in them then, or to null when it was dismissed.
export function ask(id, fields = {}) {
  const dialog = document.getElementById(id);
  const form = dialog.querySelector("form");
  form.reset();
  for (const [name, value] of Object.entries(fields)) form.elements[name].value = value;
  dialog.returnValue = "";
  dialog.showModal();
  form.querySelector("input")?.select();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue ? new FormData(form) : null), { once: true });
  });
}

export function installDialogs() {
  for (const dialog of document.querySelectorAll("dialog")) {
    // A press beside it; `closest` would find the dialog for its backdrop as well.
    dialog.addEventListener("mousedown", (event) => event.target === dialog && dialog.close());
    for (const button of dialog.querySelectorAll("[data-close]")) button.addEventListener("click", () => dialog.close());
  }
}
