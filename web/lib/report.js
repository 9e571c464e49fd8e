// The probe's answer, kept as new as the events since: who looks later must not see the past.

import { MOST_JOBS, applyDecode } from "./model.js";

/**
 * @param {any} report
 * @param {any} sample
 */
export function keepSample(report, sample) {
  const device = report?.telemetry?.[sample.device];
  if (device) device.reading = sample.reading;
}

/**
 * @param {any} report
 * @param {any} change
 */
export function keepJob(report, change) {
  if (!report) return;
  report.jobs ??= {};
  const { jobs } = report;
  if (change.phase === "end") {
    jobs.current = null;
    if (change.record) jobs.recent = newestFirst(change.record, jobs.recent ?? []);
    return;
  }
  const { job_id, node_id, node_type, time_s } = change;
  const started_s = jobs.current?.job_id === job_id ? jobs.current.started_s : time_s;
  const nodes = node_id === null ? [] : [{ node_id, node_type, ended_s: null }];
  jobs.current = { job_id, started_s, nodes };
}

/**
 * @param {any} record told again where the stream resumed
 * @param {any[]} known
 */
function newestFirst(record, known) {
  const others = known.filter(({ job_id }) => job_id !== record.job_id);
  return [record, ...others].slice(0, MOST_JOBS);
}

/**
 * @param {any} report
 * @param {any} progress
 */
export function keepDecode(report, progress) {
  if (report) applyDecode(report, progress);
}

/**
 * @param {any} report
 * @param {any} state
 */
export function keepProcess(report, state) {
  if (report) report.state = state;
}
