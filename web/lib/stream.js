// Live events of the supervisor: server-sent events with resume, polling where a stream is
// refused or swallowed by a proxy, silence while the page is hidden.

/**
 * @typedef {"connecting" | "live" | "reconnecting" | "polling" | "paused" | "closed"} StreamState
 */

/**
 * @typedef {object} StreamHandlers
 * @property {(report: any) => void} onSnapshot the probe's JSON answer, at each connection and poll
 * @property {(sample: any) => void} onTelemetry one sample, in order of time per device
 * @property {(change: any) => void} onJob a job's start, node change or end
 * @property {(progress: any) => void} [onDecode] a decode's plan, parts and end
 * @property {(state: any) => void} [onProcess] reserve and warnings of the whole process
 * @property {(count: number) => void} [onDropped] events this client was too slow for
 * @property {(state: StreamState) => void} onState
 */

/**
 * What is taken from the browser; tests hand in their own.
 * @typedef {object} World
 * @property {typeof globalThis.fetch} fetch
 * @property {typeof globalThis.EventSource | undefined} EventSource
 * @property {Document} document
 * @property {(run: () => void, delay_ms: number) => any} setTimeout
 * @property {(timer: any) => void} clearTimeout
 * @property {() => number} random
 */

export const POLL_MS = 2000;
export const SILENCE_MS = 20000;
const POLLS_BEFORE_RETRY = 15;
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 10000;

/**
 * Open the stream behind the probe at `url`.
 * @param {string} url address of the probe, without a query
 * @param {StreamHandlers} handlers
 * @param {{backfill?: number, slow?: boolean, world?: World}} [options] `backfill`: how many
 *   events of the recent past to ask for when nothing newer was seen; `slow`: an event a second
 *   will do
 * @returns {{close: () => void}}
 */
export function openStream(
  url,
  handlers,
  { backfill = 0, slow = false, world = browser() } = {},
) {
  const stream = new SupervisorStream(url, handlers, backfill, slow, world);
  stream.start();
  return stream;
}

/**
 * The id to resume after: the newest one seen in this server's life, but never further back
 * than `backfill` events before the server's newest.
 * @param {string | null} seen
 * @param {string | null | undefined} newest
 * @param {number} backfill
 * @returns {string | null}
 */
export function resumeAfter(seen, newest, backfill) {
  const [epoch, sequence] = split(newest);
  if (epoch === null) return null;
  const [seenEpoch, seenSequence] = split(seen);
  const earliest = Math.max(0, sequence - backfill);
  return `${epoch}-${seenEpoch === epoch ? Math.max(seenSequence, earliest) : earliest}`;
}

/**
 * @param {string | null | undefined} id
 * @returns {[string, number] | [null, 0]}
 */
function split(id) {
  const match = /^([0-9a-f]+)-([0-9]+)$/.exec(id ?? "");
  return match ? [match[1], Number(match[2])] : [null, 0];
}

/** @returns {World} */
function browser() {
  return {
    fetch: globalThis.fetch.bind(globalThis),
    EventSource: globalThis.EventSource,
    document: globalThis.document,
    setTimeout: (run, delay_ms) => globalThis.setTimeout(run, delay_ms),
    clearTimeout: (timer) => globalThis.clearTimeout(timer),
    random: Math.random,
  };
}

class SupervisorStream {
  /**
   * @param {string} url
   * @param {StreamHandlers} handlers
   * @param {number} backfill
   * @param {boolean} slow
   * @param {World} world
   */
  constructor(url, handlers, backfill, slow, world) {
    this.url = url;
    this.handlers = handlers;
    this.backfill = backfill;
    this.slow = slow;
    this.world = world;
    /** @type {StreamState | null} */
    this.state = null;
    /** @type {string | null} */
    this.lastId = null;
    /** @type {Map<string, number>} */
    this.lastTimes = new Map();
    this.failures = 0;
    this.timer = null;
    /** @type {EventSource | null} */
    this.source = null;
    /** @type {AbortController | null} */
    this.request = null;
    this.onVisibility = () => this.followVisibility();
  }

  start() {
    this.world.document.addEventListener("visibilitychange", this.onVisibility);
    this.followVisibility();
  }

  close() {
    this.world.document.removeEventListener("visibilitychange", this.onVisibility);
    this.halt();
    this.enter("closed");
  }

