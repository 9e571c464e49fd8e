import assert from "node:assert/strict";
import { test } from "node:test";

import { segments, usedBytes } from "../../web/lib/segments.js";

const UNKNOWN = {
  total_bytes: null,
  used_bytes: null,
  free_bytes: null,
  process_bytes: null,
  torch_allocated_bytes: null,
  torch_reserved_bytes: null,
  outside_torch_bytes: null,
  external_bytes: null,
};

const table = [
  ["nothing is known: nothing is shown", {}, {}],
  [
    "everything is known",
    { total_bytes: 100, used_bytes: 60, torch_reserved_bytes: 30, outside_torch_bytes: 10, external_bytes: 20 },
    { torch: 30, outside: 10, external: 20, free: 40 },
  ],
  [
    "torch's cache counts, for nobody else can have it",
    { total_bytes: 100, used_bytes: 30, torch_allocated_bytes: 5, torch_reserved_bytes: 30, external_bytes: 0 },
    { torch: 30, external: 0, free: 70 },
  ],
  [
    "the driver does not tell processes apart: the rest belongs to somebody unknown",
    { total_bytes: 100, used_bytes: 60, torch_reserved_bytes: 30 },
    { torch: 30, unattributed: 30, free: 40 },
  ],
  [
    "a CPU knows the process but no torch",
    { total_bytes: 100, used_bytes: 60, process_bytes: 20, external_bytes: 40 },
    { process: 20, external: 40, free: 40 },
  ],
  ["only used and total", { total_bytes: 100, used_bytes: 60 }, { unattributed: 60, free: 40 }],
  ["only free and total", { total_bytes: 100, free_bytes: 30 }, { unattributed: 70, free: 30 }],
  ["only the total: free is not guessed", { total_bytes: 100 }, {}],
  [
    "figures torn between two instruments never exceed the total",
    { total_bytes: 100, used_bytes: 100, torch_reserved_bytes: 80, outside_torch_bytes: 30, external_bytes: 20 },
    { torch: 80, outside: 20, external: 0, free: 0 },
  ],
  [
    "a negative difference is no memory",
    { total_bytes: 100, used_bytes: 10, torch_reserved_bytes: 10, outside_torch_bytes: -3, external_bytes: 0 },
    { torch: 10, outside: 0, external: 0, free: 90 },
  ],
];

for (const [name, known, expected] of table) {
  test(name, () => {
    const parts = segments({ ...UNKNOWN, ...known });
    assert.deepEqual(Object.fromEntries(parts.map(({ id, bytes }) => [id, bytes])), expected);
  });
}

test("used falls back on total less free, and stays unknown otherwise", () => {
  assert.equal(usedBytes({ ...UNKNOWN, used_bytes: 7, total_bytes: 10, free_bytes: 1 }), 7);
  assert.equal(usedBytes({ ...UNKNOWN, total_bytes: 10, free_bytes: 1 }), 9);
  assert.equal(usedBytes({ ...UNKNOWN, total_bytes: 10 }), null);
});
