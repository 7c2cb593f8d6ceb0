const data = JSON.parse(document.getElementById("payload").textContent);
const $ = selector => document.querySelector(selector), $$ = selector => [...document.querySelectorAll(selector)];
const make = (tag, properties = {}, ...children) => {
  const found = Object.assign(document.createElement(tag), properties);
  found.append(...children);
  return found;
};
const number = value => Number(value.toPrecision(4)).toString();

// ---- which cost, which backbones
data.settings.forEach((name, i) => { places["ms" + i] = {of: p => p.ms[i], title: "ms an image, " + name, log: true}; });
const costs = {macs: "GMACs an image"};
data.settings.forEach((name, i) => { costs["ms" + i] = "ms, " + name; });
const stepsOf = (table, kind) => table.steps[kind === "macs" ? kind : data.settings[Number(kind.slice(2))]];
const MOST = 12; // curves at first: more are switched on by hand
const first = data.backbones.filter(b => b.flexible === true).concat(data.backbones.filter(b => b.flexible !== true)).slice(0, MOST);
const state = {against: "grid", unit: "macs", limit: Infinity, shown: new Set(first.map(b => b.name)), chosen: data.tables.map(() => -1)};

const charts = $$(".chart").map(place => {
  const i = Number(place.dataset.table), table = data.tables[i];
  return new Chart(place.querySelector(".canvas"), () => curve(data, table, state.against),
    () => pointsOf(data, table, state.against, state.shown, state.chosen[i]));
});
const losses = $$(".losses").map(place => {
  const table = data.tables[Number(place.dataset.table)];
  place.hidden = !table.losses.length;
  return new Chart(place.querySelector(".canvas"), () => lossCurve(data, table), () => lossesOf(table, state.shown));
});
const fill = () => [...charts, ...losses].forEach(c => c.fill());

Object.entries(places).forEach(([kind, place]) => {
  const radio = make("input", {type: "radio", name: "against", value: kind, checked: kind === state.against});
  radio.addEventListener("change", () => { state.against = kind; charts.forEach(c => c.renew()); });
  $("#against").append(make("label", {}, radio, " " + place.title));
});

const boxes = data.backbones.map(b => {
  const box = make("input", {type: "checkbox", checked: state.shown.has(b.name), name: b.name});
  box.addEventListener("change", () => { box.checked ? state.shown.add(b.name) : state.shown.delete(b.name); fill(); });
  const swatch = make("span", {className: b.flexible === true ? "swatch" : "swatch fixed", ariaHidden: "true"});
  swatch.style.background = b.colour;
  $("#legend").append(make("label", {}, box, swatch, b.name));
  return box;
});
const switched = on => {
  data.backbones.forEach((b, i) => { boxes[i].checked = on(b); on(b) ? state.shown.add(b.name) : state.shown.delete(b.name); });
  fill();
};
[["all", () => true], ["none", () => false], ["flexible", b => b.flexible === true]].forEach(([text, on]) => {
  $("#legend").append(make("button", {type: "button", textContent: text, onclick: () => switched(on)}));
});

// ---- the budget
function ends(kind) {
  const all = data.tables.flatMap(t => t.points.map(places[kind].of)).filter(v => v != null);
  return all.length ? [Math.min(...all), Math.max(...all)] : null;
}
Object.keys(costs).filter(ends).forEach(kind => $("#unit").append(make("option", {value: kind, textContent: costs[kind]})));