  /** A hidden page costs nothing: no stream, no request, no timer. */
  followVisibility() {
    this.halt();
    if (this.world.document.visibilityState === "hidden") {
      this.enter("paused");
      return;
    }
    this.failures = 0;
    this.enter("connecting");
    this.connect();
  }

  /** Snapshot first, then the stream from the snapshot's id on: nothing falls in between. */
  async connect() {
    const report = await this.ask();
    if (report === undefined) return;
    this.handlers.onSnapshot(report);
    const after = resumeAfter(this.lastId, report.stream?.last_event_id, this.backfill);
    if (this.world.EventSource) this.listen(after);
    else this.poll();
  }

  /** @param {string | null} after */
  listen(after) {
    const resume = after === null ? "" : `&last_event_id=${encodeURIComponent(after)}`;
    const source = new /** @type {any} */ (this.world.EventSource)(
      `${this.url}?stream=1${this.slow ? "&slow=1" : ""}${resume}`,
    );
    this.source = source;
    this.watch();
    let spoke = false;
    const hear = (/** @type {string} */ kind, /** @type {(data: any) => void} */ deliver) =>
      source.addEventListener(kind, (/** @type {MessageEvent} */ event) => {
        spoke = true;
        this.failures = 0;
        this.enter("live");
        this.watch();
        if (event.lastEventId) this.lastId = event.lastEventId;
        deliver(JSON.parse(event.data));
      });
    hear("telemetry", (sample) => this.deliver(sample));
    hear("job", (change) => this.handlers.onJob(change));
    hear("decode", (progress) => this.handlers.onDecode?.(progress));
    hear("state", (state) => this.handlers.onProcess?.(state));
    hear("dropped", ({ count }) => this.handlers.onDropped?.(count));
    source.addEventListener("error", () => {
      // The browser would retry by itself, but not after a refusal and without a snapshot.
      this.halt();
      if (spoke) this.retry();
      else this.poll();
    });
  }

  /** A stream that says nothing for long is held back by something between us. */
  watch() {
    this.world.clearTimeout(this.timer);
    this.timer = this.world.setTimeout(() => {
      this.halt();
      this.poll();
    }, SILENCE_MS);
  }

  /** @param {number} [left] polls before the stream is tried again */
  async poll(left = POLLS_BEFORE_RETRY) {
    const report = await this.ask();
    if (report === undefined) return;
    this.enter("polling");
    this.handlers.onSnapshot(report);
    for (const sample of Object.values(report.telemetry ?? {})) this.deliver(sample);
    this.timer = this.world.setTimeout(() => {
      if (left > 0) this.poll(left - 1);
      else this.connect();
    }, POLL_MS);
  }

  /**
   * The probe's answer; undefined when it failed (a retry is under way) or is not wanted any more.
   * @returns {Promise<any>}
   */
  async ask() {
    const request = new AbortController();
    this.request = request;
    try {
      const response = await this.world.fetch(this.url, {
        cache: "no-store",
        signal: request.signal,
      });
      if (!response.ok) throw new Error(`the probe answered ${response.status}`);
      const report = await response.json();
      return request.signal.aborted ? undefined : report;
    } catch (error) {
      if (!request.signal.aborted) this.retry();
      return undefined;
    }
  }

  retry() {
    this.enter("reconnecting");
    const longest = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.failures);
    this.failures += 1;
    // Spread out, so that many pages do not come back in one moment.
    const delay_ms = longest * (0.5 + this.world.random() / 2);
    this.timer = this.world.setTimeout(() => this.connect(), delay_ms);
  }

  /** @param {any} sample */
  deliver(sample) {
    if (typeof sample.time_s !== "number") return;
    if (sample.time_s === this.lastTimes.get(sample.device)) return;
    this.lastTimes.set(sample.device, sample.time_s);
    this.handlers.onTelemetry(sample);
  }

  /** Stop whatever is under way. */
  halt() {
    this.source?.close();
    this.source = null;
    this.request?.abort();
    this.request = null;
    this.world.clearTimeout(this.timer);
    this.timer = null;
  }

  /** @param {StreamState} state */
  enter(state) {
    if (state === this.state) return;
    this.state = state;
    this.handlers.onState(state);
  }
}
