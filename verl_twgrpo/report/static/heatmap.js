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
