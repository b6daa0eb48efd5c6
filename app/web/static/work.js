// Pictures that are being enhanced: one Work for a picture with its settings, in a queue.

import { send } from "./jobs.js";
import { provable, scaleOf } from "./settings.js";
import { megapixels, number, say } from "./words.js";

const AT_ONCE = 2;
const JOB_PIXELS = 8e6; // of output, from which on the work is a job, followed tile by tile
const JOB_SECONDS = 8;
const GUESSED_SECONDS = 5; // where there is no forecast
const MOST_RETRIES = 20;

// What a browser shows, by media type; the service answers in the first that suits the picture.
export const RESULT_FORMATS = JSON.parse(document.body.dataset.resultFormats);
const SHOWN = Object.keys(RESULT_FORMATS).join(", ");

export class Work {
  state = "waiting"; // then working, and done, failed or cancelled
  part = 0; // of the work, 0 to 1
  doing = say("waiting");
  secondsLeft = null;
  result = null;
  problem = null;
  controller = new AbortController();

  // picture: {file, size: {width, height} or undefined}; asked: the parameters; batch: whether the
  // picture came with others.
  constructor(picture, asked, { batch = false } = {}) {
    Object.assign(this, { picture, asked, batch });
  }

  get ended() {
    return ["done", "failed", "cancelled"].includes(this.state);
  }
}

export class Queue {
  works = [];

  // settings forecast; changed(work) hears of every step.
  constructor(settings, changed) {
    this.settings = settings;
    this.changed = changed;
  }

  add(works) {
    this.works.push(...works);
    this.#begin();
  }

  get busy() {
    return this.works.some((work) => !work.ended);
  }

  cancel(work) {
    if (work.ended) return;
    work.state = "cancelled";
    work.controller.abort();
    this.changed(work);
    this.#begin();
  }

  remove(work) {
    this.cancel(work);
    this.works = this.works.filter((other) => other !== work);
  }

  #begin() {
    let running = this.works.filter((work) => work.state === "working").length;
    for (const work of this.works) {
      if (running >= AT_ONCE) return;
      if (work.state !== "waiting") continue;
      running += 1;
      this.#do(work);
    }
  }

  async #do(work) {
    const update = (facts) => {
      if (work.state !== "working") return;
      // Never backwards: a job that is begun again has to make up for it first.
      Object.assign(work, facts, { part: Math.max(work.part, facts.part ?? 0) });
      this.changed(work);
    };
    work.state = "working";
    update({ doing: say("reading") });
    try {
      work.result = await this.#enhance(work, update);
      work.state = "done";
      work.part = 1;
    } catch (problem) {
      if (work.state !== "cancelled") {
        work.state = "failed";
        work.problem = problem;
      }
    }
    this.changed(work);
    this.#begin();
  }

  async #enhance(work, update) {
    const { picture, asked, controller } = work;
    const facts = await this.settings.forecast(picture, asked);
    if (facts) picture.size ??= { width: facts.input_width, height: facts.input_height };
    const pixels = facts ? facts.output_width * facts.output_height : guessedPixels(work);
    const seconds = facts?.seconds_expected || GUESSED_SECONDS;
    const batch = work.batch || this.works.filter((other) => !other.ended).length > 1;
    const asJob = batch || pixels >= JOB_PIXELS || seconds > JOB_SECONDS;
    const query = new URLSearchParams(provable(asked, picture.size));
    const doing = say("enhancing", { size: megapixels(pixels) });
    for (let retries = 0; ; retries++) {
      try {
        const on = progress({ update, doing, seconds, asJob });
        const options = { signal: controller.signal, accept: SHOWN, asJob, on };
        return resultOf(await send(`enhance?${query}`, picture.file, options).finally(on.end));
      } catch (problem) {
        // A model is loaded at its first use; of many pictures, each waits until there is room.
        const worthWaiting = problem.retryAfter && (batch || problem.kind === "not-ready");
        if (!worthWaiting || retries === MOST_RETRIES) throw problem;
        update({ doing: say("waiting") });
        await new Promise((again) => setTimeout(again, 1000 * problem.retryAfter));
        if (work.state !== "working") throw problem;
      }
    }
  }
}

// Plain enlarging by the service, of a picture whose work is done.
export async function enlargePlainly({ picture, asked, result }) {
  const same = ["scale", "width", "height", "fit", "icc", "metadata", "quality"];
  const alike = Object.fromEntries(same.filter((name) => asked[name]).map((name) => [name, asked[name]]));
  const query = new URLSearchParams({ ...alike, format: result.format, model: "bicubic" });
  return resultOf(await send(`enhance?${query}`, picture.file, { accept: SHOWN }));
}

// The same picture, or as much of it as is given, by another model; only for its gain.
export async function gainOf(model, file, asked, signal) {
  const query = new URLSearchParams({ scale: asked.scale, model, proof: true });
  const { header } = await send(`enhance?${query}`, file, { accept: SHOWN, signal });
  return Number(header("X-Proof-Gain-dB"));
}

function resultOf({ header, blob }) {
  const { name: format, suffix } = RESULT_FORMATS[blob.type];
  const gain = header("X-Proof-Gain-dB");
  const [width, height] = header("X-Output-Size").split("x").map(Number);
  return {
    blob,
    format,
    suffix,
    width,
    height,
    model: header("X-Model").split("@")[0],
    notes: header("X-Notes") ?? "",
    gain: gain === null ? null : Number(gain),
    plainDecibels: header("X-Proof-Bicubic-dB"),
    modelDecibels: header("X-Proof-Model-dB"),
  };
}

function guessedPixels({ picture, asked }) {
  const pixels = picture.size ? picture.size.width * picture.size.height : picture.file.size;
  return pixels * (scaleOf(asked, picture.size) || 1) ** 2;
}

// Turns what is heard of a request into one part, from 0 to 1, and seconds that are left.
function progress({ update, doing, seconds, asJob }) {
  let timer;
  let first = null; // when the first tile was done, and how many there were
  return {
    end: () => clearInterval(timer),
    sending: (part) => update({ doing: say("sending"), part: 0.15 * part, secondsLeft: seconds }),
    working() {
      if (asJob) return;
      const begun = performance.now();
      // Nobody knows how far the service is: half of what is left in every half of the time.
      timer = setInterval(() => {
        const spent = (performance.now() - begun) / 1000;
        const part = 0.15 + 0.75 * (1 - 2 ** ((-2 * spent) / seconds));
        update({ doing, part, secondsLeft: spent < seconds ? seconds - spent : null });
      }, 200);
    },
    tiles(stage, done, all) {
      const now = performance.now() / 1000;
      if (done && !first) first = { now, done };
      const pace = first && done > first.done ? (now - first.now) / (done - first.done) : null;
      update({
        doing: done ? `${doing} (${say("tiles", { done: number(done), all: number(all) })})` : say(`stage_${stage}`),
        part: 0.15 + (0.75 * done) / all,
        secondsLeft: pace === null ? seconds : pace * (all - done),
      });
    },
    receiving(part) {
      clearInterval(timer);
      update({ doing: say("receiving"), part: 0.9 + 0.1 * part, secondsLeft: null });
    },
  };
}
