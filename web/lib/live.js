// One connection to the supervisor for everything on the page.

import { keepDecode, keepJob, keepProcess, keepSample } from "./report.js";
import { openStream } from "./stream.js";

/**
 * What a part of the page wants to hear; every handler is optional.
 * @typedef {object} Listener
 * @property {"live" | "slow"} [rate] `slow` (once a second) unless told otherwise
 * @property {(report: any) => void} [onSnapshot]
 * @property {(sample: any) => void} [onTelemetry]
 * @property {(change: any) => void} [onJob]
 * @property {(progress: any) => void} [onDecode]
 * @property {(state: any) => void} [onProcess]
 * @property {(state: import("./stream.js").StreamState) => void} [onConnection]
 */

/** A minute of samples at the full rate, for one device and for one more. */
const BACKFILL_EVENTS = 1200;

/**
 * @typedef {object} Hub
 * @property {(listener: Listener) => () => void} subscribe returns what ends it
 * @property {() => any} report the newest answer of the probe with what came since, null before the
 *   first
 * @property {() => import("./stream.js").StreamState} connection
 */

/**
 * @param {{url: string, open?: typeof openStream}} options `url` of the probe
 * @returns {Hub}
 */
export function createHub({ url, open = openStream }) {
  const hub = new LiveHub(url, open);
  return {
    subscribe: (listener) => hub.subscribe(listener),
    report: () => hub.report,
    connection: () => hub.connection,
  };
}

class LiveHub {
  /**
   * @param {string} url
   * @param {typeof openStream} open
   */
  constructor(url, open) {
    this.url = url;
    this.open = open;
    /** @type {Set<Listener>} */
    this.listeners = new Set();
    /** @type {{close: () => void} | null} */
    this.stream = null;
    this.slow = true;
    /** @type {any} */
    this.report = null;
    /** @type {import("./stream.js").StreamState} */
    this.connection = "closed";
    /** Stands for the stream in use. @type {object | null} */
    this.own = null;
  }

  /** @param {Listener} listener */
  subscribe(listener) {
    this.listeners.add(listener);
    // What is known already need not be waited for.
    if (this.report !== null) listener.onSnapshot?.(this.report);
    listener.onConnection?.(this.connection);
    this.follow();
    return () => {
      if (this.listeners.delete(listener)) this.follow();
    };
  }

  /** Open, close or change the connection as those who listen need it. */
  follow() {
    const wanted = this.listeners.size > 0;
    const slow = ![...this.listeners].some(({ rate }) => rate === "live");
    if (this.stream && wanted && slow === this.slow) return;
    // Of one that is replaced nobody need hear that it closed.
    if (wanted) this.own = null;
    this.stream?.close();
    this.stream = null;
    this.slow = slow;
    if (wanted) this.connect();
  }

  connect() {
    const tell = (
      /** @type {keyof Listener} */ name,
      /** @type {(report: any, value: any) => void} */ keep,
    ) => (/** @type {any} */ value) => {
      keep(this.report, value);
      this.tell(name, value);
    };
    const options = { slow: this.slow, backfill: this.slow ? 0 : BACKFILL_EVENTS };
    const own = {};
    this.own = own;
    this.stream = this.open(
      this.url,
      {
        onSnapshot: (report) => {
          this.report = report;
          this.tell("onSnapshot", report);
        },
        onTelemetry: tell("onTelemetry", keepSample),
        onJob: tell("onJob", keepJob),
        onDecode: tell("onDecode", keepDecode),
        onProcess: tell("onProcess", keepProcess),
        onState: (state) => {
          if (this.own !== own) return;
          this.connection = state;
          this.tell("onConnection", state);
        },
      },
      options,
    );
  }

  /**
   * One that fails must not keep the others from hearing.
   * @param {keyof Listener} name
   * @param {any} value
   */
  tell(name, value) {
    for (const listener of [...this.listeners]) {
      const handler = /** @type {((value: any) => void) | undefined} */ (listener[name]);
      try {
        handler?.call(listener, value);
      } catch (error) {
        console.error(`[VRAM supervisor] ${name} failed; the other views go on.`, error);
      }
    }
  }
}
