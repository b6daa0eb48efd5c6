// The settings: which size, for which kind of picture, and how it is written.

import { forecast } from "./jobs.js";
import { choose, explain, familyOfAuto, offer } from "./kinds.js";
import { duration, megapixels, say } from "./words.js";

const at = (id) => document.getElementById(id);
const SMALLEST_PROVED_SCALE = 1.5;
const LARGE = 4e6; // px of a picture, above which ×2 is preselected
const WAIT_MS = 250; // after a change, until the service is asked for forecasts

export class Settings {
  #models;
  #forecasts = new WeakMap(); // picture -> Map of parameters -> promise
  #default = at("scale").value;
  #scaleIsChosen = false;
  #timer;

  constructor(models, changed) {
    this.#models = models;
    // Bicubic is a model without a scale of its own.
    const trained = models.filter((model) => model.parameters);
    for (const scale of [...new Set(trained.map((model) => model.scale))].sort()) this.#addChip(scale);
    offer(models);
    if (at("advanced-fields")) at("advanced-fields").disabled = false;
    at("scale").addEventListener("input", () => (this.#scaleIsChosen = true));
    at("settings").addEventListener("input", () => {
      this.#check();
      this.#timer && clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#showForecasts(), WAIT_MS);
      changed();
    });
    this.#check();
  }

  #addChip(scale) {
    const chip = document.createElement("button");
    chip.type = "button";
    chip.value = scale;
    chip.innerHTML = "<span></span><small></small>";
    chip.firstChild.textContent = `×${scale}`;
    chip.addEventListener("click", () => {
      at("scale").value = scale;
      at("scale").dispatchEvent(new Event("input", { bubbles: true }));
    });
    at("scales").append(chip);
  }

  get scale() {
    return Number(at("scale").value.trim().replace(",", "."));
  }

  // Whether the scale can be asked for; if not, the page says so beside it.
  get valid() {
    const { min, max } = at("scale").dataset;
    return this.scale >= Number(min) && this.scale <= Number(max);
  }

  // What is asked for, by the names of the service's parameters; without what is its default.
  parameters() {
    const given = [...new FormData(at("settings"))].filter(
      ([name, value]) => value && !["file", "folder"].includes(name),
    );
    const asked = Object.fromEntries(given.map(([name, value]) => [name, value.trim()]));
    if (asked.width || asked.height) delete asked.scale; // which are two ways to say the size
    else asked.scale = String(this.scale);
    return asked;
  }

  // The parameters for a picture that comes in: a large one is not made nine times as large at once.
  async parametersFor(picture) {
    const asked = this.parameters();
    const facts = await this.forecast(picture, asked);
    if (facts) picture.size ??= { width: facts.input_width, height: facts.input_height };
    if (this.#scaleIsChosen || !picture.size || !asked.scale) return asked;
    const large = picture.size.width * picture.size.height > LARGE;
    const scale = large ? "2" : this.#default;
    return { ...asked, scale };
  }

  // Shows the settings of a picture that is looked at, and what each size would take.
  show(picture, asked) {
    this.picture = picture;
    for (const chip of at("scales").children) chip.lastChild.textContent = chip.title = "";
    if (asked.scale) at("scale").value = asked.scale;
    choose(asked.model);
    for (const field of at("advanced-fields").elements) {
      if (field.type === "checkbox") field.checked = asked[field.name] === field.value;
      else field.value = asked[field.name] ?? "";
    }
    explain("");
    this.#check();
    this.#showForecasts();
  }

  // What the service says that it takes; null where it does not know.
  forecast(picture, asked) {
    const model = asked.model === "auto" ? familyOfAuto(this.#models) : asked.model;
    if (!model) return Promise.resolve(null);
    const query = provable({ ...asked, model }, picture.size);
    const key = JSON.stringify(query);
    if (!this.#forecasts.has(picture)) this.#forecasts.set(picture, new Map());
    const known = this.#forecasts.get(picture);
    if (!known.has(key)) known.set(key, forecast(picture.file, query));
    return known.get(key);
  }

  async #showForecasts() {
    const { picture } = this;
    if (!picture || !this.valid) return;
    const asked = this.parameters();
    for (const chip of at("scales").children) {
      const { width, height, fit, ...others } = asked;
      const facts = await this.forecast(picture, { ...others, scale: chip.value });
      if (picture !== this.picture) return;
      if (!facts) continue;
      const made = megapixels(facts.output_width * facts.output_height);
      const time = duration(facts.seconds_expected);
      chip.lastChild.textContent = `${made}, ${time}`;
      const given = megapixels(facts.input_width * facts.input_height);
      chip.title = say("expectation", { given, made, time });
    }
  }

  #check() {
    for (const chip of at("scales").children)
      chip.setAttribute("aria-pressed", String(Number(chip.value) === this.scale));
    const { min, max } = at("scale").dataset;
    at("scale").setAttribute("aria-invalid", String(!this.valid));
    at("scale-problem").hidden = this.valid;
    at("scale-problem").textContent = this.valid
      ? ""
      : say("scale_out_of_range", { min, max, value: at("scale").value });
  }
}

// The parameters without a proof that is not possible at their scale.
export function provable(asked, size) {
  const { proof, ...others } = asked;
  return proof && scaleOf(asked, size) >= SMALLEST_PROVED_SCALE ? asked : others;
}

// The scale that a size comes to; NaN where the picture's own size is not known.
export function scaleOf({ scale, width, height, fit }, size) {
  if (scale) return Number(scale);
  const ratios = [width / size?.width, height / size?.height].filter((ratio) => ratio);
  if (!ratios.length) return NaN;
  return fit === "cover" || fit === "exact" ? Math.max(...ratios) : Math.min(...ratios);
}
