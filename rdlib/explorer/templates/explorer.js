"use strict";
// The explorer: looks states up in the data of the page and draws them.  A state is in the address, to be sent.
const {units, families, sources} = JSON.parse(document.getElementById("data").textContent);
const at = id => document.getElementById(id);
const DB = [-51, 3], RATE = [0, 9], GAP = [-0.2, 2.2], SIGMA = [-8, 8], LOG = [-4.5, 0.4];
const PARTS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#777777", "#b2182b"];
let pinned = null;

// --- states ----------------------------------------------------------------------------------------------

const ofKind = () => sources.filter(source => source.kind === at("kind").value);
const now = () => {
  const name = at("family").value, family = families[name], place = family.places[at("knob").value] ?? family.places[0];
  return {source: ofKind()[at("value").value], name, bits: at("bits").value, place};
};
const key = (state, bits = state.bits) => `${bits} ${state.place}`;
const numbersOf = (state, bits) => {
  const found = state.source.states[state.name][key(state, bits)];
  return found && Object.fromEntries(found[0].split("|").map((number, k) => [state.source.names[k], number]));
};
const bitsOf = name => Object.keys(families[name].python).map(k => Number(k.split(" ")[0]));
const withUnit = (name, number) => /\d$|^inf$/.test(number) ? `${number} ${units[name]}`.trim() : number;
const title = ({name, place, bits, source}) =>
  `${name}${families[name].knob ? `, ${families[name].knob} ${place}` : ""}, ${bits} bits, on ${source.label}`;

// Set the sliders to what the chosen source and family have.
const fit = () => {
  const some = ofKind(), family = families[at("family").value], bits = bitsOf(at("family").value);
  at("value").max = some.length - 1;
  at("value").disabled = some.length === 1;
  at("symbol").textContent = some[0].symbol || "tail";
  at("bits").min = Math.min(...bits);
  at("bits").max = Math.max(...bits);
  at("bits").disabled = at("bits").min === at("bits").max;
  at("knob").max = family.places.length - 1;
  at("knob").disabled = !family.knob;
  at("knob-name").textContent = family.knob || "no knob";
};

// --- drawing ---------------------------------------------------------------------------------------------

const SVG = at("plane").namespaceURI;
const make = (tag, attributes, text) => {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
};

