"use strict";
// The page's state, the functions that data files call, and the one way in which text gets into the page: as text.
const Report = {
  data: { overview: null, groups: [], validation: [], version: 0 },
  steps: new Map(), // "run/step" -> groups
  hiddenRuns: new Set(),
  overview(value) { this.data.overview = value; },
  groups(value) { this.data.groups = value; },
  validation(value) { this.data.validation = value; },
  version(value) { this.data.version = value; },
  step(run, step, tokens, groups) {
    for (const group of groups)
      for (const response of group.responses) {
        response.tokens = response.tokens.map((token) => tokens[token]);
        Object.assign(response.signals, group.shared);
      }
    this.steps.set(run + "/" + step, groups);
  },
};

const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7f7f7f"];

// el("a.name", {href: "#x", onclick: f}, "text", child, [more children], null)
Report.el = function (kind, attributes, ...children) {
  const [tag, ...classes] = kind.split(".");
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) node.style.setProperty(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(2)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : Report.visible(String(child)));
  }
  return node;
};

// control characters have no business in a page: their pictures stand for them
Report.visible = (text) =>
  text.replace(/[\u0000-\u0008\u000b-\u001f\u007f]/g, (c) => String.fromCharCode(c === "\u007f" ? 0x2421 : 0x2400 + c.charCodeAt(0)));

Report.number = function (value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-3 ? value.toExponential(digits - 1) : String(Number(value.toPrecision(digits)));
};

Report.load = function (name, version) {
  return new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = name + (version ? "?v=" + version : "");
    script.onload = () => { script.remove(); done(); };
    script.onerror = () => { script.remove(); failed(new Error(name + " could not be read")); };
    document.head.append(script);
  });
};

Report.groupsOf = async function (run, step) {
  const key = run + "/" + step;
  if (!this.steps.has(key)) await this.load(`data/run${run}/step_${String(step).padStart(6, "0")}.js`, this.data.version);
  return this.steps.get(key);
};

Report.label = (run) => Report.data.overview.runs[run].label;
Report.several = () => Report.data.overview.runs.length > 1;
Report.swatch = (run) => Report.el("span.swatch", { "--c": COLOURS[run % COLOURS.length], "aria-hidden": "true" });

// "#step=12&group=3" -> {view: "group", step: "12", group: "3"}
Report.place = function () {
  const hash = decodeURIComponent(location.hash.slice(1)) || "overview";
  if (!hash.includes("=")) return { view: hash };
  const named = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  return { view: "step" in named ? ("group" in named ? "group" : "groups") : named.view || "overview", ...named };
};
Report.link = (entry, run) => `#step=${entry.step}&group=${entry.g}` + (run ? `&run=${run}` : "");
