"use strict";
// Hover, keys, clicks and tables of the pictures, which are there without it. Reads the data of its own page alone.
(() => {
  const holder = document.getElementById("data");
  if (!holder) return;
  const { batches, charts, rules } = JSON.parse(holder.textContent);
  const tip = document.getElementById("tip"), spoken = document.getElementById("spoken");

  function told(chart, k) {
    const [name, date, state] = batches[k], lines = [`${name}, ${date}, ${state}`];
    lines.push(chart.v[k] === null ? "no value" : `${chart.n}: ${chart.v[k]}`);
    if (chart.l[k] !== null) lines.push(`usual ${chart.l[k]} to ${chart.h[k]}`);
    for (const rule of chart.r[k] || []) lines.push(`${rule}: ${rules[rule]}`);
    for (const [plate, value] of chart.p[k] || []) lines.push(`plate ${plate} stands apart: ${value}`);
    return lines.join("\n");
  }

  function open(k) { if (batches[k][3]) location.href = batches[k][3]; }

  function cell(row, text, kind = "td") {
    const made = document.createElement(kind);
    made.textContent = text === null ? "–" : text;
    if (kind === "th") made.scope = "row";
    row.append(made);
    return made;
  }

  function table(chart) {
    const made = document.createElement("table"), head = made.createTHead().insertRow(), body = made.createTBody();
    for (const name of ["Batch", "Acquired", "End", "Value", "Usual from", "to", "Rules", "Plates apart"]) cell(head, name, "th").scope = "col";
    for (let k = batches.length - 1; k >= 0; k--) {
      const row = body.insertRow(), name = cell(row, "", "th");
      if (batches[k][3]) { const a = document.createElement("a"); a.href = batches[k][3]; a.textContent = batches[k][0]; name.append(a); } else name.textContent = batches[k][0];
      cell(row, batches[k][1]); cell(row, batches[k][2]);
      for (const value of [chart.v[k], chart.l[k], chart.h[k]]) cell(row, value).className = "n";
      cell(row, (chart.r[k] || []).join(", "));
      cell(row, (chart.p[k] || []).map(([plate, value]) => `${plate} ${value}`).join(", "));
    }
    return made;
  }

  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    const chart = charts[figure.dataset.chart], plot = figure.querySelector(".plot"), cursor = plot.querySelector(".cursor");
    let at = -1;
    const show = (k, x, y) => {
      at = k;
      const place = `${(100 * (k + 0.5)) / batches.length}%`;
      cursor.setAttribute("x1", place); cursor.setAttribute("x2", place); cursor.setAttribute("visibility", "visible");
      tip.textContent = told(chart, k); tip.hidden = false;
      const box = tip.getBoundingClientRect();
      tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 8))}px`;
      tip.style.top = `${y + box.height + 24 > innerHeight ? y - box.height - 14 : y + 14}px`;
    };
    const hide = () => { tip.hidden = true; cursor.setAttribute("visibility", "hidden"); };
    const place = (event) => {
      const box = plot.getBoundingClientRect();
      return Math.max(0, Math.min(batches.length - 1, Math.floor(((event.clientX - box.left) / box.width) * batches.length)));
    };
    // a finger cannot point without touching: its first tap on a batch tells, the second opens
    let opens = true;
    plot.addEventListener("pointerdown", (event) => {
      opens = event.pointerType !== "touch" || place(event) === at;
      show(place(event), event.clientX, event.clientY);
    });
    plot.addEventListener("pointermove", (event) => show(place(event), event.clientX, event.clientY));
    plot.addEventListener("pointerleave", hide);
    plot.addEventListener("blur", hide);
    plot.addEventListener("click", () => { if (opens && at >= 0) open(at); });
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[event.key];
      if (event.key === "Enter" && at >= 0) open(at);
      if (event.key === "Escape") hide();
      if (step === undefined) return;
      event.preventDefault();
      const from = at < 0 ? batches.length : at;
      const next = Math.max(0, Math.min(batches.length - 1, from + step));
      const box = plot.getBoundingClientRect();
      show(next, box.left + (box.width * (next + 0.5)) / batches.length, box.top + box.height / 2);
      spoken.textContent = tip.textContent;
    });
    figure.querySelector("details").addEventListener("toggle", (event) => {
      const holder = event.target.querySelector(".numbers");
      if (event.target.open && !holder.querySelector("table")) holder.replaceChildren(table(chart));
    });
  }
})();
