// Calls of the service with a picture: the forecast, the request, the job that is followed.

import { ask, authorization, noAnswer, takeKey } from "./key.js";
import { problemOf } from "./problems.js";

const HEAD_BYTES = 65536; // the first of a file: its header is there, in most formats
const TEMPORARY = [429, 502, 503, 504]; // of the service, or of a proxy that does not reach it

// What enhancing a picture would take, from its header; null where that is not known.
export async function forecast(file, query) {
  const form = new FormData();
  form.append("file", file.slice(0, HEAD_BYTES), file.name);
  const url = `enhance?${new URLSearchParams({ ...query, dry_run: true })}`;
  try {
    const answer = await ask(url, { method: "POST", body: form, headers: { Accept: "application/json" } });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

// Sends a picture; resolves to the answer's headers and blob, rejects with a problem.
// `on` hears how far it is: sending(part), working(), tiles(stage, done, all), receiving(part).
// fetch cannot tell how much was sent, so this is XMLHttpRequest.
export function send(url, file, { signal, accept, asJob = false, on = {} }) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    xhr.open("POST", url);
    xhr.responseType = "blob";
    xhr.setRequestHeader("Accept", accept);
    if (asJob) xhr.setRequestHeader("Prefer", "respond-async");
    for (const [name, value] of Object.entries(authorization())) xhr.setRequestHeader(name, value);
    let sent = false;
    const working = () => {
      if (!sent) on.working?.();
      sent = true;
    };
    xhr.upload.onprogress = ({ loaded, total }) => {
      on.sending?.(loaded / total);
      if (loaded === total) working(); // Firefox loads only when the answer comes
    };
    xhr.upload.onload = working;
    xhr.onprogress = ({ loaded, total }) => {
      if (xhr.status === 200) on.receiving?.(total ? loaded / total : 0);
    };
    xhr.onload = async () => {
      const header = (name) => xhr.getResponseHeader(name);
      if (xhr.status === 200) return resolve({ header, blob: xhr.response });
      if (xhr.status === 202)
        return resolve(follow(JSON.parse(await xhr.response.text()), file, { signal, on }));
      if (xhr.status === 401 && (await takeKey()))
        return resolve(send(url, file, { signal, accept, asJob, on }));
      reject(await problemOf(xhr.response, header("Retry-After"), file.name));
    };
    xhr.onerror = () => reject(noAnswer());
    xhr.onabort = () => reject(new DOMException("", "AbortError"));
    signal?.addEventListener("abort", () => xhr.abort());
    const form = new FormData();
    form.append("file", file);
    xhr.send(form);
  });
}

// Follows a job to its end; resolves to its result, or rejects with a problem, and removes it.
async function follow({ id }, file, { signal, on }) {
  const job = `jobs/${id}`;
  try {
    let state;
    for (let failures = 0; ; await new Promise((again) => setTimeout(again, 1000))) {
      try {
        for await (const report of reports(job, file, signal)) {
          const { stage, tiles_done: done, tiles } = report.progress;
          on.tiles?.(stage, done, tiles);
          state = report.state;
          failures = 0;
        }
        if (state === "done" || state === "failed") break;
      } catch (problem) {
        // The network, or a proxy; and a service that is started again goes on with its jobs.
        if (!(problem instanceof TypeError || problem.temporary)) throw problem;
        if (++failures > 30) throw problem.temporary ? problem : noAnswer();
      }
    }
    const answer = await ask(`${job}/result`, { signal });
    on.receiving?.(0);
    const blob = await answer.blob();
    if (!answer.ok) throw await problemOf(blob, answer.headers.get("Retry-After"), file.name);
    return { header: (name) => answer.headers.get(name), blob };
  } finally {
    // If this fails, it expires.
    fetch(job, { method: "DELETE", keepalive: true, headers: authorization() }).catch(() => {});
  }
}

// What a job's event stream tells. EventSource would not do: it sends no headers of ours.
async function* reports(job, file, signal) {
  let answer = await ask(`${job}/events`, { signal });
  if (TEMPORARY.includes(answer.status)) {
    // Too many streams are open. The job itself tells the same, once.
    answer = await ask(job, { signal });
    if (answer.ok) return yield await answer.json();
  }
  if (!answer.ok) {
    const problem = await problemOf(await answer.blob(), answer.headers.get("Retry-After"), file.name);
    throw Object.assign(problem, { temporary: TEMPORARY.includes(answer.status) });
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (text + value).split("\n");
    text = lines.pop();
    for (const line of lines) if (line.startsWith("data: ")) yield JSON.parse(line.slice(6));
  }
}
