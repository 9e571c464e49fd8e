// Elements in one expression.

/**
 * @param {Document} page
 * @param {string} tag
 * @param {Record<string, string | boolean | number | ((event: any) => void)>} [attributes]
 *   functions are listeners of the event they are named for; `text` is the content
 * @param {...Node} children
 * @returns {any}
 */
export function element(page, tag, attributes = {}, ...children) {
  const made = page.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (name === "text") made.textContent = String(value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false) made.setAttribute(name, String(value));
  }
  made.append(...children);
  return made;
}

/**
 * Change a text only where it differs: at ten samples a second most do not.
 * @param {Node} node
 * @param {string} text
 */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * @param {Element} node
 * @param {string} name
 * @param {string} value
 */
export function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}
