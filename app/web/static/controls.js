// The controls below a viewer: the divider, the zoom, and what else can be switched.

import { element } from "./elements.js";
import { say } from "./words.js";

// Makes them, and gives the viewer those that it changes.
export function makeControls(viewer) {
  viewer.range = element("input", { type: "range", min: 0, max: 100, step: 0.5, value: 50 });
  viewer.range.addEventListener("input", () => viewer.moveDivider(viewer.range.value / 100));
  viewer.percent = element("output", { class: "percent" });
  viewer.holdButton = button(say("hold"), null, { "aria-pressed": "false", title: say("hold_hint") });
  viewer.checkerButton = button(say("checker_dark"), () => viewer.switchCheckers(), { hidden: "" });
  const named = (key) => ({ "aria-label": say(key), title: say(key) });
  const fullScreen = button("", () => viewer.toggleFullScreen(), named("full_screen"));
  fullScreen.append(element("span", { class: "icon full-screen" }));
  const zoom = element(
    "div",
    { class: "joined", role: "group", "aria-label": say("zoom") },
    button("−", () => viewer.zoomTo(viewer.zoom / 1.5), { "aria-label": say("zoom_out") }),
    button(say("fit"), () => viewer.fit()),
    button("1:1", () => viewer.zoomTo(1), { title: say("one_to_one") }),
    button("+", () => viewer.zoomTo(viewer.zoom * 1.5), { "aria-label": say("zoom_in") }),
  );
  const tools = element("div", { class: "tools" }, zoom, viewer.percent, viewer.holdButton);
  tools.append(viewer.checkerButton);
  if (document.fullscreenEnabled) tools.append(fullScreen);
  tools.append(button("?", () => viewer.help(), { class: "keys", ...named("keys") }));
  if (viewer.views.length > 1) tools.append(chooser(viewer));
  return element("div", { class: "controls" }, viewer.range, tools);
}

function chooser(viewer) {
  const select = element("select", { "aria-label": say("what_to_show") });
  for (const view of viewer.views) select.append(new Option(view.label));
  select.addEventListener("change", () => viewer.show(viewer.views[select.selectedIndex]));
  return select;
}

function button(label, action, attributes) {
  const made = element("button", { type: "button", ...attributes }, label);
  if (action) made.addEventListener("click", action);
  return made;
}