// A panel: its axes, and functions from units to pixels.
const panel = (svg, xs, ys, xlabel, ylabel, xticks, yticks) => {
  const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number), left = 52, bottom = height - 38, top = 24;
  const x = v => left + (v - xs[0]) / (xs[1] - xs[0]) * (width - left - 8), y = v => bottom - (v - ys[0]) / (ys[1] - ys[0]) * (bottom - top);
  svg.replaceChildren(svg.querySelector("title"), make("clipPath", {id: `${svg.id}-clip`}));
  svg.querySelector("clipPath").append(make("rect", {x: left, y: top, width: width - left - 8, height: bottom - top}));
  for (const v of xticks) svg.append(make("line", {class: "grid", x1: x(v), x2: x(v), y1: top, y2: bottom}), make("text", {x: x(v), y: bottom + 14, "text-anchor": "middle"}, String(v).replace("-", "−")));
  for (const v of yticks) svg.append(make("line", {class: "grid", x1: left, x2: width - 8, y1: y(v), y2: y(v)}), make("text", {x: left - 5, y: y(v) + 4, "text-anchor": "end"}, String(v).replace("-", "−")));
  svg.append(make("line", {class: "axis", x1: left, x2: width - 8, y1: bottom, y2: bottom}), make("line", {class: "axis", x1: left, x2: left, y1: top, y2: bottom}),
    make("text", {x: (left + width) / 2, y: height - 6, "text-anchor": "middle"}, xlabel), make("text", {x: 4, y: 14}, ylabel));
  const inside = make("g", {"clip-path": `url(#${svg.id}-clip)`});
  svg.append(inside);
  return {x, y, inside, left, width};
};
const path = ({x, y, inside}, points, attributes) => inside.append(make("path", {d: points.map(([a, b], k) => `${k ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join(""), ...attributes}));
const BOUNDS = ["var(--ink)", "var(--soft)", "var(--soft)"], DASHES = ["none", "none", "2 3"];
const drawn = db => Number.isFinite(Number(db)); // what loses nothing has no place on the plane

const draw = () => {
  const state = now(), shown = [[state, "now"], ...(pinned ? [[pinned, "then"]] : [])];
  at("stage").style.setProperty("--colour", families[state.name].colour);
  at("stage").style.setProperty("--other", pinned ? families[pinned.name].colour : "#777");

  const plane = panel(at("plane"), RATE, DB, "rate (total bits per weight)", "distortion D/σ² (dB)", [0, 2, 4, 6, 8], [-50, -40, -30, -20, -10, 0]);
  Object.entries(state.source.bounds).forEach(([name, db], k) => {
    path(plane, state.source.rates.map((rate, i) => [rate, db[i]]), {class: "bound", style: `stroke:${BOUNDS[k]};stroke-dasharray:${DASHES[k]}`});
    at("plane").append(make("line", {x1: 330, x2: 354, y1: 36 + 16 * k, y2: 36 + 16 * k, style: `stroke:${BOUNDS[k]};stroke-dasharray:${DASHES[k]}`}), make("text", {x: 360, y: 40 + 16 * k}, name));
  });
  const low = panel(at("gaps"), RATE, GAP, "rate (total bits per weight)", "bits above the Gaussian R(D)", [0, 2, 4, 6, 8], [0, 1, 2]);
  path(low, [[0, 0], [9, 0]], {class: "bound", style: "stroke:var(--ink)"});
  for (const [one, role] of shown.reverse()) {
    const along = bitsOf(one.name).map(bits => numbersOf(one, bits)).filter(n => n && drawn(n["D/σ²"]));
    const style = {class: `curve ${role}${role === "then" ? " pinned" : ""}`};
    path(plane, along.map(n => [Number(n["total rate"]), Number(n["D/σ²"])]), style);
    path(low, along.map(n => [Number(n["total rate"]), Number(n["gap to Gaussian R(D)"])]), style);
    const n = numbersOf(one);
    if (!drawn(n["D/σ²"])) continue;
    const rate = Number(n["total rate"]), db = Number(n["D/σ²"]), gap = Number(n["gap to Gaussian R(D)"]);
    path(plane, [[rate - gap, db], [rate, db]], {class: role, "stroke-width": 3});
    plane.inside.append(make("circle", {class: role, cx: plane.x(rate), cy: plane.y(db), r: 6}),
      make("text", {class: role, x: plane.x(rate) + 10, y: plane.y(db) + 4}, `${n["gap to Gaussian R(D)"]} bits`));
    low.inside.append(make("circle", {class: role, cx: low.x(rate), cy: low.y(gap), r: 6}));
  }

  const right = panel(at("density"), SIGMA, LOG, "w/σ", "density (log₁₀), and levels", [-8, -4, 0, 4, 8], [-4, -3, -2, -1, 0]);
  const {edges, density, gaussian} = state.source;
  path(right, density.flatMap((v, k) => [[edges[k], v], [edges[k + 1], v]]), {style: "fill:none;stroke:#56b4e9;stroke-width:2"});
  path(right, gaussian.map((v, k) => [(edges[k] + edges[k + 1]) / 2, v]), {class: "bound", style: "stroke:var(--ink);stroke-dasharray:4 3;stroke-width:1"});
  const levels = state.source.states[state.name][key(state)][2], places = /levels$/.test(levels) ? [] : levels.split(" ").filter(Boolean).map(v => Number(v) / 100);
  for (const v of places) path(right, [[v, LOG[0]], [v, LOG[1]]], {class: "now", "stroke-width": 0.9, opacity: 0.8});
  const outside = places.filter(v => v < SIGMA[0] || v > SIGMA[1]).length;
  at("levels").textContent = places.length ? `${places.length} levels${outside ? `, ${outside} beyond 8σ` : ""}${families[state.name].knob === "group size" ? ", of the group of median scale" : ""}. Dashed: Gaussian.`
    : levels ? `${levels}, too many to draw. Dashed: Gaussian.` : "Several weights are coded together: there are no levels to draw. Dashed: Gaussian.";
};

const write = () => {
  const state = now(), numbers = numbersOf(state), others = pinned && numbersOf(pinned);
  at("value-text").textContent = state.source.value;
  at("bits-text").textContent = state.bits;
  at("knob-text").textContent = families[state.name].knob ? state.place : "–";
  for (const id of ["value", "bits", "knob"]) at(id).setAttribute("aria-valuetext", at(`${id}-text`).textContent);
  at("summary").textContent = `${title(state)}: ${withUnit("total rate", numbers["total rate"])}, D/σ² ${withUnit("D/σ²", numbers["D/σ²"])}, ${withUnit("gap to Gaussian R(D)", numbers["gap to Gaussian R(D)"])} above the Gaussian R(D).`;
  at("pinned-head").hidden = at("unpin").hidden = !pinned;
  at("saying").textContent = pinned ? `Pinned: ${title(pinned)}` : "";
  at("numbers").replaceChildren(...state.source.names.map(name => {
    const row = document.createElement("tr"), head = document.createElement("th");
    head.scope = "row";
    head.textContent = name;
    row.append(head, ...[numbers, others].filter(Boolean).map(all => {
      const cell = document.createElement("td");
      cell.textContent = name in all ? withUnit(name, all[name]) : "–";
      return cell;
    }));
    return row;
  }));
  const words = state.source.states[state.name][key(state)][1].split(" "), parts = [];
  for (let k = 0; k < words.length; k += 2) parts.push([words[k], words[k + 1]]);
  parts.sort((a, b) => b[1] - a[1]);
  at("bar").replaceChildren(...parts.map(([, rate], k) => {
    const part = document.createElement("span");
    part.style.cssText = `flex-grow:${rate};--part:${PARTS[k % PARTS.length]}`;
    return part;
  }));
  at("parts").replaceChildren(...parts.map(([name, rate], k) => {
    const part = document.createElement("li");
    part.style.setProperty("--part", PARTS[k % PARTS.length]);
    part.textContent = `${name} ${rate}`;
    return part;
  }));
  const [names, written] = families[state.name].python[key(state)];
  at("python").textContent = `${state.source.maker}\nfrom rdlib.measure import measure\nfrom rdlib.quantizers import ${names}\n\nW = ${state.source.python}\nprint(measure(W, ${written}))\n`;
  history.replaceState(null, "", `#${new URLSearchParams({weights: state.source.label, family: state.name, bits: state.bits, knob: state.place})}`);
};

const update = () => { fit(); draw(); write(); };

// --- begin -----------------------------------------------------------------------------------------------

const restore = () => {
  const given = new URLSearchParams(location.hash.slice(1));
  const source = sources.find(one => one.label === given.get("weights")) ?? sources.find(one => one.symbol === "ν" && one.value === "∞") ?? sources[0];
  at("kind").value = source.kind;
  at("family").value = given.get("family") in families ? given.get("family") : "Lloyd–Max";
  fit();
  at("value").value = ofKind().indexOf(source);
  at("bits").value = given.get("bits") ?? 4;
  const places = families[at("family").value].places;
  at("knob").value = Math.max(places.indexOf(given.get("knob")), 0);
  update();
};
at("controls").addEventListener("input", event => {
  if (event.target.id === "kind") { fit(); at("value").value = Math.floor(at("value").max / 2); }
  if (event.target.id === "family") { fit(); at("knob").value = Math.floor(at("knob").max / 2); }
  update();
});
at("pin").addEventListener("click", () => { pinned = now(); update(); });
at("unpin").addEventListener("click", () => { pinned = null; update(); });
at("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(at("python").textContent);
  at("copy").textContent = "Copied";
  setTimeout(() => { at("copy").textContent = "Copy"; }, 1500);
});
window.addEventListener("hashchange", restore);
restore();
