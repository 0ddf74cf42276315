"use strict";
// What is shown follows the address; keys; and, where the page is served, newer data as it comes.
let turn = 0;

Report.show = async function () {
  const mine = ++turn;
  const place = Report.place();
  const main = document.getElementById("main");
  const view = Report.views[place.view] || Report.views.overview;
  let content;
  try {
    content = await view(place);
  } catch (error) {
    content = Report.el("p.note", {}, error.message);
  }
  if (mine !== turn) return; // another place was asked for meanwhile
  document.getElementById("tip").hidden = true;
  main.replaceChildren(content);
  Report.drawPlots(main);
  const current = place.view === "group" ? "groups" : place.view;
  for (const link of document.querySelectorAll("nav a[data-view]")) {
    if (link.dataset.view === current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (place.view === "groups" && Report.cursor) {
    const row = [...document.querySelectorAll("tr[data-key]")].find((one) => one.dataset.key === Report.cursor);
    if (row) { row.classList.add("cursor"); row.scrollIntoView({ block: "nearest" }); }
  }
  if (place.view === "group") Report.cursor = `${place.run || 0}/${place.step}/${place.group}`;
  main.dataset.view = place.view;
};

Report.showRuns = function () {
  const { el } = Report;
  document.getElementById("runs").replaceChildren(...Report.data.overview.runs.map((run, number) => el("label", {},
    Report.several() ? el("input", { type: "checkbox", checked: !Report.hiddenRuns.has(number), onchange: (event) => {
      if (event.target.checked) Report.hiddenRuns.delete(number); else Report.hiddenRuns.add(number);
      Report.show();
    } }) : null,
    Report.several() ? Report.swatch(number) : null, run.label)));
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
  const typing = event.target.matches("input[type=search], select, textarea");
  if (typing && event.key !== "Escape") return;
  const { view } = Report.place();
  const go = (address) => { if (address) location.hash = address; };
  const radio = event.target.matches("input[type=radio]");
  if (event.key === "Escape") {
    if (typing) event.target.blur();
    else if (view === "group") go("#groups");
  } else if (view === "group" && ((event.key === "ArrowRight" && !radio) || event.key === "j")) go(Report.neighbours.after);
  else if (view === "group" && ((event.key === "ArrowLeft" && !radio) || event.key === "k")) go(Report.neighbours.before);
  else if (view === "group" && /^[1-9]$/.test(event.key)) {
    const choice = document.querySelectorAll(".signals input")[Number(event.key) - 1];
    if (choice) choice.click();
  } else if (view !== "group" && (event.key === "j" || (event.key === "ArrowDown" && view !== "overview"))) Report.moveInList(1);
  else if (view !== "group" && (event.key === "k" || (event.key === "ArrowUp" && view !== "overview"))) Report.moveInList(-1);
  else if (event.key === "Enter" && event.target.matches("tr.cursor")) {
    if (event.target.open) event.target.open(); else event.target.click();
  } else return;
  event.preventDefault();
});

Report.follow = function () {
  let last = Report.data.version;
  setInterval(async () => {
    try {
      await Report.load("data/version.js", Date.now());
      const now = Report.data.version;
      if (now === last) return;
      for (const name of ["overview", "groups", "validation"]) await Report.load(`data/${name}.js`, now);
      last = now;
      Report.steps.clear();
      Report.showRuns();
      const typing = document.activeElement && document.activeElement.matches("input, select");
      if (!typing && !document.querySelector("dialog[open]")) { const y = scrollY; await Report.show(); scrollTo(0, y); }
    } catch (error) {
      document.getElementById("foot").textContent = "The run is no longer watched: what is shown stays as it was.";
    }
  }, 2000);
};

window.addEventListener("hashchange", () => { Report.show().then(() => scrollTo(0, 0)); });
document.addEventListener("DOMContentLoaded", () => {
  if (!Report.data.overview) {
    document.getElementById("main").textContent = "The data beside this page could not be read: keep index.html and its folders together.";
    return;
  }
  Report.showRuns();
  Report.show();
  if (document.querySelector("meta[name=live]").content === "yes") Report.follow();
});
