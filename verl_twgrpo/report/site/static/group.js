"use strict";
// One group: the frames, the prompt, and its responses side by side with every token shaded by a signal.
Report.signal = "weight";

Report.views.group = async function (place) {
  const { el } = Report;
  const run = Number(place.run || 0), step = Number(place.step), number = Number(place.group);
  const entries = Report.data.groups[run] || [];
  if (!entries.some((entry) => entry.step === step && entry.g === number))
    return el("div", {}, el("p", {}, `Step ${place.step}, group ${place.group}: not in this page.`), el("a", { href: "#groups" }, "All groups"));
  const group = (await Report.groupsOf(run, step)).find((one) => one.g === number);
  const parts = [Report.groupPart(run, step, group)];
  const others = Report.sameQuestion(run, step, group);
  let choice = null;
  if (others.length) {
    const chosen = others.find(([r, e]) => `${r}/${e.step}/${e.g}` === place.beside);
    choice = el("label.beside", {}, "Beside it",
      el("select", { "data-filter": "beside", onchange: (event) => {
        location.hash = Report.link({ step, g: number }, run) + (event.target.value ? `&beside=${event.target.value}` : "");
      } }, el("option", { value: "" }, "nothing"), others.map(([r, e]) => {
        const key = `${r}/${e.step}/${e.g}`;
        return el("option", { value: key, selected: key === place.beside }, `${Report.label(r)}, step ${e.step}`);
      })));
    if (chosen) {
      const other = (await Report.groupsOf(chosen[0], chosen[1].step)).find((one) => one.g === chosen[1].g);
      parts.push(Report.groupPart(chosen[0], chosen[1].step, other));
    }
  }
  const order = (Report.order && Report.order.length ? Report.order : Report.matching());
  const at = order.findIndex(([r, entry]) => r === run && entry.step === step && entry.g === number);
  const step_to = (by) => { const to = order[at + by]; return at >= 0 && to ? Report.link(to[1], to[0]) : null; };
  Report.neighbours = { before: step_to(-1), after: step_to(1) };
  const names = group.signals;
  if (!names.includes(Report.signal)) Report.signal = names[0] || "weight";
  const root = el("div.group", {},
    el("div.steps", {},
      el("a.button", { href: "#groups" }, "☰ all groups"),
      el("a.button", { href: Report.neighbours.before, "aria-disabled": !Report.neighbours.before && "true" }, "← previous"),
      el("a.button", { href: Report.neighbours.after, "aria-disabled": !Report.neighbours.after && "true" }, "next →"), choice),
    Report.question(group), Report.frames(group),
    group.prompt ? el("details", {}, el("summary", {}, "Prompt"), el("pre", {}, group.prompt)) : null,
    el("fieldset.signals", {}, el("legend", {}, "Shade by"), names.map((name, k) => el("label", {},
      el("input", { type: "radio", name: "signal", value: name, checked: name === Report.signal, onchange: () => { Report.signal = name; Report.shade(root); } }),
      name, el("kbd", {}, k + 1))), el("span.scale", { role: "status" })),
    el("div.parts" + (parts.length > 1 ? ".two" : ""), {}, parts));
  root.names = names;
  Report.shade(root);
  return root;
};

Report.sameQuestion = function (run, step, group) {
  const found = [];
  Report.data.groups.forEach((entries, r) => entries.forEach((entry) => {
    if (entry.id === group.id && !(r === run && entry.step === step && entry.g === group.g)) found.push([r, entry]);
  }));
  // the other runs first, the nearest steps of each
  return found.sort((a, b) => (a[0] === run) - (b[0] === run) || Math.abs(a[1].step - step) - Math.abs(b[1].step - step)).slice(0, 50);
};

Report.question = function (group) {
  const { el } = Report;
  return el("section.question", {}, el("h2", {}, group.question || group.id),
    group.options.length ? el("ol.options", {}, group.options.map((option, k) => {
      const letter = String.fromCharCode(65 + k);
      return el("li" + (group.truth.split(/[\s,]+/).includes(letter) ? ".truth" : ""), {}, el("b", {}, letter), " " + option);
    })) : null,
    el("p.facts", {}, `truth ${group.truth} · ${group.id}` + (group.source ? ` · ${group.source}` : "") + ` · ${group.task}`));
};

Report.groupPart = function (run, step, group) {
  const { el } = Report;
  const part = el("section.part", {},
    el("h3", {}, Report.several() ? [Report.swatch(run), ` ${Report.label(run)} · `] : null, `step ${step}, group ${group.g}`),
    el("div.cards", {}, group.responses.map((response, k) => Report.card(response, k, group))));
  return part;
};

Report.card = function (response, k, group) {
  const { el } = Report;
  const scores = group.scores.map((name, k) => [name, response.scores[k]]).filter(([, value]) => value !== null)
    .map(([name, value]) => `${name} ${Report.number(value)}`).join(" · ");
  const text = el("div.text");
  response.tokens.forEach((token, position) => {
    const node = el("i" + (position >= group.shortest ? ".tail" : ""), {}, token.replace(/\n/g, "↵\n"));
    node.at = [response, position];
    text.append(node);
  });
  const card = el("article", { "aria-label": `response ${k + 1}` },
    el("header", {}, el("b" + (response.verdict ? "." + response.verdict : ""), {}, response.answer === null ? "no answer" : response.answer + (response.parsed ? "" : " (unparsed)")),
      el("span.mark", {}, { right: "✓ right", part: "½ partly right", wrong: "✗ wrong" }[response.verdict] || ""),
      el("span.reward", {}, `reward ${Report.number(response.reward)}`), el("span", {}, `advantage ${Report.number(response.advantage)}`),
      el("span.soft", {}, `#${k + 1} · ${response.tokens.length} tokens`)),
    el("p.scores", {}, scores), text);
  return card;
};

