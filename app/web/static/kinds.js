// The kinds of pictures, each with the model that suits it, and all models below.

import { element } from "./elements.js";
import { number, say } from "./words.js";

const at = (id) => document.getElementById(id);
const KINDS = JSON.parse(at("kinds").dataset.kinds); // kind -> family

// Offers what the service has; models as it lists them. The automatic choice is there already.
export function offer(models) {
  const families = [...new Set(models.map((model) => model.family))];
  for (const [kind, family] of Object.entries(KINDS))
    if (families.includes(family))
      at("kind-list").append(card(family, say(`kind_${kind}`), say(`kind_${kind}_line`), kind));
  const named = [
    ...families.map((name) => [name, lineOfFamily(name, models), kindOf(name)]),
    ...models
      .filter((model) => model.parameters)
      .map((model) => [model.name, lineOf(model), kindOf(model.family)]),
  ];
  at("all-models").hidden = named.length === 0;
  at("model-list").append(...named.map(([name, line, kind]) => card(name, name, line, kind)));
  choose(at("kinds").dataset.chosen);
  at("kinds").addEventListener("change", mark);
  // A choice by pointer closes the list; by arrow keys it stays, to be looked through.
  at("kinds").addEventListener("click", ({ target, detail }) => {
    if (target.closest(".kind") && detail > 0 && target.matches("input") === false)
      setTimeout(() => (at("kinds").open = false));
  });
  document.addEventListener("click", ({ target }) => {
    if (!at("kinds").contains(target)) at("kinds").open = false;
  });
}

// Chooses a model by its name or family; the automatic choice without it.
export function choose(model) {
  const inputs = [...document.querySelectorAll("[name=model]")];
  const found = inputs.find((input) => input.value === model) ?? inputs[0];
  found.checked = true;
  mark();
}

// What a model is called: the kind of picture that it is for, else its name.
export function nameOf(model) {
  const input = document.querySelector(`[name=model][value="${CSS.escape(model)}"]`);
  return input ? input.dataset.name : model;
}

// The family that is asked what the automatic choice would take; undefined without models.
export function familyOfAuto(models) {
  const families = models.filter((model) => model.parameters).map((model) => model.family);
  return families.find((name) => name === KINDS.clean) ?? families[0];
}

// Families that are offered as kinds, in their order.
export function offeredFamilies() {
  return [...document.querySelectorAll("#kind-list [name=model]")]
    .map((input) => input.value)
    .filter((value) => value !== "auto");
}

// Says under the automatic choice why it chose.
export function explain(reason) {
  at("auto-reason").textContent = reason || say("kind_auto_line");
}

function mark() {
  const chosen = document.querySelector("[name=model]:checked");
  at("kind-chosen").textContent = chosen.dataset.name;
}

function card(value, name, line, kind) {
  const input = element("input", { type: "radio", name: "model", value });
  input.dataset.name = name;
  const picture = element("img", { src: `static/kinds/${kind}.webp`, alt: "", loading: "lazy" });
  const words = element("span", {}, element("b", {}, name), element("small", {}, line));
  return element("label", { class: "kind" }, input, picture, words);
}

function kindOf(family) {
  if (family === "bicubic") return "plain";
  return Object.keys(KINDS).find((kind) => KINDS[kind] === family) ?? "clean";
}

function lineOfFamily(family, models) {
  if (family === "bicubic") return say("model_plain");
  const scales = models.filter((model) => model.family === family).map((model) => `×${model.scale}`);
  return say("model_family", { scales: scales.sort().join(", ") });
}

function lineOf({ scale, parameters }) {
  return say("model_line", { scale: `×${scale}`, parameters: number(parameters) });
}
