// Short messages, through whatever the frontend has for them.

/**
 * @typedef {"success" | "info" | "warn" | "error"} Severity
 * @param {any} app
 * @returns {(severity: Severity, summary: string, detail?: string) => void}
 */
export function toaster(app) {
  return (severity, summary, detail) => {
    const toast = app.extensionManager?.toast;
    const name = severity === "warn" ? "warning" : severity;
    // `toast.success` and the like came with 1.57.1; `add` before that, and as a shim after.
    if (typeof toast?.[name] === "function") toast[name](summary, { description: detail });
    else if (typeof toast?.add === "function") {
      toast.add({ severity, summary, detail, life: severity === "error" ? 8000 : 4000 });
    } else console.log(`[VRAM supervisor] ${summary}${detail ? `: ${detail}` : ""}`);
  };
}
