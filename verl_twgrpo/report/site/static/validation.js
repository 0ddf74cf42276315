"use strict";
// Every question over the validations of a run: when it became right, when it fell back; accuracy by kind of question.
Report.checks = { run: 0, what: "all", words: "" };
const MARKS = { right: "✓", part: "½", wrong: "✗", "": "·" };

Report.course = function (question, steps) {
  const known = question.marks.map((mark, k) => [mark, steps[k]]).filter(([mark]) => mark !== null);
  const right = known.filter(([mark]) => mark === "right");
  const first = right.length ? right[0][1] : null;
  const fell = known.find(([mark], k) => k > 0 && mark !== "right" && known[k - 1][0] === "right");
  const last = known.length ? known[known.length - 1][0] : null;
  const became = first !== null && known[0][0] !== "right" ? first : null;
  const kind = !right.length ? "never right" : right.length === known.length ? "always right" : fell && last !== "right" ? "fell back" : last === "right" ? "became right" : "changing";
  return { kind, became, fell: fell ? fell[1] : null };
};

Report.views.validation = function () {
  const { el, checks } = Report;
  const tables = Report.data.validation;
  const having = tables.map((table, run) => [table, run]).filter(([table]) => table);
  if (!having.length) return el("p", {}, "No validations: the runs have no validation/*.jsonl (trainer.validation_data_dir).");
  if (!tables[checks.run]) checks.run = having[0][1];
  const table = tables[checks.run];
  const rows = table.questions.map((question) => [question, Report.course(question, table.steps)]);
  const counts = {};
  rows.forEach(([, course]) => (counts[course.kind] = (counts[course.kind] || 0) + 1));
  const body = el("tbody"), count = el("p.count", { role: "status" });
  function fill() {
    const words = checks.words.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = rows.filter(([question, course]) => (checks.what === "all" || course.kind === checks.what) &&
      words.every((word) => `${question.id} ${question.question} ${question.truth} ${question.kind}`.toLowerCase().includes(word)));
    count.textContent = `${shown.length} of ${rows.length} questions` + (shown.length > 500 ? "; the first 500 are listed" : "");
    body.replaceChildren(...shown.slice(0, 500).flatMap(([question, course]) => {
      const more = el("tr.more", { hidden: true }, el("td", { colspan: 5 }));
      const open = () => {
        more.hidden = !more.hidden;
        row.setAttribute("aria-expanded", String(!more.hidden));
        if (!more.hidden) more.firstChild.replaceChildren(...table.steps.map((step, k) => el("div.said", {},
          el("b", {}, `step ${step}: ${question.answers[k] === null ? "not asked" : question.answers[k] || "no answer"}`),
          el("pre", {}, question.texts[k] === null ? (question.answers[k] === null ? "" : "(text left out to keep this page small)") : question.texts[k]))));
      };
      const row = el("tr.q", { tabindex: "-1", "data-key": `v/${question.id}`, "aria-expanded": "false", onclick: open },
        el("td.question", {}, el("button.text-button", { onclick: (event) => { event.stopPropagation(); open(); } }, question.question || question.id), el("small", {}, ` ${question.id}`)),
        el("td.truth", {}, question.truth),
        el("td.marks", {}, question.marks.map((mark, k) => el("span" + (mark ? "." + mark : ""), { title: `step ${table.steps[k]}: ${question.answers[k] || "no answer"}` }, mark === null ? " " : MARKS[mark]))),
        el("td.num", {}, course.became === null ? "" : `step ${course.became}`), el("td.num", {}, course.fell === null ? "" : `step ${course.fell}`));
      row.open = open;
      return [row, more];
    }));
  }
  const kinds = [...new Set(table.questions.map((question) => question.kind))].sort();
  const share = (questions, k) => {
    const marks = questions.map((question) => question.marks[k]).filter((mark) => mark);
    return marks.length ? `${(100 * marks.filter((mark) => mark === "right").length / marks.length).toFixed(1)} %` : "–";
  };
  const line = (name, questions) => el("tr", {}, el("td", {}, name), el("td.num", {}, questions.length), table.steps.map((_, k) => el("td.num", {}, share(questions, k))));
  const measured = (value) => value === null ? "–" : [value[0].toFixed(3), el("small", {}, ` [${value[1].toFixed(3)}, ${value[2].toFixed(3)}], n = ${value[3]}`)];
  fill();
  return el("div", {},
    having.length > 1 ? el("label", {}, "Run ", el("select", { "data-filter": "validation run", onchange: (event) => { checks.run = Number(event.target.value); Report.show(); } },
      having.map(([, run]) => el("option", { value: run, selected: run === checks.run }, Report.label(run))))) : null,
    el("h2", {}, "By kind of question"),
    el("div.scroll", {}, el("table.kinds", {}, el("thead", {}, el("tr", {}, el("th", {}, "kind"), el("th", {}, "questions"), table.steps.map((step) => el("th.num", {}, `step ${step}`)))),
      el("tbody", {}, line("all", table.questions), kinds.length > 1 ? kinds.map((kind) => line(kind, table.questions.filter((question) => question.kind === kind))) : null))),
    table.measures.length ? [
      el("h2", {}, "By task"),
      el("div.scroll", {}, el("table.measures", {}, el("thead", {}, el("tr", {}, ["data source", "task", "measure"].map((name) => el("th", {}, name)), table.steps.map((step) => el("th.num", {}, `step ${step}`)))),
        el("tbody", {}, table.measures.map((one) => el("tr", {}, [one.source, one.task, one.name].map((text) => el("td", {}, text)), one.values.map((value) => el("td.num", {}, measured(value)))))))),
      el("p.note", {}, "Mean and 95% interval over the answers that have a value, as verl-twgrpo eval prints them."),
    ] : null,
    el("h2", {}, "By question"),
    el("form.filters", { onsubmit: (event) => event.preventDefault() },
      el("label", {}, "Show", el("select", { "data-filter": "course", onchange: (event) => { checks.what = event.target.value; fill(); } },
        ["all", "became right", "fell back", "changing", "always right", "never right"].map((kind) =>
          el("option", { value: kind, selected: kind === checks.what }, kind === "all" ? "all" : `${kind} (${counts[kind] || 0})`)))),
      el("label", {}, "Words", el("input", { type: "search", value: checks.words, "data-filter": "validation words", oninput: (event) => { checks.words = event.target.value; fill(); } }))),
    table.unreadable ? el("p.note", {}, `${table.unreadable} lines could not be read and were left out.`) : null,
    table.texts_left_out ? el("p.note", {}, "Some texts are left out to keep this page small.") : null,
    count,
    el("div.scroll", {}, el("table.questions", {}, el("thead", {}, el("tr", {}, ["Question", "Truth", "Right at steps " + table.steps.join(", "), "Became right", "Fell back"].map((title) => el("th", {}, title)))), body)));
};
