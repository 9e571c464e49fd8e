import assert from "node:assert/strict";
import { test } from "node:test";

import { changeSettings, freeMemory, freedText, probe } from "../../web/lib/actions.js";
import { TEXTS, loadTexts, translator } from "../../web/lib/texts.js";

const t = translator();
const GiB = 2 ** 30;

/** An api that answers, refuses or is not there. */
function api(status, answer) {
  const asked = [];
  return {
    asked,
    async fetchApi(path, options) {
      asked.push([path, options]);
      if (status === null) throw new TypeError("no connection");
      return { ok: status < 400, status, json: async () => answer };
    },
  };
}

test("memory is freed with a JSON body, and what came of it is told", async () => {
  const eviction = { freed_bytes: 3 * GiB, left: [{ name: "Flux" }, { name: "Wan" }] };
  const server = api(200, { cache_emptied: true, eviction });
  assert.deepEqual(await freeMemory(server, t), {
    done: true,
    text: "Freed 3.0 GiB. Unloaded: Flux, Wan.",
  });
  const [[path, options]] = server.asked;
  assert.equal(path, "/iamccs/supervisor/cleanup");
  assert.equal(options.headers["Content-Type"], "application/json");
  assert.deepEqual(JSON.parse(options.body), { unload_all_models: true, soft_empty_cache: true });
});

test("nothing had to leave", () => {
  assert.equal(freedText(null, t), TEXTS.freedNothing);
  assert.equal(freedText({ freed_bytes: 0, left: [] }, t), TEXTS.freedNothing);
});

test("a refusal is told in the server's words", async () => {
  const refusing = api(409, { error: { field: null, message: "Job 7 runs." } });
  assert.deepEqual(await freeMemory(refusing, t), {
    done: false,
    text: "Stays as it is: Job 7 runs.",
  });
});

test("a server that does not answer changes nothing, and that is said", async (context) => {
  context.mock.method(console, "warn", () => {});
  for (const server of [api(null), api(502, {})]) {
    const { done, text } = await freeMemory(server, t);
    assert.equal(done, false);
    assert.match(text, /nothing was changed/);
  }
});

test("the probe is asked for what is known of the decode", async () => {
  const server = api(200, { a: 1 });
  assert.deepEqual(await probe(server, { width: 832, height: 0, frames: null }), { a: 1 });
  assert.equal(server.asked[0][0], "/iamccs/hw_probe?width=832");
});

test("settings are changed by a part of them", async () => {
  const server = api(200, { settings: {} });
  await changeSettings(server, { history_days: 7 });
  assert.equal(server.asked[0][1].body, '{"history_days":7}');
});

test("texts in another language, English where one is missing", () => {
  const italian = translator({ live: "In diretta", of: "di {total} in uso", odd: {} });
  assert.equal(italian("live"), "In diretta");
  assert.equal(italian("of", { total: "8 GiB" }), "di 8 GiB in uso");
  assert.equal(italian("paused"), "Paused");
  assert.equal(translator()("of"), "of {total} in use", "a place nobody filled stays");
  assert.equal(translator()("nobody knows"), "nobody knows");
});

test("translations come from the host, and their absence is no error", async (context) => {
  context.mock.method(console, "warn", () => {});
  const all = { it: { vramSupervisor: { live: "In diretta" } } };
  assert.deepEqual(await loadTexts(api(200, all), "it"), { live: "In diretta" });
  assert.deepEqual(await loadTexts(api(200, all), "fr"), {});
  assert.deepEqual(await loadTexts(api(404, {}), "it"), {});
  assert.deepEqual(await loadTexts(api(null), "it"), {});
  const unasked = api(200, all);
  assert.deepEqual(await loadTexts(unasked, "en"), {});
  assert.equal(unasked.asked.length, 0);
});
