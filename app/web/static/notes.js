// The service's notes on a result: what was kept, converted and dropped, and why a model was chosen.

import { say } from "./words.js";

// Other damage, which decides, comes before the compression that the picture has besides.
const REASONS = [
  [/noise of ([\d.]+) levels/, "reason_noise", "level"],
  [/is blurred/, "reason_blurred"],
  [/looks sharpened/, "reason_sharpened"],
  [/as good as a clean picture/, "reason_clean"],
  [/a JPEG of quality (\d+)/, "reason_jpeg", "quality"],
  [/compressed as (.+?)(?: and little detail|,|$)/, "reason_coded", "format"],
  [/the blocks of a JPEG/, "reason_blocks"],
  [/few colours/, "reason_few_colours"],
  [/a clean picture/, "reason_clean"],
];

// Why the model was chosen, in a few words; empty where nothing chose it.
export function reasonOf(notes) {
  const chosen = notes.match(/chosen for ([^;]*)/)?.[1];
  if (!chosen) return "";
  for (const [pattern, key, value] of REASONS) {
    const found = chosen.match(pattern);
    if (found) return say(key, value ? { [value]: found[1] } : {});
  }
  return chosen;
}

// Pairs of a label and what it is about, in the order of the notes; without the model's reason.
export function toldOf(notes) {
  return notes
    .split("; ")
    .filter((note) => note && !note.startsWith("chosen for "))
    .map((note) => {
      const [, kind, what] = note.match(/^(kept|converted|dropped): (.*)$/s) ?? [];
      return kind ? [say(`notes_${kind}`), what] : [say("notes_other"), note];
    });
}