const BASE = { weight: 1 };
Report.valueOf = function (response, name, position) {
  const values = response.signals[name];
  return values === undefined ? null : Array.isArray(values) ? values[position] : values;
};

Report.shade = function (root) {
  const name = Report.signal, base = BASE[name] || 0;
  const nodes = [...root.querySelectorAll(".text i")];
  let scale = 0, low = Infinity, high = -Infinity;
  const values = nodes.map((node) => Report.valueOf(node.at[0], name, node.at[1]));
  for (const value of values) if (value !== null && value !== undefined) {
    scale = Math.max(scale, Math.abs(value - base)); low = Math.min(low, value); high = Math.max(high, value);
  }
  nodes.forEach((node, k) => {
    const value = values[k];
    const known = value !== null && value !== undefined && scale > 0;
    const depth = known ? Math.abs(value - base) / scale : 0;
    node.style.setProperty("--i", depth.toFixed(3));
    node.classList.toggle("cold", known && value < base && name !== "log-prob");
  });
  root.querySelector(".scale").textContent = low > high ? `${name}: nothing` : `${name} ${Report.number(low)} to ${Report.number(high)}`;
  root.dataset.signal = name;
};

Report.frames = function (group) {
  const { el } = Report;
  return el("section.videos", {}, group.frames.map((video) => {
    if (video.missing) return el("p.note", {}, `No frames: ${video.missing}.`);
    const said = (k) => [video.seconds ? `${video.seconds[k].toFixed(2)} s` : `frame ${k}`, video.t ? `t ${video.t[k >> 1]}` : null].filter(Boolean).join(" · ");
    return el("figure.video", {},
      el("div.strip", {}, Array.from({ length: video.n }, (_, k) => el("button", { "aria-label": `enlarge frame ${k + 1}, ${said(k)}`, onclick: () => Report.enlarge(video, k, said) },
        Report.frame(video, k), el("small", {}, said(k))))),
      el("figcaption", {}, el("button.play", { onclick: () => Report.enlarge(video, 0, said, true) }, "▶ play"),
        ` ${video.n} frames of ${video.seen[0]} × ${video.seen[1]} pixels, as the model saw them` + (video.t ? "; t: time coordinate of the position encoding" : "")));
  }));
};

Report.frame = function (video, k) {
  const node = Report.el("span.frame", { "--ratio": `${video.w} / ${video.h}`, "--n": video.n, "--at": video.n > 1 ? k / (video.n - 1) : 0 });
  node.style.backgroundImage = `url("${video.src}")`;
  return node;
};

Report.enlarge = function (video, first, said, playing = false) {
  const { el } = Report;
  let at = first, timer = null;
  const holder = el("div.large"), caption = el("p", { role: "status" });
  const show = (k) => {
    at = (k + video.n) % video.n;
    holder.replaceChildren(Report.frame(video, at));
    caption.textContent = `frame ${at + 1} of ${video.n} · ${said(at)}`;
  };
  const pause = (k) => {
    const gap = video.seconds && k + 1 < video.n ? 1000 * (video.seconds[k + 1] - video.seconds[k]) : 500;
    return Math.max(120, Math.min(800, gap));
  };
  const stop = () => { clearTimeout(timer); timer = null; button.textContent = "▶ play"; };
  const play = () => { button.textContent = "❚❚ pause"; const next = () => { timer = setTimeout(() => { show(at + 1); next(); }, pause(at)); }; next(); };
  const button = el("button.play", { onclick: () => (timer ? stop() : play()) }, "▶ play");
  const dialog = el("dialog", { "aria-label": "frames", onclose: () => { clearTimeout(timer); dialog.remove(); }, onkeydown: (event) => {
    if (event.key === "ArrowLeft") show(at - 1); else if (event.key === "ArrowRight") show(at + 1); else return;
    event.preventDefault(); event.stopPropagation();
  } },
    holder, caption, el("div", {}, el("button", { onclick: () => show(at - 1) }, "←"), button, el("button", { onclick: () => show(at + 1) }, "→"), el("button.close", { onclick: () => dialog.close() }, "close")));
  document.body.append(dialog);
  show(first);
  dialog.showModal();
  if (playing) play();
};

document.addEventListener("pointerover", (event) => {
  const tip = document.getElementById("tip");
  const node = event.target.closest ? event.target.closest(".text i") : null;
  document.querySelectorAll(".text i.same").forEach((one) => one.classList.remove("same"));
  if (!node || !node.at) { tip.hidden = true; return; }
  const [response, position] = node.at;
  const { el } = Report;
  tip.replaceChildren(el("b", {}, `position ${position}`), el("dl", {}, document.querySelector(".group").names.map((name) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, Report.number(Report.valueOf(response, name, position)))))));
  tip.hidden = false;
  const box = node.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(box.left, innerWidth - tip.offsetWidth - 8)) + "px";
  tip.style.top = (box.bottom + tip.offsetHeight + 8 < innerHeight ? box.bottom + 6 : box.top - tip.offsetHeight - 6) + "px";
  const part = node.closest(".cards");
  for (const text of part.querySelectorAll(".text")) if (text.children[position]) text.children[position].classList.add("same");
});
