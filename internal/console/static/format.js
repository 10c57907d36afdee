// Values as people read them, with their units. What is not known is a dash.

export const none = "–";

const known = (n) => typeof n === "number" && Number.isFinite(n);

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const count = (n) => (known(n) ? whole.format(n) : none);

const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

// bytes shows three digits: 0 B, 940 B, 1.50 KiB, 23.1 MiB.
export function bytes(n) {
  if (!known(n)) return none;
  let unit = 0;
  for (; Math.abs(n) >= 1000 && unit < units.length - 1; unit++) n /= 1024;
  return `${unit === 0 ? Math.round(n) : digits(n)} ${units[unit]}`;
}

export const rate = (n) => (known(n) ? `${bytes(n)}/s` : none);

function digits(n) {
  const size = Math.abs(n);
  return n.toFixed(size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
}

// latency takes seconds; 0 is not measured.
export function latency(seconds) {
  if (!known(seconds) || seconds <= 0) return none;
  if (seconds < 0.001) return `${Math.max(1, Math.round(seconds * 1e6))} µs`;
  if (seconds < 0.9995) return `${digits(seconds * 1e3)} ms`;
  return `${digits(seconds)} s`;
}

// duration takes seconds and shows its two largest units: 4 s, 3 min 5 s, 2 h 1 min.
export function duration(seconds) {
  if (!known(seconds)) return none;
  const total = Math.max(0, Math.floor(seconds));
  const parts = [
    [Math.floor(total / 86400), "d"],
    [Math.floor(total / 3600) % 24, "h"],
    [Math.floor(total / 60) % 60, "min"],
    [total % 60, "s"],
  ];
  const first = parts.findIndex(([n]) => n > 0);
  if (first < 0) return "0 s";
  return parts
    .slice(first, first + 2)
    .filter(([n]) => n > 0)
    .map(([n, unit]) => `${n} ${unit}`)
    .join(" ");
}

// moment reads RFC 3339, as milliseconds; NaN if there is none. Go's zero time is none.
export function moment(text) {
  if (typeof text !== "string" || text.startsWith("0001-")) return NaN;
  return Date.parse(text);
}

// age is how long ago a moment was, in seconds.
export const age = (text, now) => (now - moment(text)) / 1000;

const clockFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minuteFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const dateFormat = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

export const clock = (ms) => (known(ms) ? clockFormat.format(ms) : none);
export const minute = (ms) => (known(ms) ? minuteFormat.format(ms) : none);
export const date = (text) => (known(moment(text)) ? dateFormat.format(moment(text)) : none);

// short is the beginning of an identifier or of a hex number, enough to tell it from
// others. What is no such thing is shown whole.
export function short(id) {
  if (typeof id !== "string" || id === "") return none;
  return /^([a-z2-7]{52}|[0-9a-f]{32})$/.test(id) ? `${id.slice(0, 8)}…` : id;
}

// party is a peer by its name and the beginning of its identifier.
export const party = (id, name) => (name ? `${name} (${short(id)})` : short(id));

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
