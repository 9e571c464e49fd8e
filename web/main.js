/**
 * The one file with side effects: registers the extension with ComfyUI's frontend.
 */

// @ts-ignore the frontend serves it
import { api } from "../../scripts/api.js";
// @ts-ignore
import { app } from "../../scripts/app.js";
import { createExtension } from "./extension.js";
import { migrateWorkflow } from "./lib/migration.js";

const extension = createExtension({ app, api, page: document });

app.registerExtension({
  ...extension,
  name: "iamccs.vram-supervisor",

  /** Runs on every loaded workflow before its widget values are restored. @param {any} graph */
  beforeConfigureGraph(graph) {
    extension.beforeConfigureGraph();
    const { unknown } = migrateWorkflow(graph);
    for (const { id, type, values } of unknown) {
      console.warn(
        `[VRAM supervisor] Node ${id} (${type}) was saved in a layout this version does not ` +
          `know; its ${values.length} values were left as they are. Check its widgets.`,
      );
    }
  },
});
