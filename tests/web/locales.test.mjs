// Every text of the pages is in every language, under the key by which the frontend asks.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { COMMANDS } from "../../web/commands.js";
import { NODE_TEXTS } from "../../web/lib/node_texts.js";
import { PREFIX, TEXTS } from "../../web/lib/texts.js";
import { NODE_COMMANDS } from "../../web/nodes/register.js";
import { BADGE, SERVER_SETTINGS } from "../../web/settings.js";

const LANGUAGES = ["en", "it", "zh"];
const ENGLISH = { ...TEXTS, ...NODE_TEXTS };

/** @param {string} language @param {string} name */
const locale = (language, name) =>
  JSON.parse(readFileSync(new URL(`../../locales/${language}/${name}.json`, import.meta.url), "utf8"));
/** As the frontend makes keys of ids. @param {string} id */
const keyOf = (id) => id.replaceAll(".", "_");
/** @param {string} text */
const places = (text) => (text.match(/\{\w+\}/g) ?? []).sort();
/** @param {any} texts @returns {any} */
const shape = (texts) =>
  typeof texts === "string" ? "" : Object.fromEntries(Object.entries(texts).map(([k, v]) => [k, shape(v)]));
/** @param {any} texts @returns {string[]} */
const leaves = (texts) => (typeof texts === "string" ? [texts] : Object.values(texts).flatMap(leaves));

test("the two tables of texts share no key", () => {
  assert.deepEqual(Object.keys(TEXTS).filter((key) => key in NODE_TEXTS), []);
});

test("the English locale has the texts of the code", () => {
  assert.deepEqual(locale("en", "main")[PREFIX], ENGLISH);
});

for (const language of LANGUAGES) {
  test(`${language}: every file has the keys of the English one, and a text for each`, () => {
    for (const name of ["main", "commands", "settings", "nodeDefs"]) {
      const texts = locale(language, name);
      assert.deepEqual(shape(texts), shape(locale("en", name)), name);
      assert.ok(leaves(texts).every((text) => text.length > 0), name);
    }
  });

  test(`${language}: a text has the places of the English one`, () => {
    const texts = locale(language, "main")[PREFIX];
    for (const [key, english] of Object.entries(ENGLISH)) {
      assert.deepEqual(places(texts[key]), places(english), key);
    }
  });

  test(`${language}: nothing the frontend translates is taken for a pattern`, () => {
    for (const name of ["commands", "settings"]) {
      assert.deepEqual(leaves(locale(language, name)).filter((text) => /[{}@|]/.test(text)), []);
    }
  });
}

test("commands and settings are called by their ids", () => {
  const commands = [...Object.values(COMMANDS), ...Object.values(NODE_COMMANDS)];
  assert.deepEqual(Object.keys(locale("en", "commands")).sort(), commands.map(keyOf).sort());
  const settings = [BADGE, ...SERVER_SETTINGS.map(({ id }) => id)];
  assert.deepEqual(Object.keys(locale("en", "settings")).sort(), settings.map(keyOf).sort());
});

test("a setting is called as in the code", () => {
  const settings = locale("en", "settings");
  for (const { id, text } of SERVER_SETTINGS) assert.equal(settings[keyOf(id)].name, TEXTS[text]);
  assert.equal(settings[keyOf(BADGE)].name, TEXTS.settingBadge);
  const shown = [...SERVER_SETTINGS, { id: BADGE, text: "settingBadge" }];
  const texts = /** @type {Record<string, string>} */ (TEXTS);
  for (const { id, text } of shown) assert.equal(settings[keyOf(id)].tooltip, texts[`${text}Tip`]);
});
