// Copies text, also where the browser refuses its clipboard.

/**
 * @param {string} text
 * @param {{clipboard?: {writeText: (text: string) => Promise<void>}, page: Document,
 *   title: string, closeLabel: string}} world
 * @returns {Promise<boolean>} false where the text is shown for copying by hand
 */
export async function copyText(text, { clipboard, page, title, closeLabel }) {
  try {
    if (!clipboard) throw new Error("no clipboard");
    await clipboard.writeText(text);
    return true;
  } catch {
    // Pages that are not served securely have none, and users may refuse it.
    showText(text, page, title, closeLabel);
    return false;
  }
}

/**
 * @param {string} text
 * @param {Document} page
 * @param {string} title
 * @param {string} closeLabel
 */
function showText(text, page, title, closeLabel) {
  const dialog = page.createElement("dialog");
  dialog.className = "vsup-dialog";
  dialog.setAttribute("aria-label", title);
  const heading = page.createElement("p");
  heading.textContent = title;
  const area = page.createElement("textarea");
  area.readOnly = true;
  area.value = text;
  area.rows = 16;
  area.setAttribute("aria-label", title);
  const close = page.createElement("button");
  close.type = "button";
  close.textContent = closeLabel;
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  dialog.append(heading, area, close);
  page.body.append(dialog);
  dialog.showModal();
  area.focus();
  area.select();
}
