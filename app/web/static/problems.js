// What went wrong, in whole sentences that name the file and the way out.

import { has, say } from "./words.js";

const RAW = /\.(3fr|arw|cr2|cr3|crw|dcr|dng|erf|iiq|kdc|mef|mos|mrw|nef|nrw|orf|pef|raf|raw|rw2|rwl|sr2|srf|srw|x3f)$/i;

// Why a file is not worth sending; null where the service has to look at it.
export function refusalOf(file) {
  const name = file.name;
  if (file.size === 0) return new Error(say("file_empty", { name }));
  if (RAW.test(name)) return new Error(say("file_raw", { name }));
  if (file.type.startsWith("video/")) return new Error(say("file_video", { name }));
  if (file.type === "application/pdf") return new Error(say("file_pdf", { name }));
  return null;
}

// A problem+json as an Error: its sentence, its kind, and the seconds after which to try again.
export async function problemOf(blob, retryAfter, name) {
  let problem;
  try {
    problem = JSON.parse(await blob.text());
  } catch {
    return new Error(say("odd_answer"));
  }
  const { title, type } = problem;
  const detail = problem.detail.replace(/\.$/, "");
  const kind = type.split(":").at(-1);
  const key = `problem_${kind.replaceAll("-", "_")}`;
  const told = has(key) ? say(key, { name, detail }) : `${title}: ${detail}.`;
  const seconds = retryAfter === null ? null : Number(retryAfter);
  const again = seconds === null ? "" : ` ${say("try_again_in", { count: seconds })}`;
  return Object.assign(new Error(told + again), { kind, retryAfter: seconds });
}
