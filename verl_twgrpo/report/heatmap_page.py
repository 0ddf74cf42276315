"""Frame, style and script of the token heat map's page."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>TW-GRPO token weights</title>
<style>{style}</style>
</head>
<body>
<header class="top">
<h1>TW-GRPO token weights</h1>
<p>The responses to one prompt side by side. A token is shaded by its weight, which belongs to the position: the more
the responses' next-token distributions differ there, the more it counts. Point at a token for its numbers, and to
see the same position in the other responses.</p>
<div class="bar"><nav>{links}</nav>
<div class="legend"><span>weight {low}</span><span class="ramp"></span><span>{high}</span>
<span class="key"><i class="tail">token</i> past the end of the shortest response</span></div></div>
</header>
{sections}
<footer>{command}</footer>
<div id="tip" hidden></div>
<script>{script}</script>
</body>
</html>
"""

STYLE = """
:root {
  --paper: #fbfbfa; --card: #ffffff; --ink: #1c1e21; --soft: #6b7177; --line: #e2e4e7;
  --hot: #f2711c; --cold: #3b82f6; --depth: 78%; --tail: #9aa1a8;
  --right: #16794a; --part: #93640a; --wrong: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #131518; --card: #1b1e22; --ink: #e9ebee; --soft: #98a0a8; --line: #2d3238;
    --hot: #ff7a1a; --cold: #4c8dff; --depth: 62%; --tail: #6f7780;
    --right: #5fd08f; --part: #e5b454; --wrong: #ff8a80;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1760px; padding: 22px 26px; background: var(--paper); color: var(--ink);
  font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 21px; margin: 0 0 4px; letter-spacing: -.01em; }
.top p { margin: 0 0 14px; max-width: 96ch; color: var(--soft); }
.bar { display: flex; flex-wrap: wrap; gap: 10px 28px; align-items: center; justify-content: space-between; }
nav { display: flex; flex-wrap: wrap; gap: 6px; }
nav a { padding: 4px 12px; border: 1px solid var(--line); border-radius: 999px; color: inherit;
  text-decoration: none; background: var(--card); }
nav a[aria-current] { background: var(--ink); color: var(--paper); border-color: var(--ink); }
.legend { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 8px; white-space: nowrap;
  color: var(--soft); font-size: 12.5px; }
.ramp { width: 130px; height: 12px; border-radius: 3px; border: 1px solid var(--line);
  background: linear-gradient(90deg, transparent, color-mix(in srgb, var(--hot) var(--depth), transparent)); }
.ramp.both { background: linear-gradient(90deg, color-mix(in srgb, var(--cold) var(--depth), transparent), transparent,
  color-mix(in srgb, var(--hot) var(--depth), transparent)); }
.key { padding-left: 16px; }
section { margin-top: 18px; }
dl { display: flex; flex-wrap: wrap; gap: 6px 26px; margin: 0 0 12px; }
dt { font-size: 11px; text-transform: uppercase; letter-spacing: .06em; color: var(--soft); }
dd { margin: 0; font-weight: 600; }
details { margin: 0 0 12px; }
summary { cursor: pointer; color: var(--soft); }
pre { margin: 6px 0 0; padding: 10px 14px; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  font: inherit; white-space: pre-wrap; overflow-wrap: anywhere; max-height: 40vh; overflow: auto; }
.note { margin: 0 0 12px; color: var(--part); }
.strip { margin: 0 0 16px; }
.strip svg { display: block; width: 100%; height: 74px; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; }
.strip polygon { fill: color-mix(in srgb, var(--hot) 22%, transparent); }
.strip polyline { fill: none; stroke: var(--hot); stroke-width: 1.6; vector-effect: non-scaling-stroke; }
.strip .pad { fill: color-mix(in srgb, var(--tail) 26%, transparent); }
.strip .cursor { stroke: var(--ink); stroke-width: 1.2; vector-effect: non-scaling-stroke; }
figcaption { display: flex; justify-content: space-between; font-size: 12px; color: var(--soft); margin-top: 4px; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); gap: 14px; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 10px 14px 14px; }
article header { display: grid; grid-template-columns: 1fr auto; gap: 0 12px; align-items: baseline;
  padding-bottom: 8px; margin-bottom: 8px; border-bottom: 1px solid var(--line); font-size: 12.5px;
  color: var(--soft); }
article header b { font-size: 16px; }
.right { color: var(--right); } .part { color: var(--part); } .wrong { color: var(--wrong); }
.right::before { content: "\\2713\\00a0"; } .part::before { content: "\\25D0\\00a0"; }
.wrong::before { content: "\\2717\\00a0"; }
.reward { color: var(--ink); font-weight: 600; }
.reward, .count { text-align: right; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.75; }
i { font-style: normal; unicode-bidi: isolate; border-radius: 2px; padding: 1.5px 0;
  background: color-mix(in srgb, var(--hot) calc(var(--i, 0) * var(--depth)), transparent); }
i.cold { background: color-mix(in srgb, var(--cold) calc(var(--i, 0) * var(--depth)), transparent); }
i.tail { box-shadow: inset 0 -2px 0 var(--tail); }
i.peer { outline: 1.5px solid var(--ink); outline-offset: 0; }
s { text-decoration: none; color: var(--soft); opacity: .55; font-size: 11px; }
#tip { position: fixed; z-index: 9; pointer-events: none; padding: 8px 12px; border-radius: 8px; font-size: 12.5px;
  background: var(--ink); color: var(--paper); box-shadow: 0 4px 18px rgb(0 0 0 / .25); max-width: 300px; }
#tip b { display: block; margin-bottom: 4px; white-space: pre-wrap; overflow-wrap: anywhere; }
#tip span { display: flex; justify-content: space-between; gap: 22px; }
#tip em { font-style: normal; font-variant-numeric: tabular-nums; }
footer { margin-top: 22px; padding-top: 10px; border-top: 1px solid var(--line); font-size: 12px; color: var(--soft);
  overflow-wrap: anywhere; }
"""

