"use strict";
// The overview: curves of all runs, what differs in their settings, pictures and what is missing.
Report.views = {};
Report.plots = [];

Report.views.overview = function () {
  const { el, data } = Report;
  const overview = data.overview;
  const charts = overview.charts.map((chart) => Report.chart(chart));
  return el("div.overview", {},
    el("p.note", {}, overview.runs.map((run) => (run.sample ? `${run.label}: ${run.sample}. ` : ""))),
    overview.charts.length
      ? el("p.hint", {}, "Point at a plot for its values; drag to zoom, double-click to see everything again. A click on a name hides its curve.")
      : el("p", {}, "No metrics and no dumps yet."),
    el("div.charts", {}, charts),
    Report.several() ? Report.settingsTable(overview) : null,
    overview.pictures.length
      ? el("section", {}, el("h2", {}, "Pictures and tables"), el("ul.files", {}, overview.pictures.map(([name, what]) =>
          el("li", {}, el("a", { href: encodeURI(name) }, name), " " + what))))
      : null,
    overview.missing.length
      ? el("section", {}, el("h2", {}, "Missing"), el("ul", {}, overview.missing.map((reason) => el("li", {}, reason))))
      : null,
    el("p.command", {}, overview.command));
};

Report.settingsTable = function (overview) {
  const { el } = Report;
  const rows = overview.settings;
  return el("section", {}, el("h2", {}, "Settings in which the runs differ"),
    overview.unknown_settings.length
      ? el("p.note", {}, `Not written down by ${overview.unknown_settings.join(", ")}: settings are kept beside the dumps (algorithm.tw_grpo.dump_dir).`)
      : null,
    rows.length
      ? el("div.scroll", {}, el("table.settings", {},
          el("thead", {}, el("tr", {}, el("th", {}, "setting"), overview.runs.map((run) => el("th", {}, run.label)))),
          el("tbody", {}, rows.map(([name, values]) => el("tr", {}, el("td", {}, name), values.map((value) => el("td", {}, value)))))))
      : el("p", {}, "None."));
};

Report.chart = function (chart) {
  const { el } = Report;
  const curves = chart.curves.filter((curve) => !Report.hiddenRuns.has(curve.run));
  const steps = [...new Set(curves.flatMap((curve) => curve.steps))].sort((a, b) => a - b);
  const where = new Map(steps.map((step, place) => [step, place]));
  const names = [...new Set(chart.curves.map((curve) => curve.name))];
  const columns = curves.map((curve) => {
    const column = new Array(steps.length).fill(null);
    curve.steps.forEach((step, k) => (column[where.get(step)] = curve.values[k]));
    return column;
  });
  const shown = (curve) => {
    const short = curve.name.replace(/^(tw_grpo|training|timing_s|response_length|critic|actor)\//, "");
    return Report.several() ? (names.length > 1 ? `${Report.label(curve.run)} ${short}` : Report.label(curve.run)) : short;
  };
  const several = Report.several();
  const series = curves.map((curve) => {
    const metric = names.indexOf(curve.name);
    return {
      label: shown(curve),
      stroke: COLOURS[(several ? curve.run : metric) % COLOURS.length],
      dash: several ? (metric ? [2 + 4 * metric, 4] : undefined) : metric >= COLOURS.length ? [6, 4] : undefined,
      width: 1.75,
      spanGaps: true,
      points: { show: steps.length < 60, size: 5 },
      value: (plot, value) => Report.number(value, 4),
    };
  });
  const box = el("figure.chart", { role: "group", "aria-label": chart.title },
    el("figcaption", {}, chart.title + (chart.unit ? ` (${chart.unit})` : "")), el("div.plot"));
  if (!steps.length) return box;
  box.draw = () => {
    const style = getComputedStyle(document.documentElement);
    const axis = { stroke: style.getPropertyValue("--soft").trim(), grid: { stroke: style.getPropertyValue("--line").trim(), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    const target = box.querySelector(".plot");
    const make = (width) => new uPlot({
      width, height: 210, series: [{ label: "step", value: (plot, value) => value }, ...series],
      scales: { x: { time: false } },
      axes: [{ ...axis, size: 28, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000] }, { ...axis, size: 56, values: (plot, ticks) => ticks.map((tick) => Report.number(tick)) }],
      cursor: { drag: { x: true, y: true, uni: 24 }, focus: { prox: 24 } },
      focus: { alpha: 0.35 },
      legend: { live: true },
    }, [steps, ...columns], target);
    box.plot = make(Math.max(240, target.clientWidth));
    Report.plots.push(box);
  };
  return box;
};

Report.drawPlots = function (root) {
  Report.plots = [];
  for (const box of root.querySelectorAll(".chart")) if (box.draw) box.draw();
};

window.addEventListener("resize", () => {
  for (const box of Report.plots) box.plot.setSize({ width: Math.max(240, box.querySelector(".plot").clientWidth), height: 210 });
});
