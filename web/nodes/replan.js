// When a node's line needs another plan: its size changed, or what is free did.

const EVERY_S = 10;
const FREE_SHARE = 0.1;
const FREE_BYTES = 2 ** 29;

/** @typedef {{width?: number, height?: number, frames?: number, fps?: number}} Size */

export class PlanWatch {
  /** @param {(size: Size) => Promise<any>} ask the probe's answer for a size, null without one */
  constructor(ask) {
    this.ask = ask;
    this.asking = false;
    /** What the newest plan was asked for. @type {{size: string, free: number, time_s: number} | null} */
    this.asked = null;
  }

  /**
   * @param {Size} size as far as it is known
   * @param {number | null | undefined} free bytes now
   * @param {number} time_s seconds of any clock
   * @returns {Promise<any>} the probe's answer; null where nothing had to be asked, or nobody answered
   */
  async consider(size, free, time_s) {
    if (this.asking || !size.width || !size.height) return null;
    const now = { size: JSON.stringify(size), free: free ?? 0, time_s };
    if (!this.isStale(now)) return null;
    this.asking = true;
    this.asked = now;
    const report = await this.ask(size);
    this.asking = false;
    return report === null || report.error ? null : report;
  }

  /** @param {{size: string, free: number, time_s: number}} now */
  isStale(now) {
    const { asked } = this;
    if (asked === null || asked.size !== now.size) return true;
    if (now.time_s - asked.time_s < EVERY_S) return false;
    return Math.abs(now.free - asked.free) > Math.max(FREE_BYTES, FREE_SHARE * asked.free);
  }
}
