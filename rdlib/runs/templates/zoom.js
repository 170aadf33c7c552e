// A figure that links to its file opens over the page, as large as the window; Escape, a click or the button closes it.
for (const link of document.querySelectorAll("figure > a")) {
  const small = link.querySelector("img");
  link.title = "Enlarge";
  link.addEventListener("click", event => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a tab of its own
    event.preventDefault();
    const dialog = document.createElement("dialog"), close = document.createElement("button"), large = new Image();
    dialog.setAttribute("aria-label", "Figure, enlarged");
    close.textContent = "Close";
    large.src = small.src;
    large.alt = small.alt;
    dialog.append(close, large);
    dialog.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => { dialog.remove(); link.focus(); });
    document.body.append(dialog);
    dialog.showModal();
  });
}