function nameOf(point) {
  return `${point.backbone} at grid ${point.grid}` + (point.train === "-" ? "" : `, trained at ${point.train}`);
}
function spend(limit) {
  state.limit = limit;
  const body = $("#chosen tbody"), unit = costs[state.unit];
  body.replaceChildren();
  let within = 0;
  data.tables.forEach((table, i) => {
    const step = stepsOf(table, state.unit).filter(([cost]) => cost <= limit * (1 + 1e-9)).at(-1);
    state.chosen[i] = step ? step[1] : -1;
    const cells = [make("th", {scope: "row"}, make("a", {href: "#t" + i, textContent: table.title}))];
    if (step) {
      within += 1;
      const [, place, could, cheap] = step, point = table.points[place];
      const sure = cheap < 0 ? "none can be shown" : cheap === place ? "the same" : `${nameOf(table.points[cheap])} (${number(places[state.unit].of(table.points[cheap]))})`;
      cells.push(nameOf(point), `${point.value.toFixed(table.digits)}${point.half == null ? "" : " ± " + point.half.toFixed(table.digits)} ${table.unit}`,
        number(places[state.unit].of(point)), String(could - 1), sure);
    } else {
      cells.push(table.points.some(p => p.half != null) ? "nothing is so cheap" : "no intervals: nothing is kept of its samples", "-", "-", "-", "-");
    }
    body.append(make("tr", {}, cells[0], ...cells.slice(1).map(text => make("td", {textContent: text}))));
    $$(`table.values[data-table="${i}"] td[data-point]`).forEach(cell => {
      const place = Number(cell.dataset.point), cost = places[state.unit].of(table.points[place]);
      cell.classList.toggle("best", place === state.chosen[i]);
      cell.classList.toggle("dear", cost != null && cost > limit * (1 + 1e-9));
      if (place === state.chosen[i]) cell.title = "chosen for the budget"; else cell.removeAttribute("title");
    });
  });
  $("#amount").value = number(limit);
  $("#limit").setAttribute("aria-valuetext", `${number(limit)} ${unit}`);
  $("#said").textContent = `At most ${number(limit)} ${unit}: a choice in ${within} of ${data.tables.length} tables. ` +
    "It is ringed in the curves and framed in the tables; what is dearer is pale there.";
  charts.forEach(c => c.fill());
}
function spread(position) { // the slider runs over the logarithm
  const [low, high] = ends(state.unit);
  return position >= 1000 ? high : low * (high / low) ** (position / 1000);
}
if ($("#unit").options.length) {
  $("#unit").addEventListener("change", event => { state.unit = event.target.value; $("#limit").value = 1000; spend(spread(1000)); });
  $("#limit").addEventListener("input", event => spend(spread(Number(event.target.value))));
  $("#amount").addEventListener("change", event => {
    const [low, high] = ends(state.unit), limit = Math.max(0, Number(event.target.value) || 0);
    $("#limit").value = high > low && limit > 0 ? Math.round(1000 * Math.log(limit / low) / Math.log(high / low)) : 0;
    spend(limit);
  });
  state.unit = $("#unit").value;
  spend(spread(1000));
} else {
  $("#budget").hidden = true;
}

// ---- tables: sorting, the cue that they scroll, what a number rests on
const keyOf = cell => { const text = cell.textContent.trim(), value = parseFloat(text); return Number.isNaN(value) ? text : value; };
$$("table.sorts").forEach(table => [...table.tHead.rows[0].cells].forEach((head, column) => {
  const button = make("button", {type: "button", textContent: head.textContent});
  head.replaceChildren(button);
  head.ariaSort = "none";
  button.addEventListener("click", () => {
    const down = head.ariaSort === "ascending";
    [...head.parentElement.cells].forEach(other => { other.ariaSort = "none"; });
    head.ariaSort = down ? "descending" : "ascending";
    const rows = [...table.tBodies[0].rows].map(row => [keyOf(row.cells[column]), row]);
    const rank = key => key === "-" ? 2 : typeof key === "number" ? 0 : 1; // holes come last, either way
    rows.sort(([a], [b]) => {
      if (rank(a) !== rank(b)) return rank(a) === 2 ? 1 : rank(b) === 2 ? -1 : rank(a) - rank(b);
      const order = typeof a === "number" ? a - b : a.localeCompare(b);
      return down ? -order : order;
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  });
}));

$$(".wide").forEach(box => {
  const cue = make("p", {className: "cue", textContent: "scrolls sideways →", hidden: true, ariaHidden: "true"});
  box.after(cue);
  new ResizeObserver(() => { cue.hidden = box.scrollWidth <= box.clientWidth + 1; }).observe(box);
});

function told(table, point) {
  const list = make("dl"), add = (name, value) => { if (value) list.append(make("dt", {textContent: name}), make("dd", {textContent: value})); };
  const show = value => value == null ? "-" : `${value} ${table.unit}`;
  add("value", `${show(point.value)}${point.half == null ? "" : ` ± ${point.half} (half a 95 % interval)`}`);
  if (point.why) add("no interval", point.why);
  add("cost", point.gmacs == null ? "" : `${point.gmacs} GMACs an image`);
  data.settings.forEach((name, i) => add(name, point.ms[i] == null ? "" : `${point.ms[i]} ms`));
  Object.entries(table.asked).forEach(([name, value]) => add(name, value));
  const origins = point.seeds.map(seed => data.origins[seed.origin]);
  point.seeds.forEach((seed, i) => {
    const [train, weights, finished, revision] = origins[i];
    add(`seed ${seed.seed}`, `${show(seed.value)}; row ${seed.row}; training ${train || "-"}; weights ${weights || "-"}; ${finished}; revision ${revision}`);
  });
  [...new Set(origins.map(o => o[4]))].forEach(text => add("command", "python " + text));
  [...new Set(origins.map(o => o[5]))].forEach(i => add("environment", data.environments[i]));
  return list;
}
document.addEventListener("click", event => {
  const cell = event.target.closest("td[data-point]");
  if (!cell) return;
  const table = data.tables[Number(cell.closest("table").dataset.table)], point = table.points[Number(cell.dataset.point)];
  $("#source-title").textContent = `${table.title}: ${nameOf(point)}`;
  $("#source-text").replaceChildren(told(table, point));
  $("#source").showModal();
});

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => [...charts, ...losses].forEach(c => c.renew()));
