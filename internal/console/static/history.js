// What has been counted of late, for the charts: the samples that the admin server has
// kept, and then those of each answer.

import { moment } from "./format.js";

const kept = 30 * 60 * 1000; // ms

// number is 0 for whatever is none.
const number = (n) => (Number.isFinite(n) ? n : 0);

// A History holds samples {at, to, from, rtt}, oldest first: ms, two counters of bytes,
// and seconds, 0 for unknown. The last one is replaced until an interval is over.
export class History {
  #samples = [];
  #interval = 5000; // ms

  // replace takes what /status/history answers; names are those of the two counters.
  replace(answer, [to, from]) {
    this.#interval = Math.max(1, number(answer.interval_seconds) || 5) * 1000;
    const samples = (answer.samples ?? []).map((s) => ({ at: moment(s.at), to: number(s[to]), from: number(s[from]), rtt: number(s.rtt_seconds) }));
    this.#samples = samples.filter((s) => !Number.isNaN(s.at));
  }

  add(sample) {
    const [before, last] = this.#samples.slice(-2);
    if (last && sample.at <= last.at) return;
    if (last && last.at - before.at < this.#interval) this.#samples.pop();
    this.#samples.push(sample);
    const from = this.#samples.findIndex((s) => s.at > sample.at - kept - this.#interval);
    if (from > 0) this.#samples.splice(0, from);
  }

  // last returns the newest sample, if there is one.
  get last() {
    return this.#samples.at(-1);
  }

  // since is when the oldest sample was, in ms; Infinity without one.
  get since() {
    return this.#samples[0]?.at ?? Infinity;
  }

  // points returns what has come since a moment, in ms: {at, to, from, rtt}, of which the
  // first two are bytes a second. Null is unknown.
  points(since) {
    const points = [];
    for (const [i, sample] of this.#samples.entries()) {
      if (i === 0 || sample.at < since) continue;
      const last = this.#samples[i - 1];
      const seconds = (sample.at - last.at) / 1000;
      // Where answers were missing for long a rate would be an average of that time.
      const gap = seconds * 1000 > 3 * this.#interval;
      const rate = (a, b) => (gap || b < a ? null : (b - a) / seconds);
      points.push({ at: sample.at, to: rate(last.to, sample.to), from: rate(last.from, sample.from), rtt: sample.rtt > 0 ? sample.rtt : null });
    }
    return points;
  }
}
