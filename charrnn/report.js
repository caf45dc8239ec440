"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const find = id => document.getElementById(id);
const make = (name, attributes, text) => {
  const svg = ["svg", "rect", "text", "g", "title"].includes(name);
  const one = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const key in attributes || {}) one.setAttribute(key, attributes[key]);
  if (text !== undefined) one.textContent = text;
  return one;
};
const number = value => value === undefined ? "" : value.toFixed(2).replace("-", "−");
const percent = p => p >= 0.001 ? (100 * p).toFixed(1) + "\u00a0%" : "<\u00a00.1\u00a0%";
const shown = text => text === " " ? "␣" : text;

function tint(element, share, signed) {  // a colour of the page's theme, as strong as the share
  const strength = Math.min(1, Math.abs(share));
  if (strength < 0.03) { element.style.background = "none"; return; }
  const colour = signed && share < 0 ? "var(--fall)" : "var(--rise)";
  element.style.background = `color-mix(in srgb, ${colour} ${Math.round(65 * strength)}%, transparent)`;
}

function bars(target, alternatives, truth) {  // [text, p] of each
  target.replaceChildren();
  for (const [text, p] of alternatives) {
    const row = text === truth ? "is" : "";
    const cells = [make("code", {}, shown(text)), make("div", {class: row}), make("span", {}, percent(p))];
    const bar = make("i");
    bar.style.cssText = `display:block;width:${100 * p}%`;
    cells[1].append(bar);
    target.append(...cells);
  }
}

// The surprise map: hovering, clicking, or Tab and the arrow keys show what the model held likely there.
const tokens = data.tokens;
function walkable(place, act, buttons) {
  place.addEventListener("keydown", event => {
    const by = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    const at = buttons.indexOf(document.activeElement);
    if (!by || at < 0) return;
    event.preventDefault();
    const next = buttons[Math.max(0, Math.min(buttons.length - 1, at + by))];
    next.focus();
    act(buttons.indexOf(next));
  });
}
function letters(place, from, act) {
  let since = 0;
  const buttons = from.map((token, at) => {
    const one = make("button", {type: "button", tabindex: at ? "-1" : "0", "aria-label": `${token.text}, ${token.nats.toFixed(2)} nats`}, token.text.replace(/\n/g, "↵"));
    place.append(one);
    if (token.text.includes("\n")) place.append("\n");
    if (++since > 24 || /\s$|[\u2e80-\u9fff]/.test(token.text)) place.append(make("wbr"));  // lines end between words
    since = place.lastChild === one ? since : 0;
    one.addEventListener("click", () => act(at));
    one.addEventListener("focus", () => act(at));
    return one;
  });
  walkable(place, act, buttons);
  return buttons;
}
function surprise(at) {
  const token = tokens[at];
  find("chosen").textContent = shown(token.text.replace(/\n/g, "↵"));
  find("paid").textContent = `${token.nats.toFixed(2)} nats: the model gave it ${percent(Math.exp(-token.nats))}`;
  bars(find("alternatives"), token.likely, token.text.replace(/\n/g, "↵"));
  marks.forEach((one, other) => one.classList.toggle("now", other === at));
}
const marks = letters(find("surprise"), tokens, surprise);
marks.forEach((one, at) => {
  tint(one, tokens[at].nats / 6, false);
  one.addEventListener("mouseenter", () => surprise(at));
});
surprise(tokens.reduce((best, token, at) => token.nats > tokens[best].nats ? at : best, 0));

// The map of units: one row a unit, one column a character.
const inner = data.inner;
function drawMap() {
  const layer = inner.layers[find("map-layer").value], name = find("map-name").value;
  const rows = layer.values[name], signed = ["hidden", "memory", "candidate"].includes(name), most = signed ? Math.max(1e-6, ...rows.flat().map(Math.abs)) : 1;
  const wide = 860 / (inner.steps + 4), high = 13, svg = find("map");
  svg.replaceChildren(make("title", {}, `${name} of ${layer.name}`));
  const labels = inner.texts.map(text => [...shown(text)].slice(0, 16).join("")), longest = Math.max(...labels.map(text => [...text].length));
  svg.setAttribute("viewBox", `0 0 880 ${rows.length * high + (longest > 2 ? 14 + 7 * longest : 26)}`);
  rows.forEach((row, r) => {
    svg.append(make("text", {x: 4 * wide - 4, y: r * high + 10, "text-anchor": "end"}, layer.units[r]));
    row.forEach((value, t) => {
      const one = make("rect", {x: (4 + t) * wide, y: r * high, width: wide - 0.4, height: high - 1, fill: value < 0 ? "var(--fall)" : "var(--rise)",
        "fill-opacity": Math.min(1, Math.abs(value) / most).toFixed(3)});
      one.append(make("title", {}, `unit ${layer.units[r]}, after ${shown(inner.texts[t])}: ${number(value)}`));
      svg.append(one);
    });
  });
  labels.forEach((text, t) => {
    const x = (4.5 + t) * wide, y = rows.length * high;
    svg.append(make("text", longest > 2 ? {transform: `translate(${x + 4} ${y + 5}) rotate(-90)`, "text-anchor": "end"} : {x, y: y + 14, "text-anchor": "middle"}, text));
  });
  find("map-scale").textContent = `${inner.says[name]} of ${layer.name}: ` + (signed ? `−${most.toFixed(1)} to ${most.toFixed(1)}` : "0 to 1");
  find("map-legend").classList.toggle("both", signed);
}
function choices(select, names, act) {
  names.forEach(([value, text]) => select.append(make("option", {value}, text)));
  select.addEventListener("change", act);
}
choices(find("map-layer"), inner.layers.map((layer, at) => [at, layer.name]), drawMap);
choices(find("map-name"), Object.keys(inner.layers[0].values).map(name => [name, inner.says[name]]), drawMap);
drawMap();

