// The words of the page in the language that the service chose, and numbers as it writes them.

export const language = document.documentElement.lang;
const words = await (await fetch(new URL(`languages/${language}.json`, import.meta.url))).json();

// The sentence of a key, with the values in place of its {names}.
export function say(key, values = {}) {
  return words[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

export function has(key) {
  return key in words;
}

export function number(value, digits = 0) {
  return value.toLocaleString(language, { maximumFractionDigits: digits });
}

export function megapixels(pixels) {
  const millions = pixels / 1e6;
  return `${number(millions, millions < 0.1 ? 3 : millions < 10 ? 1 : 0)}\u00a0MP`;
}

export function bytes(count) {
  return count < 1e6 ? `${number(Math.max(1, count / 1e3))}\u00a0kB` : `${number(count / 1e6, 1)}\u00a0MB`;
}

// Seconds in words, rounded to what an estimate is good for.
export function duration(seconds) {
  const rounded = seconds < 10 ? Math.max(1, Math.round(seconds)) : Math.round(seconds / 5) * 5;
  return rounded < 90
    ? say("seconds", { count: number(rounded) })
    : say("minutes", { count: number(seconds / 60) });
}

// A gain with its sign, as +1.8 dB.
export function decibels(gain) {
  const rounded = Math.round(gain * 10) / 10;
  const size = Math.abs(rounded).toLocaleString(language, { minimumFractionDigits: 1 });
  return `${rounded < 0 ? "−" : "+"}${size}\u00a0dB`;
}
