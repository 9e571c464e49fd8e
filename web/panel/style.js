// The panel's style, in ComfyUI's own colours, which change with its theme.

const ID = "vsup-style";

const CSS = `
.vsup-root { height: 100%; }
.vsup {
  --vsup-bg: var(--comfy-menu-bg, #202020);
  --vsup-card: color-mix(in srgb, var(--comfy-input-bg, #2a2a2a) 45%, var(--vsup-bg));
  --vsup-text: var(--input-text, var(--fg-color, #e8e8e8));
  --vsup-muted: color-mix(in srgb, var(--vsup-text) 72%, var(--vsup-card));
  --vsup-line: color-mix(in srgb, var(--border-color, #4e4e4e) 65%, var(--vsup-bg));
  --vsup-accent: var(--p-primary-color, #5b9bff);
  --vsup-torch: #4f8bff; --vsup-outside: #a9c8ff; --vsup-process: #4f8bff;
  --vsup-external: #e8962e; --vsup-unattributed: #8a97a6;
  --vsup-reserve: #d64fd0; --vsup-predicted: #e5484d; --vsup-busy: #2bb58c;
  --vsup-good: #2bb58c; --vsup-warn: #d98a1f; --vsup-bad: #e5484d;
  box-sizing: border-box; height: 100%; overflow: auto; padding: 12px;
  color: var(--vsup-text); background: var(--vsup-bg);
  font: 13px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  font-variant-numeric: tabular-nums; container-type: inline-size;
}
.vsup *, .vsup *::before { box-sizing: border-box; }
.vsup [hidden] { display: none !important; }
.vsup :where(p, ul, dl, dd, figure, h3) { margin: 0; padding: 0; }
.vsup h3 { font-size: 13px; font-weight: 650; }
.vsup ul { list-style: none; }
.vsup :focus-visible { outline: 2px solid var(--vsup-accent); outline-offset: 2px; border-radius: 4px; }
.vsup-head { display: flex; flex-wrap: wrap; align-items: center; gap: 8px; margin-bottom: 10px; }
.vsup-connection { display: inline-flex; align-items: center; gap: 6px; margin-right: auto; color: var(--vsup-muted); }
.vsup-connection::before { content: ""; width: 8px; height: 8px; border-radius: 50%; background: var(--vsup-unattributed); }
.vsup-connection[data-state="live"]::before { background: var(--vsup-good); }
.vsup-connection[data-state="reconnecting"]::before, .vsup-connection[data-state="polling"]::before { background: var(--vsup-warn); }
.vsup button, .vsup-dialog button {
  font: inherit; font-weight: 550; padding: 4px 10px; border-radius: 6px; cursor: pointer;
  color: var(--vsup-text, inherit); background: var(--vsup-card, transparent); border: 1px solid var(--vsup-line, currentColor);
}
.vsup button:hover { border-color: var(--vsup-accent); }
.vsup button[aria-disabled="true"] { opacity: .6; cursor: default; }
.vsup progress { appearance: none; display: block; width: 100%; height: 6px; margin: 6px 0; border: 0; border-radius: 3px; overflow: hidden; background: var(--vsup-line); }
.vsup progress::-webkit-progress-bar { background: var(--vsup-line); }
.vsup progress::-webkit-progress-value { background: var(--vsup-busy); }
.vsup progress::-moz-progress-bar { background: var(--vsup-busy); }
.vsup-message { margin-bottom: 10px; padding: 6px 10px; border-radius: 6px; background: var(--vsup-card); border: 1px solid var(--vsup-line); overflow-wrap: anywhere; }
.vsup-message[data-kind="warn"] { border-color: var(--vsup-warn); }
.vsup-grid { display: grid; gap: 10px; grid-template-columns: minmax(0, 1fr); }
.vsup-card { padding: 10px 12px; border-radius: 8px; background: var(--vsup-card); border: 1px solid var(--vsup-line); min-width: 0; }
.vsup-card-head { display: flex; align-items: baseline; gap: 8px; }
.vsup-card-head > :last-child { margin-left: auto; color: var(--vsup-muted); white-space: nowrap; }
.vsup-card h3 { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; min-width: 0; }
.vsup-headline { margin: 2px 0 6px; }
.vsup-headline strong { font-size: 22px; font-weight: 680; letter-spacing: -.02em; }
.vsup-headline span { color: var(--vsup-muted); margin-left: 6px; }
.vsup-chart { position: relative; }
.vsup-chart canvas { display: block; width: 100%; height: 112px; border-radius: 6px; background: var(--vsup-bg); }
.vsup-chart-top { position: absolute; top: 4px; left: 4px; padding: 0 3px; border-radius: 3px; background: var(--vsup-bg); font-size: 11px; color: var(--vsup-muted); pointer-events: none; }
.vsup-marks { position: absolute; inset: 0; pointer-events: none; }
.vsup .vsup-mark {
  position: absolute; width: 9px; height: 9px; margin: -5px 0 0 -5px; pointer-events: auto;
  border-radius: 50%; background: var(--vsup-card); border: 2px solid var(--vsup-text); padding: 0;
}
.vsup .vsup-mark:is(:hover, :focus-visible) { z-index: 1; }
.vsup .vsup-mark:is(:hover, :focus-visible)::after {
  content: attr(aria-label); position: absolute; bottom: 10px; left: 4px; padding: 2px 6px; border-radius: 4px;
  font-size: 11px; white-space: nowrap; pointer-events: none;
  color: var(--vsup-text); background: var(--vsup-bg); border: 1px solid var(--vsup-line);
}
.vsup .vsup-mark[data-side="left"]:is(:hover, :focus-visible)::after { left: auto; right: 4px; }
.vsup-legend { display: flex; flex-wrap: wrap; gap: 3px 14px; margin-top: 8px; font-size: 12px; }
.vsup-legend li { display: inline-flex; align-items: center; gap: 6px; }
.vsup-legend b { font-weight: 600; }
.vsup-legend span:nth-child(2) { color: var(--vsup-muted); }
.vsup-swatch { width: 10px; height: 10px; border-radius: 3px; flex: none; }
.vsup-swatch[data-part="torch"] { background: var(--vsup-torch); }
.vsup-swatch[data-part="outside"] { background: var(--vsup-outside); }
.vsup-swatch[data-part="process"] { background: var(--vsup-process); }
.vsup-swatch[data-part="external"] { background: repeating-linear-gradient(45deg, var(--vsup-external) 0 3px, color-mix(in srgb, var(--vsup-external) 60%, #000) 3px 5px); }
.vsup-swatch[data-part="unattributed"] { background: var(--vsup-unattributed); }
.vsup-swatch[data-part="free"] { background: transparent; border: 1px solid var(--vsup-muted); }
.vsup-swatch[data-part="reserve"] { height: 0; border-top: 2px solid var(--vsup-reserve); border-radius: 0; }
.vsup-swatch[data-part="predicted"] { height: 0; border-top: 2px dashed var(--vsup-predicted); border-radius: 0; }
.vsup-others { margin-top: 8px; font-size: 12px; }
.vsup-others summary { cursor: pointer; color: var(--vsup-muted); }
.vsup-others li { display: flex; gap: 8px; }
.vsup-others li > :first-child { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.vsup-others li > :last-child { margin-left: auto; }
.vsup-job-line { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 10px; }
.vsup-muted { color: var(--vsup-muted); overflow-wrap: anywhere; }
.vsup-map { display: block; max-width: 100%; max-height: 150px; margin: 8px 0 4px; border-radius: 6px; background: var(--vsup-bg); border: 1px solid var(--vsup-line); }
.vsup-table { overflow-x: auto; margin-top: 6px; container-type: inline-size; }
.vsup table { border-collapse: collapse; width: 100%; font-size: 12px; }
.vsup th { text-align: left; font-weight: 550; color: var(--vsup-muted); padding: 3px 7px 3px 0; vertical-align: bottom; border-bottom: 1px solid var(--vsup-line); }
.vsup td { padding: 4px 7px 4px 0; white-space: nowrap; border-bottom: 1px solid color-mix(in srgb, var(--vsup-line) 55%, transparent); }
.vsup :is(th, td):last-child { padding-right: 0; }
.vsup tr:last-child td { border-bottom: 0; }
.vsup-number { text-align: right !important; }
.vsup-status::before { content: ""; display: inline-block; width: 8px; height: 8px; margin-right: 6px; border-radius: 50%; background: var(--vsup-unattributed); }
.vsup-status[data-status="success"]::before { background: var(--vsup-good); }
.vsup-status[data-status="error"]::before { background: var(--vsup-bad); border-radius: 1px; }
.vsup-status[data-status="interrupted"]::before { background: var(--vsup-warn); border-radius: 0; transform: rotate(45deg); }
.vsup-dialog { max-width: min(720px, 92vw); width: 720px; padding: 16px; border-radius: 10px; border: 1px solid var(--border-color, #555); background: var(--comfy-menu-bg, #202020); color: var(--input-text, #eee); }
.vsup-dialog textarea { width: 100%; margin: 8px 0; font: 12px/1.4 ui-monospace, monospace; background: var(--comfy-input-bg, #111); color: inherit; }
.vsup-badge {
  display: inline-flex; align-items: center; gap: 6px; height: 28px; padding: 0 10px; border-radius: 6px; cursor: pointer;
  font: 600 12px/1 system-ui, sans-serif; font-variant-numeric: tabular-nums; white-space: nowrap;
  color: var(--input-text, #eee); border: 1px solid color-mix(in srgb, var(--border-color, #4e4e4e) 65%, var(--comfy-menu-bg, #202020));
  background: color-mix(in srgb, var(--comfy-input-bg, #2a2a2a) 45%, var(--comfy-menu-bg, #202020));
}
.vsup-badge::before { content: ""; width: 8px; height: 8px; border-radius: 50%; background: #2bb58c; }
.vsup-badge[data-level="high"]::before { background: #d98a1f; border-radius: 2px; }
.vsup-badge[data-level="full"]::before { background: #e5484d; border-radius: 0; transform: rotate(45deg); }
.vsup-badge[data-level="high"] { border-color: #d98a1f; }
.vsup-badge[data-level="full"] { border-color: #e5484d; }
@container (min-width: 720px) {
  .vsup-grid { grid-template-columns: repeat(auto-fit, minmax(290px, 1fr)); align-items: start; }
}
/* Where it is narrow a status is its sign; readers aloud and the pointer still get the word. */
@container (max-width: 440px) {
  .vsup-status, .vsup-status-head { font-size: 0; }
  .vsup-status::before { margin-right: 0; }
}
@media (forced-colors: active) {
  .vsup-swatch, .vsup-status::before, .vsup-connection::before { forced-color-adjust: none; }
}
`;

/**
 * Put the style into a page, once.
 * @param {Document} page
 */
export function addStyle(page) {
  if (page.getElementById(ID)) return;
  const style = page.createElement("style");
  style.id = ID;
  style.textContent = CSS;
  page.head.append(style);
}
