"use strict";
// The list of groups: filters, sorting, and a cursor that arrows, j and k move.
Report.filter = { what: "all", source: "", task: "", run: "", step: "", words: "", sort: "step", down: false };
Report.cursor = null;

Report.matching = function () {
  const filter = Report.filter;
  const words = filter.words.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [];
  Report.data.groups.forEach((groups, run) => {
    if (Report.hiddenRuns.has(run) || (filter.run !== "" && Number(filter.run) !== run)) return;
    for (const group of groups) {
      if (filter.what === "wrong" && group.right > 0) continue;
      if (filter.what === "no spread" && group.spread !== 0) continue;
      if (filter.what === "unparsed" && !group.unparsed) continue;
      if (filter.source && group.source !== filter.source) continue;
      if (filter.task && group.task !== filter.task) continue;
      if (filter.step !== "" && group.step !== Number(filter.step)) continue;
      if (words.length) {
        const text = [group.question, group.id, group.truth, ...group.answers.map((pair) => pair[0])].join(" ").toLowerCase();
        if (!words.every((word) => text.includes(word))) continue;
      }
      rows.push([run, group]);
    }
  });
  const sign = filter.down ? -1 : 1;
  const value = ([, group]) => group[filter.sort];
  rows.sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    const order = x === y ? 0 : x === null ? 1 : y === null ? -1 : (typeof x === "number" ? x - y : String(x).localeCompare(String(y))) * sign;
    return order || a[1].step - b[1].step || a[1].g - b[1].g || a[0] - b[0];
  });
  return rows;
};

Report.answerBar = function (group) {
  const { el } = Report;
  const total = group.answers.reduce((sum, [, count]) => sum + count, 0);
  const said = group.answers.map(([answer, count]) => `${answer || "no answer"}: ${count}`).join(", ");
  return el("div.bar", { role: "img", "aria-label": `answers: ${said}`, title: said },
    group.answers.map(([answer, count], k) => el("span" + (answer === "" ? ".none" : answer === group.truth ? ".truth" : ""),
      { "--w": count / total, "--k": Math.min(k, 5) }, answer || "∅")));
};

Report.views.groups = function (place) {
  const { el, filter } = Report;
  if ("step" in place && filter.step !== place.step) filter.step = place.step;
  const all = Report.data.groups.flat();
  const distinct = (name) => [...new Set(all.map((group) => group[name]).filter(Boolean))].sort();
  const body = el("tbody");
  const count = el("p.count", { role: "status" });
  const set = (name) => (event) => { filter[name] = event.target.value; fill(); };
  const choice = (name, title, values) => el("label", {}, title,
    el("select", { onchange: set(name), "data-filter": name }, values.map(([value, text]) =>
      el("option", { value, selected: String(filter[name]) === String(value) }, text))));
  const columns = [["step", "Step"], ["question", "Question"], ["truth", "Truth"], ["mean", "Reward"], ["spread", "Spread"], ["right", "Right"], [null, "Answers"]];
  const heads = columns.map(([name, title]) => name
    ? el("th", { "data-sort": name }, el("button", { onclick: () => {
        filter.down = filter.sort === name ? !filter.down : name !== "step" && name !== "question" && name !== "truth";
        filter.sort = name; fill();
      } }, title))
    : el("th", {}, title));
  const LIMIT = 400;
  function fill() {
    const rows = Report.matching();
    body.replaceChildren(...rows.slice(0, LIMIT).map(([run, group], k) => el("tr", {
      tabindex: "-1", "data-key": `${run}/${group.step}/${group.g}`, onclick: () => { location.hash = Report.link(group, run); },
    },
      el("td.step", { "data-name": "step" }, Report.several() ? [Report.swatch(run), " "] : null, group.step),
      el("td.question", {}, el("a", { href: Report.link(group, run) }, group.question || group.id), el("small", {}, ` ${group.id}`)),
      el("td.truth", { "data-name": "truth" }, group.truth), el("td.num", { "data-name": "reward" }, Report.number(group.mean)),
      el("td.num", { "data-name": "spread" }, Report.number(group.spread)), el("td.num", { "data-name": "right" }, Math.round(100 * group.right) + " %"), el("td.answers", {}, Report.answerBar(group)))));
    const more = rows.length > LIMIT ? `; the first ${LIMIT} are listed` : "";
    count.textContent = `${rows.length} of ${all.length} groups${more}`;
    for (const head of heads) {
      const name = head.dataset.sort;
      if (name) head.setAttribute("aria-sort", name !== filter.sort ? "none" : filter.down ? "descending" : "ascending");
    }
    Report.order = rows;
  }
  fill();
  const table = el("div.scroll", {}, el("table.groups", {}, el("thead", {}, el("tr", {}, heads)), body));
  const said = Report.data.overview.runs.filter((run) => run.sample).map((run) => `${run.label}: ${run.sample}.`);
  return el("div", {},
    el("form.filters", { onsubmit: (event) => event.preventDefault() },
      choice("what", "Show", [["all", "all groups"], ["wrong", "none right"], ["no spread", "no spread"], ["unparsed", "unparsed answers"]]),
      choice("source", "Data", [["", "all"], ...distinct("source").map((v) => [v, v])]),
      choice("task", "Task", [["", "all"], ...distinct("task").map((v) => [v, v])]),
      choice("step", "Step", [["", "all"], ...[...new Set(all.map((group) => group.step))].sort((a, b) => a - b).map((v) => [v, v])]),
      Report.several() ? choice("run", "Run", [["", "all"], ...Report.data.overview.runs.map((run, k) => [k, run.label])]) : null,
      el("label", {}, "Words", el("input", { type: "search", value: filter.words, "data-filter": "words", oninput: set("words") }))),
    said.length ? el("p.note", {}, said.join(" ")) : null,
    count, el("p.hint", {}, "Arrows or j and k move, Enter opens."), all.length ? table : el("p", {}, "No groups: the runs have no tw_grpo/step_*.parquet."));
};

Report.moveInList = function (by) {
  const rows = [...document.querySelectorAll("table.groups tbody tr, table.questions tbody tr.q")];
  if (!rows.length) return;
  const now = rows.findIndex((row) => row.classList.contains("cursor"));
  const next = rows[Math.max(0, Math.min(rows.length - 1, now < 0 ? (Report.cursor ? rows.findIndex((row) => row.dataset.key === Report.cursor) : 0) : now + by))] || rows[0];
  rows.forEach((row) => row.classList.toggle("cursor", row === next));
  Report.cursor = next.dataset.key;
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
};