# Text goes in by textContent only; numbers come from data-v: weight, D_t, entropy, log-prob.
SCRIPT = """
(() => {
  "use strict";
  const tip = document.getElementById("tip");
  const sections = [...document.querySelectorAll("section")];
  const links = [...document.querySelectorAll("nav a")];
  const tokens = sections.map(s => [...s.querySelectorAll(".text")].map(t => [...t.querySelectorAll("i")]));
  if (document.querySelector("i.cold")) document.querySelector(".ramp").classList.add("both");

  const show = () => {
    const wanted = Math.max(0, sections.findIndex(s => "#" + s.id === location.hash));
    sections.forEach((s, k) => { s.hidden = k !== wanted; });
    links.forEach((a, k) => k === wanted ? a.setAttribute("aria-current", "true") : a.removeAttribute("aria-current"));
  };
  window.addEventListener("hashchange", show);
  show();

  let marked = [];
  const clear = () => {
    marked.forEach(token => token.classList.remove("peer"));
    marked = [];
    tip.hidden = true;
  };
  const mark = (group, position) => {
    clear();
    marked = tokens[group].map(row => row[position]).filter(Boolean);
    marked.forEach(token => token.classList.add("peer"));
    const cursor = sections[group].querySelector(".cursor");
    if (cursor) { cursor.setAttribute("x1", position + .5); cursor.setAttribute("x2", position + .5); }
  };
  const tell = (event, token, group, position) => {
    const [weight, divergence, entropy, logProb] = token.dataset.v.split(" ");
    const alive = tokens[group].filter(row => row.length > position).length;
    const title = document.createElement("b");
    title.textContent = token.textContent.trim() || "(white space)";
    const lines = [
      ["weight", weight], ["D_t", divergence], ["entropy", entropy + " nats"],
      ["log-prob", logProb + "  (p = " + Math.exp(logProb).toFixed(3) + ")"],
      ["position", position], ["responses alive", alive + " of " + tokens[group].length],
    ].map(([name, value]) => {
      const line = document.createElement("span"), number = document.createElement("em");
      line.textContent = name;
      number.textContent = value;
      line.append(number);
      return line;
    });
    tip.replaceChildren(title, ...lines);
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - box.width - 8)) + "px";
    const below = event.clientY + 20;
    tip.style.top = (below + box.height > innerHeight ? event.clientY - box.height - 14 : below) + "px";
  };
  document.addEventListener("pointerover", event => {
    const token = event.target.closest(".text i");
    if (!token) { if (!event.target.closest(".strip svg")) clear(); return; }
    const group = sections.indexOf(token.closest("section"));
    const position = tokens[group].find(row => row.includes(token)).indexOf(token);
    mark(group, position);
    tell(event, token, group, position);
  });
  document.addEventListener("pointermove", event => {
    const strip = event.target.closest(".strip svg");
    if (!strip) return;
    const group = sections.indexOf(strip.closest("section")), box = strip.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    mark(group, Math.floor(share * Math.max(...tokens[group].map(row => row.length))));
  });
})();
"""
