// Rates from counters: each answer has only totals.

// A Rates holds the last counts by key, of those keys that the last answer had.
export class Rates {
  #last = new Map();

  // update takes counts by key, as of now (in ms), and returns rates a second by key:
  // arrays like the counts, of null where there is nothing to compare with yet.
  update(now, counts) {
    const next = new Map();
    const rates = new Map();
    for (const [key, values] of counts) {
      const last = this.#last.get(key);
      const entry = { at: now, values, rates: values.map(() => null) };
      if (last && now > last.at) {
        const seconds = (now - last.at) / 1000;
        entry.rates = values.map((value, i) => smooth(last.rates[i], (value - last.values[i]) / seconds));
      } else if (last) {
        entry.at = last.at;
        entry.values = last.values;
        entry.rates = last.rates;
      }
      next.set(key, entry);
      rates.set(key, entry.rates);
    }
    this.#last = next;
    return rates;
  }
}

// smooth lets a number that changes each second be read. A counter that has gone back
// is another one's.
function smooth(before, now) {
  if (!(now >= 0)) return null;
  return before === null ? now : (before + now) / 2;
}