// The cell, stepped through the sentence.
let at = 0, timer = 0;
const looked = () => inner.layers[find("cell-layer").value];
function values() {
  const layer = looked(), unit = Number(find("cell-unit").value), now = {};
  for (const name in layer.values) now[name] = layer.values[name][unit][at];
  for (const name in layer.before) now[name === "product" ? name : name + " before"] = layer.before[name][unit][at];
  now["reset state"] = now.reset * (inner.reset === "after" ? now.product : now["hidden before"]);
  now["1 − update"] = 1 - now.update;
  now.kept = inner.cell === "lstm" ? now.forget * now["memory before"] : now.update * now["hidden before"];
  now.added = inner.cell === "lstm" ? now.input * now.candidate : now["1 − update"] * now.candidate;
  now.squashed = Math.tanh(now.memory);
  return now;
}
function sum(now) {
  const v = name => number(now[name]);
  if (inner.cell === "lstm") return `C = F · C before + I · C̃ = ${v("forget")} · ${v("memory before")} + ${v("input")} · ${v("candidate")} = ${v("memory")}\n` +
    `H = O · tanh(C) = ${v("output")} · ${v("squashed")} = ${v("hidden")}`;
  if (inner.cell === "gru") return `H = Z · H before + (1 − Z) · H̃ = ${v("update")} · ${v("hidden before")} + ${v("1 − update")} · ${v("candidate")} = ${v("hidden")}`;
  return `H = ${v("hidden")}`;
}
function show(step) {
  at = Math.max(0, Math.min(inner.steps - 1, step));
  const now = values(), drawing = find("cell");
  drawing.querySelectorAll("[data-level]").forEach(one => {
    const name = one.dataset.level, value = Math.max(-1, Math.min(1, now[name])), top = Number(one.dataset.top), high = Number(one.dataset.height);
    const signed = ["candidate", "hidden"].includes(name), size = Math.abs(value) * (signed ? high / 2 : high);
    const from = signed ? top + high / 2 - (value > 0 ? size : 0) : top + high - size;
    one.setAttribute("y", from.toFixed(1));
    one.setAttribute("height", size.toFixed(1));
    one.classList.toggle("minus", value < 0);
  });
  drawing.querySelectorAll("[data-line]").forEach(one => { one.style.strokeWidth = (1 + 6 * Math.min(1, Math.abs(now[one.dataset.line] || 0))).toFixed(2); });
  drawing.querySelectorAll("[data-number]").forEach(one => { one.textContent = number(now[one.dataset.number]); });
  const layer = looked(), next = at + layer.way;
  find("sum").textContent = `unit ${layer.units[find("cell-unit").value]} of ${layer.name}, having read ${shown(inner.texts[at])}\n${sum(now)}`;
  find("place").value = at;
  find("place").setAttribute("aria-valuetext", `after ${inner.texts[at]}`);
  find("step").textContent = `${at + 1} of ${inner.steps}`;
  steps.forEach((one, other) => one.classList.toggle("now", other === at));
  find("expects").textContent = inner.both ? `and from both sides the model expects ${layer.way > 0 ? "after" : "before"} it` : "and the model expects next";
  bars(find("next"), inner.expected[next] || [], inner.texts[next]);
}
function units() {
  const layer = looked(), select = find("cell-unit");
  select.replaceChildren();
  layer.units.forEach((unit, n) => select.append(make("option", {value: n}, `unit ${unit}`)));
  colour();
  show(at);
}
function colour() {
  const layer = looked(), row = layer.values[inner.cell === "lstm" ? "memory" : "hidden"][Number(find("cell-unit").value)];
  const most = Math.max(1e-6, ...row.map(Math.abs));
  steps.forEach((one, t) => tint(one, row[t] / most, true));
}
const last = () => looked().way > 0 ? inner.steps - 1 : 0;  // where the reading ends
function play(on) {
  clearInterval(timer);
  timer = on ? setInterval(() => at === last() ? play(false) : show(at + looked().way), 650) : 0;
  find("play").textContent = on ? "Pause" : "Play";
}
const steps = letters(find("sentence"), inner.texts.map((text, t) => ({text, nats: inner.nats[t]})), show);
choices(find("cell-layer"), inner.layers.map((layer, n) => [n, layer.name]), units);
find("cell-unit").addEventListener("change", () => { colour(); show(at); });
find("place").max = inner.steps - 1;
find("place").addEventListener("input", event => show(Number(event.target.value)));
find("back").addEventListener("click", () => { play(false); show(at - 1); });
find("on").addEventListener("click", () => { play(false); show(at + 1); });
find("play").addEventListener("click", () => { if (!timer && at === last()) show(inner.steps - 1 - at); play(!timer); });
find("stepper").addEventListener("keydown", event => {
  if (["SELECT", "INPUT"].includes(event.target.tagName) || find("sentence").contains(event.target)) return;
  const to = {ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: inner.steps - 1}[event.key];
  if (to === undefined) return;
  event.preventDefault();
  play(false);
  show(to);
});
units();
show(Math.min(1, inner.steps - 1));
document.documentElement.dataset.ready = "yes";
