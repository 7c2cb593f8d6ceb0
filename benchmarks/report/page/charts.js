"use strict";
// Curves by Vega-Lite. A chart is made when it comes into sight, and again when the axis or the theme changes; what is
// shown of it changes with its data alone.

const colourOf = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const reduced = text => text.length > 42 ? text.slice(0, 41) + "…" : text;

function theme() {
  const ink = colourOf("--ink"), line = colourOf("--line"), soft = colourOf("--soft");
  return {
    background: null, font: "system-ui, sans-serif", view: {stroke: line},
    axis: {labelColor: ink, titleColor: ink, gridColor: line, domainColor: line, tickColor: line, titleFontWeight: "normal", gridOpacity: .6},
    text: {fill: soft},
  };
}

const places = {
  grid: {of: p => p.side, title: "patches a side", log: false},
  macs: {of: p => p.gmacs, title: "GMACs an image", log: true},
};

function pointsOf(data, table, against, shown, chosen) {
  // what a chart draws: choices of backbones that are switched on, those of the usual view where there is one
  const usual = table.points.some(p => !p.view) ? table.points.map((p, i) => [p, i]).filter(([p]) => !p.view)
    : table.points.map((p, i) => [p, i]);
  const least = table.unit === "%" ? 0 : -Infinity;
  return usual.filter(([p]) => shown.has(p.backbone) && places[against].of(p) != null).map(([p, i]) => ({
    x: places[against].of(p), value: p.value, low: p.half == null ? p.value : Math.max(p.value - p.half, least),
    high: p.half == null ? p.value : p.value + p.half, backbone: p.backbone, train: p.train,
    line: p.backbone + (p.train === "-" ? "" : ", trained at " + p.train),
    fill: p.filled ? "full" : "open", chosen: i === chosen,
    seen: against === "grid" || p.share == null ? 1 : p.share >= .5 ? 1 : p.share >= .05 ? .6 : .25,
    text: p.half == null ? `${p.value}` : `${p.value} ± ${p.half}`, grid: `${p.grid} ${p.view}`.trim(),
    cost: p.gmacs == null ? "-" : `${p.gmacs}`, ms: p.ms.filter(v => v != null).join(", ") || "-",
  }));
}

function curve(data, table, against) {
  const domain = data.backbones.map(b => b.name), range = data.backbones.map(b => b.colour), at = places[against];
  const trains = [...new Set(table.points.map(p => p.train))];
  const unit = table.unit ? ` in ${table.unit}` : "";
  const x = {field: "x", type: "quantitative", title: at.title, scale: at.log ? {type: "log", nice: false, padding: 12} : {zero: false, padding: 12},
    axis: at.log ? {format: "~g", tickCount: 5} : {values: [...new Set(table.points.map(at.of))], labelOverlap: true, format: "~g"}};
  const colour = {field: "backbone", type: "nominal", legend: null, scale: {domain, range}};
  const dash = {field: "train", type: "nominal", legend: null, scale: {domain: trains, range: [[1, 0], [6, 3], [2, 2], [8, 2, 2, 2]]}};
  const tooltip = [["line", "backbone"], ["grid", "grid"], ["text", table.metric + unit], ["cost", "GMACs"], ["ms", "ms"]]
    .map(([field, title]) => ({field, title}));
  return {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json", height: 240, config: theme(),
    description: `${table.title} against ${at.title}; the values are in the table of the same name`,
    data: {name: "points"},
    encoding: {x, y: {field: "value", type: "quantitative", title: `${table.metric}${unit}`, scale: {zero: false, padding: 8}}, color: colour},
    layer: [
      {mark: {type: "line", strokeWidth: 1.6}, encoding: {detail: {field: "line"}, strokeDash: dash}},
      {mark: {type: "rule", strokeWidth: 1}, encoding: {y: {field: "low", type: "quantitative"}, y2: {field: "high"}, opacity: {field: "seen", type: "quantitative", scale: null}}},
      {transform: [{filter: "datum.chosen"}], mark: {type: "point", size: 330, strokeWidth: 2.2, filled: false}, encoding: {color: {value: colourOf("--ink")}}},
      {transform: [{filter: "datum.fill === 'full'"}], mark: {type: "point", size: 60, filled: true, opacity: 1}, encoding: {opacity: {field: "seen", type: "quantitative", scale: null}, tooltip}},
      {transform: [{filter: "datum.fill === 'open'"}], mark: {type: "point", size: 60, strokeWidth: 1.6, fill: colourOf("--ground"), fillOpacity: 1}, encoding: {opacity: {field: "seen", type: "quantitative", scale: null}, tooltip}},
    ],
  };
}

function lossesOf(table, shown) {
  return table.losses.filter(l => shown.has(l.backbone)).flatMap(l => l.losses.map((loss, i) => ({
    step: i * l.every + 1, loss, backbone: l.backbone, train: l.train, line: `${l.backbone}, trained at ${l.train}, seed ${l.seed}`,
  })));
}

function lossCurve(data, table) {
  const domain = data.backbones.map(b => b.name), range = data.backbones.map(b => b.colour);
  return {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json", height: 200, config: theme(),
    description: `Training loss of ${table.title}`, data: {name: "points"},
    mark: {type: "line", strokeWidth: 1.2, interpolate: "monotone"},
    encoding: {
      x: {field: "step", type: "quantitative"}, y: {field: "loss", type: "quantitative", title: "loss (running mean)", scale: {zero: false}},
      color: {field: "backbone", type: "nominal", legend: null, scale: {domain, range}},
      strokeDash: {field: "train", type: "nominal", legend: null}, detail: {field: "line"},
      tooltip: [{field: "line", title: "training"}, {field: "step"}, {field: "loss"}],
    },
  };
}

class Chart {
  // `make` gives the specification, `rows` its data; `stale` makes it anew when it is next in sight
  constructor(place, make, rows) {
    this.place = place; this.make = make; this.rows = rows; this.view = null; this.stale = true; this.inSight = false;
    new IntersectionObserver(seen => { this.inSight = seen.some(s => s.isIntersecting); this.draw(); }, {rootMargin: "300px"}).observe(place);
    place.closest("details")?.addEventListener("toggle", event => { this.inSight = event.target.open; this.draw(); });
    const box = place.getBoundingClientRect();
    if (box.width && box.top < innerHeight) { this.inSight = true; queueMicrotask(() => this.draw()); }
    new ResizeObserver(() => { if (this.view && this.place.clientWidth !== this.width) this.renew(); }).observe(place);
  }
  async draw() {
    if (!this.inSight || !this.stale) return;
    this.stale = false;
    const spec = this.make();
    spec.datasets = {points: this.rows()};
    spec.width = this.width = this.place.clientWidth;
    spec.autosize = {type: "fit", contains: "padding"};
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const found = await vegaEmbed(this.place, spec, {renderer: "svg", actions: false, logLevel: 1, tooltip: {theme: dark ? "dark" : "light"}});
    this.view?.finalize();
    this.view = found.view;
    this.place.dataset.drawn = this.rows().length;
  }
  async fill() {
    if (this.stale || !this.view) { this.stale = true; return this.draw(); }
    const rows = this.rows();
    await this.view.data("points", rows).runAsync();
    this.place.dataset.drawn = rows.length;
  }
  renew() { this.stale = true; return this.draw(); }
}
