// The views of clsnb.widgets.canvas: curves, heat maps, scatter plots and grids of pictures, drawn in the browser.
// One ES module for anywidget: canvas 2D and DOM; no import, no network, no build step.

const LINE_COLORS = {
  light: ["#0072b2", "#d55e00", "#00795a", "#b0568a", "#2f8fc4", "#b87a00"],
  dark: ["#5fb0e5", "#f2904f", "#45c99d", "#e0a0c4", "#86cdf5", "#f0b840"],
};
const FONT = "12px system-ui, sans-serif";
// JupyterLab takes single keys unless this stands on the focused element itself
const OWN_KEYS = { "data-lm-suppress-shortcuts": "true" };
const CLICK_DISTANCE = 4; // pixels that a pointer may move in a click

// ---- Helpers

function make(tag, className, attributes = {}, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  for (const name in attributes) element.setAttribute(name, attributes[name]);
  return element;
}

function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

function formatNumber(value) {
  return Number.isFinite(value) ? String(Number(value.toPrecision(5))) : "–";
}

// A copy, since a typed array cannot start at every offset of a message's buffer
function bufferOf(value) {
  if (!value) return new ArrayBuffer(0);
  if (!value.buffer) return value;
  return value.buffer.slice(value.byteOffset, value.byteOffset + value.byteLength);
}

const colorReader = document.createElement("canvas").getContext("2d");

// Any CSS color as red, green, blue; a canvas gives names back as #rrggbb
function rgbOf(color) {
  colorReader.fillStyle = color;
  const known = colorReader.fillStyle;
  if (known.startsWith("#")) return [1, 3, 5].map(i => parseInt(known.slice(i, i + 2), 16));
  return known.match(/[\d.]+/g).slice(0, 3).map(Number);
}

function mixColors(from, to, share) {
  return from.map((value, i) => Math.round(value + (to[i] - value) * share));
}

function luminance(rgb) {
  const [r, g, b] = rgb.map(v => (v / 255 <= 0.04 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function tickStep(span, count) {
  const rough = span / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find(factor => factor * power >= rough);
}

function linearTicks(low, high, count) {
  if (!(high > low)) return [low];
  const step = tickStep(high - low, count);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) ticks.push(k * step);
  return ticks;
}

// Powers of ten between two exponents; between narrow ones as for a linear axis
function logTicks(low, high, count) {
  if (high - low < 1) return linearTicks(10 ** low, 10 ** high, count).filter(v => v > 0).map(Math.log10);
  return linearTicks(low, high, Math.min(count, high - low)).filter(v => Math.abs(v - Math.round(v)) < 1e-6);
}

function shorten(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let end = text.length;
  while (end > 1 && context.measureText(text.slice(0, end) + "…").width > width) end--;
  return text.slice(0, end) + "…";
}

function bitIsSet(bits, i) {
  return (bits[i >> 3] >> (i & 7)) & 1;
}

function setBit(bits, i, on) {
  if (on) bits[i >> 3] |= 1 << (i & 7);
  else bits[i >> 3] &= ~(1 << (i & 7));
}

function countBits(bits) {
  let count = 0;
  for (const byte of bits) for (let rest = byte; rest; rest &= rest - 1) count++;
  return count;
}

// In a message of its own: a trait may be sent later than the messages after it
function sendBits(model, bits, content = {}) {
  const copy = bits.slice();
  model.set("selected", new DataView(copy.buffer));
  model.send({ type: "select", ...content }, undefined, [copy.buffer.slice(0)]);
}

// ---- Light and dark

function pageIsDark() {
  const lab = document.body.dataset.jpThemeLight; // JupyterLab, Notebook 7
  if (lab) return lab === "false";
  const classes = `${document.body.className} ${document.documentElement.className}`;
  if (/(^|\s)(vscode-dark|dark|dark-theme)(\s|$)/.test(classes)) return true;
  if (/(^|\s)(vscode-light|light|light-theme)(\s|$)/.test(classes)) return false;
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

function themeColors(dark) {
  const style = getComputedStyle(document.body);
  const pick = (name, light, black) => style.getPropertyValue(name).trim() || (dark ? black : light);
  return {
    ground: pick("--jp-layout-color0", "#ffffff", "#111111"),
    ink: pick("--jp-content-font-color1", dark ? "#e6e6e6" : "#202020", "#e6e6e6"),
    muted: dark ? "#b4bcc4" : "#57616b",
    line: dark ? "#4a525a" : "#d5dae0",
    accent: dark ? "#64b5f6" : "#1565c0",
    series: dark ? LINE_COLORS.dark : LINE_COLORS.light,
  };
}

// ---- The frame of a view: buttons, a stage with two canvases, a line of text

class Frame {
  constructor(model, el) {
    this.model = model;
    this.ended = new AbortController();
    this.stopWatching = [];
    this.root = make("div", "cvs");
    this.bar = make("div", "cvs-bar", { role: "toolbar", "aria-label": "View" });
    this.legend = make("div", "cvs-legend");
    this.stage = make("div", "cvs-stage", { tabindex: 0, ...OWN_KEYS });
    this.note = make("div", "cvs-note", { role: "status", "aria-live": "polite" });
    this.stage.style.height = `${model.get("height")}px`;
    this.root.append(this.bar, this.legend, this.stage, this.note);
    this.hideReplaced();
    el.append(this.root);
    this.width = 0;
    this.height = 0;
    this.colors = {};
    this.draws = 0;
    this.overlays = 0;
  }

  // What this view stands in for (a static picture) is hidden as long as the view is there
  hideReplaced() {
    const selector = this.model.get("replaces");
    if (selector) this.root.append(make("style", "", {}, `${selector} { display: none !important }`));
  }

  listen(target, event, handler, options = {}) {
    target.addEventListener(event, handler, { signal: this.ended.signal, ...options });
  }

  watch(event, handler) {
    this.model.on(event, handler);
    this.stopWatching.push(() => this.model.off(event, handler));
  }

  addButton(text, label, action) {
    const button = make("button", "cvs-button", { type: "button", title: label, "aria-label": label, ...OWN_KEYS }, text);
    this.listen(button, "click", action);
    this.bar.append(button);
    return button;
  }

  addLayer() {
    const canvas = make("canvas", "cvs-layer", { "aria-hidden": "true" });
    this.stage.append(canvas);
    return canvas.getContext("2d");
  }

  describeStage(role, keys) {
    this.stage.setAttribute("role", role);
    this.stage.setAttribute("aria-label", `${this.model.get("label")}. ${keys}`);
  }

  say(text) {
    if (this.note.textContent !== text) this.note.textContent = text;
  }

  // A message that Python answers
  ask(message) {
    this.model.send(message);
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.say("No answer from the kernel: run the cell again."), 5000);
  }

  receive(message) {
    clearTimeout(this.waiting);
    if (message.type === "error") this.say(`Error: ${message.text}`);
  }

  // Draw everything, or only what follows the pointer, in the next animation frame
  redraw() {
    this.pending ??= requestAnimationFrame(() => this.drawNow());
    this.everything = true;
  }

  redrawOverlay() {
    this.pending ??= requestAnimationFrame(() => this.drawNow());
  }

  drawNow() {
    this.pending = null;
    if (!this.width) return;
    if (this.everything) {
      this.everything = false;
      this.view.draw();
      this.root.dataset.draws = ++this.draws;
    }
    this.view.drawOverlay();
    this.root.dataset.overlays = ++this.overlays;
  }

  resize() {
    const width = this.stage.clientWidth;
    if (!width) return;
    const wanted = this.view.heightFor?.(width);
    if (wanted) this.stage.style.height = `${wanted}px`;
    this.width = width;
    this.height = this.stage.clientHeight;
    this.ratio = devicePixelRatio || 1;
    for (const canvas of this.stage.querySelectorAll(".cvs-layer")) this.resizeLayer(canvas);
    this.redraw();
  }

  resizeLayer(canvas) {
    canvas.width = Math.round(this.width * this.ratio);
    canvas.height = Math.round(this.height * this.ratio);
    canvas.getContext("2d").setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
  }

  followTheme() {
    this.dark = pageIsDark();
    this.colors = themeColors(this.dark);
    for (const name of ["ground", "ink", "muted", "line", "accent"]) {
      this.root.style.setProperty(`--cvs-${name}`, this.colors[name]);
    }
    this.root.dataset.theme = this.dark ? "dark" : "light";
    this.view.themeChanged?.();
    this.redraw();
  }

  start(view) {
    this.view = view;
    this.sizes = new ResizeObserver(() => this.resize());
    this.themes = new MutationObserver(() => this.followTheme());
    this.sizes.observe(this.stage);
    const attributeFilter = ["class", "style", "data-jp-theme-light", "data-jp-theme-name"];
    for (const node of [document.body, document.documentElement]) {
      this.themes.observe(node, { attributes: true, attributeFilter });
    }
    this.listen(matchMedia("(prefers-color-scheme: dark)"), "change", () => this.followTheme());
    this.listen(window, "resize", () => devicePixelRatio !== this.ratio && this.resize());
    this.watch("msg:custom", (message, buffers) => {
      this.receive(message);
      this.view.receive?.(message, buffers);
    });
    this.watch("change:label", () => this.view.describe());
    this.view.describe();
    this.view.load();
    this.followTheme();
    this.resize();
    this.model.send({ type: "shown" });
  }

  stop() {
    this.ended.abort();
    clearTimeout(this.waiting);
    cancelAnimationFrame(this.pending);
    this.stopWatching.forEach(stop => stop());
    this.sizes?.disconnect();
    this.themes?.disconnect();
    this.view?.close?.();
    this.root.remove();
  }
}

// ---- Pointer, wheel and keys of a plot: a view has hover, leave, press, drag, release, zoom, pan, reset and key

class PlotInput {
  constructor(frame, view) {
    this.frame = frame;
    this.view = view;
    this.pointers = new Map();
    const stage = frame.stage;
    frame.listen(stage, "pointerdown", event => this.down(event));
    frame.listen(stage, "pointermove", event => this.move(event));
    frame.listen(stage, "pointerup", event => this.up(event));
    frame.listen(stage, "pointercancel", event => this.cancel(event));
    frame.listen(stage, "pointerleave", () => this.pointers.size || view.leave());
    frame.listen(stage, "dblclick", () => view.reset());
    frame.listen(stage, "wheel", event => this.wheel(event), { passive: false });
    frame.listen(stage, "keydown", event => this.key(event));
    frame.addButton("−", "Zoom out", () => view.zoom(1 / 1.5));
    frame.addButton("+", "Zoom in", () => view.zoom(1.5));
    frame.addButton("Reset", "Show everything", () => view.reset());
  }

  pointOf(event) {
    const box = this.frame.stage.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  down(event) {
    if (event.button > 0) return;
    this.frame.stage.setPointerCapture(event.pointerId);
    const point = this.pointOf(event);
    this.pointers.set(event.pointerId, point);
    if (this.pointers.size === 1) {
      this.origin = point;
      this.moved = false;
      this.pinched = false;
      this.view.press(point, event);
    } else {
      this.pinched = true;
      this.pinch = this.pinchState();
      this.view.cancel?.();
    }
  }

  pinchState() {
    const [a, b] = [...this.pointers.values()];
    return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, distance: Math.max(1, Math.hypot(a.x - b.x, a.y - b.y)) };
  }

  move(event) {
    const point = this.pointOf(event);
    if (!this.pointers.has(event.pointerId)) return this.view.hover(point);
    this.pointers.set(event.pointerId, point);
    if (this.pointers.size === 2) return this.movePinch();
    if (this.pinched) return;
    this.moved ||= Math.hypot(point.x - this.origin.x, point.y - this.origin.y) > CLICK_DISTANCE;
    if (this.moved) this.view.drag(point, event);
  }

  movePinch() {
    const before = this.pinch;
    this.pinch = this.pinchState();
    this.view.pan(this.pinch.x - before.x, this.pinch.y - before.y);
    this.view.zoom(this.pinch.distance / before.distance, this.pinch);
  }

  up(event) {
    if (!this.pointers.delete(event.pointerId) || this.pinched) return;
    this.view.release(this.pointOf(event), this.moved, event);
  }

  cancel(event) {
    this.pointers.delete(event.pointerId);
    this.view.cancel?.();
  }

  // A wheel over a view that has no focus scrolls the notebook
  wheel(event) {
    if (!event.ctrlKey && !this.frame.stage.matches(":focus")) return;
    event.preventDefault();
    this.view.zoom(event.deltaY > 0 ? 1 / 1.25 : 1.25, this.pointOf(event));
  }

  key(event) {
    if (event.altKey) return;
    if (event.ctrlKey || event.metaKey) {
      if (this.view.controlKey?.(event)) event.preventDefault();
      return;
    }
    const zooms = { "+": 1.5, "=": 1.5, "-": 1 / 1.5 };
    if (event.key === "0") this.view.reset();
    else if (event.key in zooms) this.view.zoom(zooms[event.key]);
    else if (!this.view.key(event)) return;
    event.preventDefault();
  }
}

// ---- Curves

class CurveView {
  constructor(frame) {
    this.frame = frame;
    this.model = frame.model;
    this.base = frame.addLayer();
    this.overlay = frame.addLayer();
    this.margin = { left: 62, right: 12, top: 10, bottom: 42 };
    this.hidden = new Set();
    this.cursor = null;
    this.band = null;
    this.input = new PlotInput(frame, this);
    this.bandButton = frame.addButton("Zoom to range", "Zoom to the marked range", () => this.zoomToBand());
    frame.watch("change:data", () => this.load());
    frame.watch("change:brush", () => this.readBrush());
  }

  describe() {
    this.frame.describeStage(
      "application",
      "Arrow keys read values, with Shift they mark a range, Enter picks a position, plus and minus zoom, 0 shows all.",
    );
  }

  load() {
    const meta = this.model.get("meta");
    const numbers = new Float64Array(bufferOf(this.model.get("data")));
    const column = ([start, length]) => numbers.subarray(start, start + length);
    this.meta = meta;
    this.lines = (meta.lines || []).map((line, i) => ({
      name: line.name,
      x: column(line.x),
      y: column(line.y),
      index: line.color ?? i,
      dashed: line.dashed ?? (line.color ?? i) >= 6,
      faint: line.faint ?? false,
    }));
    const before = this.full;
    this.full = this.fullRange();
    if (!this.staysZoomed(before)) this.shown = [...this.full];
    this.band = this.model.get("brush")?.length === 2 ? [...this.model.get("brush")] : null;
    this.cursor = null;
    this.fillLegend();
    this.frame.redraw();
  }

  // The zoom outlives new values at the same positions, and values that are added behind the others
  staysZoomed(before) {
    if (!before || !this.shown || before[0] !== this.full[0] || before[1] > this.full[1]) return false;
    return before[1] === this.full[1] || this.shown[0] !== before[0] || this.shown[1] !== before[1];
  }

  readBrush() {
    const brush = this.model.get("brush");
    this.band = brush?.length === 2 ? [...brush] : null;
    this.frame.redrawOverlay();
  }

  fillLegend() {
    const legend = this.frame.legend;
    legend.replaceChildren();
    const named = this.lines.filter(line => !line.faint);
    for (const line of named) {
      const button = make("button", "cvs-key", { type: "button", "aria-pressed": !this.hidden.has(line.name), ...OWN_KEYS });
      const swatch = make("span", "cvs-swatch", { "aria-hidden": "true" });
      swatch.style.setProperty("--swatch", `var(--cvs-series-${line.index % 6})`);
      swatch.style.borderTopStyle = line.dashed ? "dashed" : "solid";
      button.append(swatch, line.name);
      button.title = `Show or hide ${line.name}`;
      button.addEventListener("click", () => this.toggleLine(line.name, button));
      legend.append(button);
    }
    legend.hidden = named.length < 2;
  }

  toggleLine(name, button) {
    if (!this.hidden.delete(name)) this.hidden.add(name);
    button.setAttribute("aria-pressed", !this.hidden.has(name));
    this.frame.redraw();
  }

  themeChanged() {
    this.frame.colors.series.forEach((color, i) => this.frame.root.style.setProperty(`--cvs-series-${i}`, color));
  }

  // Axes: a logarithmic one is linear in the exponent
  toX(value) { return this.meta.log_x ? Math.log10(value) : value; }
  fromX(value) { return this.meta.log_x ? 10 ** value : value; }
  toY(value) { return this.meta.log ? Math.log10(value) : value; }
  fromY(value) { return this.meta.log ? 10 ** value : value; }

  visibleLines() {
    return this.lines.filter(line => !this.hidden.has(line.name));
  }

  fullRange() {
    let low = Infinity;
    let high = -Infinity;
    for (const line of this.lines) {
      for (const value of line.x) {
        const x = this.toX(value);
        if (!Number.isFinite(x)) continue;
        if (x < low) low = x;
        if (x > high) high = x;
      }
    }
    if (low > high) return [0, 1];
    return low === high ? [low - 0.5, high + 0.5] : [low, high];
  }

  plotWidth() { return Math.max(10, this.frame.width - this.margin.left - this.margin.right); }
  plotHeight() { return Math.max(10, this.frame.height - this.margin.top - this.margin.bottom); }
  pixelX(x) { return this.margin.left + (x - this.shown[0]) / (this.shown[1] - this.shown[0]) * this.plotWidth(); }
  pixelY(y) {
    return this.margin.top + (1 - (y - this.range[0]) / (this.range[1] - this.range[0])) * this.plotHeight();
  }
  valueAt(pixel) {
    return this.shown[0] + (pixel - this.margin.left) / this.plotWidth() * (this.shown[1] - this.shown[0]);
  }

  // The index of the sample nearest to a position; x rises along a line
  nearest(line, position) {
    let low = 0;
    let high = line.x.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.toX(line.x[middle]) <= position) low = middle;
      else high = middle;
    }
    return position - this.toX(line.x[low]) < this.toX(line.x[high]) - position ? low : high;
  }

  shownPart(line) {
    const last = line.x.length - 1;
    return [
      Math.max(0, this.nearest(line, this.shown[0]) - 1),
      Math.min(last, this.nearest(line, this.shown[1]) + 1),
    ];
  }

  measureRange() {
    let low = Infinity;
    let high = -Infinity;
    for (const line of this.visibleLines()) {
      const [first, last] = this.shownPart(line);
      for (let i = first; i <= last; i++) {
        const y = this.toY(line.y[i]);
        if (!Number.isFinite(y)) continue;
        if (y < low) low = y;
        if (y > high) high = y;
      }
    }
    if (low > high) [low, high] = [0, 1];
    const space = (high - low) * 0.05 || Math.abs(high) * 0.05 || 0.5;
    this.range = [low - space, high + space];
    if (!this.meta.log && low >= 0 && low - space < 0) this.range[0] = 0;
  }

  draw() {
    const { base, frame } = this;
    this.measureRange();
    base.fillStyle = frame.colors.ground;
    base.fillRect(0, 0, frame.width, frame.height);
    base.font = FONT;
    this.drawAxes();
    base.save();
    base.beginPath();
    base.rect(this.margin.left, this.margin.top, this.plotWidth(), this.plotHeight() + 1);
    base.clip();
    for (const line of this.visibleLines()) this.drawLine(line);
    base.restore();
  }

  drawAxes() {
    const { base, frame, margin } = this;
    const bottom = frame.height - margin.bottom;
    const yTicks = (this.meta.log ? logTicks : linearTicks)(...this.range, this.plotHeight() / 48);
    const xTicks = (this.meta.log_x ? logTicks : linearTicks)(...this.shown, this.plotWidth() / 90);
    base.strokeStyle = frame.colors.line;
    base.fillStyle = frame.colors.muted;
    base.lineWidth = 1;
    base.textBaseline = "middle";
    base.textAlign = "right";
    for (const tick of yTicks) {
      const y = Math.round(this.pixelY(tick)) + 0.5;
      this.strokeSegment(base, margin.left, y, frame.width - margin.right, y);
      base.fillText(formatNumber(this.fromY(tick)), margin.left - 6, y);
    }
    base.textAlign = "center";
    for (const tick of xTicks) {
      const x = this.pixelX(tick);
      this.strokeSegment(base, x, bottom, x, bottom + 4);
      base.fillText(formatNumber(this.fromX(tick)), x, bottom + 13);
    }
    this.strokeSegment(base, margin.left, bottom + 0.5, frame.width - margin.right, bottom + 0.5);
    this.drawTitles();
  }

  drawTitles() {
    const { base, frame, margin } = this;
    base.fillStyle = frame.colors.ink;
    base.fillText(this.meta.x_label || "", margin.left + this.plotWidth() / 2, frame.height - 9);
    if (!this.meta.y_label) return;
    base.save();
    base.translate(9, margin.top + this.plotHeight() / 2);
    base.rotate(-Math.PI / 2);
    base.fillText(shorten(base, this.meta.y_label, this.plotHeight()), 0, 0);
    base.restore();
  }

  strokeSegment(context, x0, y0, x1, y1) {
    context.beginPath();
    context.moveTo(x0, y0);
    context.lineTo(x1, y1);
    context.stroke();
  }

  drawLine(line) {
    const { base } = this;
    if (!line.x.length) return;
    const [first, last] = this.shownPart(line);
    base.strokeStyle = this.frame.colors.series[line.index % 6];
    base.fillStyle = base.strokeStyle;
    base.globalAlpha = line.faint ? 0.35 : 1;
    base.lineWidth = line.faint ? 1 : 2;
    base.lineJoin = "round";
    base.setLineDash(line.dashed ? [6, 4] : []);
    base.beginPath();
    if (last - first > 2 * this.plotWidth()) this.traceThinned(line, first, last);
    else this.traceAll(line, first, last);
    base.stroke();
    base.setLineDash([]);
    if (first === last) this.drawDot(base, line, first);
    base.globalAlpha = 1;
  }

  traceAll(line, first, last) {
    let down = false;
    for (let i = first; i <= last; i++) {
      const y = this.toY(line.y[i]);
      if (!Number.isFinite(y)) {
        down = false;
        continue;
      }
      if (down) this.base.lineTo(this.pixelX(this.toX(line.x[i])), this.pixelY(y));
      else this.base.moveTo(this.pixelX(this.toX(line.x[i])), this.pixelY(y));
      down = true;
    }
  }

  // Of many samples in a column of pixels, only the lowest and the highest can be seen
  traceThinned(line, first, last) {
    const step = (last - first) / this.plotWidth();
    let down = false;
    for (let start = first; start < last; start += step) {
      const [low, high] = this.extremes(line, Math.floor(start), Math.min(last, Math.ceil(start + step)));
      if (low > high) {
        down = false;
        continue;
      }
      const x = this.pixelX(this.toX(line.x[Math.floor(start)]));
      if (down) this.base.lineTo(x, this.pixelY(high));
      else this.base.moveTo(x, this.pixelY(high));
      this.base.lineTo(x, this.pixelY(low));
      down = true;
    }
  }

  extremes(line, first, last) {
    let low = Infinity;
    let high = -Infinity;
    for (let i = first; i <= last; i++) {
      const y = this.toY(line.y[i]);
      if (!Number.isFinite(y)) continue;
      if (y < low) low = y;
      if (y > high) high = y;
    }
    return [low, high];
  }

  drawDot(context, line, i) {
    const y = this.toY(line.y[i]);
    if (!Number.isFinite(y)) return;
    context.fillStyle = this.frame.colors.series[line.index % 6];
    context.beginPath();
    context.arc(this.pixelX(this.toX(line.x[i])), this.pixelY(y), 4, 0, 7);
    context.fill();
  }

  drawOverlay() {
    const { overlay, frame } = this;
    overlay.clearRect(0, 0, frame.width, frame.height);
    this.bandButton.disabled = !this.band;
    if (this.band) this.drawBand();
    if (this.cursor === null) return;
    const x = this.pixelX(this.cursor);
    overlay.strokeStyle = frame.colors.muted;
    overlay.lineWidth = 1;
    this.strokeSegment(overlay, x, this.margin.top, x, frame.height - this.margin.bottom);
    const read = this.visibleLines().filter(line => line.x.length && !line.faint);
    for (const line of read) this.drawDot(overlay, line, this.nearest(line, this.cursor));
    frame.say(this.readOut(read));
  }

  drawBand() {
    const { overlay, frame, margin } = this;
    const [low, high] = this.band.map(v => clamp(this.pixelX(this.toX(v)), margin.left, frame.width - margin.right));
    overlay.fillStyle = frame.colors.accent;
    overlay.globalAlpha = 0.18;
    overlay.fillRect(low, margin.top, Math.max(1, high - low), this.plotHeight());
    overlay.globalAlpha = 1;
    overlay.fillRect(low, margin.top, 1, this.plotHeight());
    overlay.fillRect(high, margin.top, 1, this.plotHeight());
  }

  readOut(lines) {
    const values = lines.map(line => `${line.name} ${formatNumber(line.y[this.nearest(line, this.cursor)])}`);
    const position = `${this.meta.x_label || "x"} ${formatNumber(this.fromX(this.cursor))}`;
    const range = this.band ? `; range ${this.band.map(formatNumber).join(" to ")}` : "";
    return `${position}: ${values.join(", ")}${range}`;
  }

  // A position is that of the nearest sample of the line with most samples
  snap(position) {
    const lines = this.visibleLines().filter(line => line.x.length && !line.faint);
    if (!lines.length) return null;
    const densest = lines.reduce((a, b) => (b.x.length > a.x.length ? b : a));
    return this.toX(densest.x[this.nearest(densest, position)]);
  }

  hover(point) {
    const inside = point.x >= this.margin.left - 4 && point.x <= this.frame.width;
    this.cursor = inside ? this.snap(clamp(this.valueAt(point.x), ...this.shown)) : null;
    this.frame.redrawOverlay();
  }

  leave() {
    this.cursor = null;
    this.frame.redrawOverlay();
  }

  press(point, event) {
    this.panning = event.shiftKey;
    this.last = point;
    this.start = clamp(this.valueAt(point.x), ...this.shown);
  }

  drag(point) {
    if (this.panning) {
      this.pan(point.x - this.last.x);
      this.last = point;
      return;
    }
    const end = clamp(this.valueAt(point.x), ...this.shown);
    this.band = [this.start, end].sort((a, b) => a - b).map(v => this.fromX(v));
    this.hover(point);
  }

  release(point, moved) {
    this.hover(point);
    if (this.panning) return;
    if (moved) this.sendBrush();
    else this.pick();
  }

  cancel() {
    this.readBrush();
  }

  pick() {
    if (this.band) {
      this.band = null;
      this.sendBrush();
    }
    if (this.cursor !== null) this.model.send({ type: "click", x: this.fromX(this.cursor) });
  }

  sendBrush() {
    const range = this.band ? [...this.band] : [];
    this.model.set("brush", range);
    this.model.send({ type: "brush", range });
    this.frame.redrawOverlay();
  }

  zoomToBand() {
    if (!this.band) return;
    this.shown = this.band.map(v => this.toX(v));
    this.frame.redraw();
  }

  zoom(factor, point) {
    const center = point ? this.valueAt(point.x) : (this.cursor ?? (this.shown[0] + this.shown[1]) / 2);
    const smallest = (this.full[1] - this.full[0]) * 1e-5;
    const shrink = 1 / factor;
    const low = clamp(center - (center - this.shown[0]) * shrink, ...this.full);
    const high = clamp(center + (this.shown[1] - center) * shrink, ...this.full);
    if (high - low > smallest) this.shown = [low, high];
    this.frame.redraw();
  }

  pan(pixels) {
    const span = this.shown[1] - this.shown[0];
    const low = clamp(this.shown[0] - pixels / this.plotWidth() * span, this.full[0], this.full[1] - span);
    this.shown = [low, low + span];
    this.frame.redraw();
  }

  reset() {
    this.shown = [...this.full];
    if (this.band) {
      this.band = null;
      this.sendBrush();
    }
    this.frame.redraw();
  }

  key(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
    if (event.key === "Enter") this.pick();
    else if (event.key === "Escape") this.reset();
    else if (event.key in steps) this.step(steps[event.key], event.shiftKey);
    else return false;
    return true;
  }

  step(count, marking) {
    const lines = this.visibleLines().filter(line => line.x.length && !line.faint);
    if (!lines.length) return;
    const densest = lines.reduce((a, b) => (b.x.length > a.x.length ? b : a));
    const before = this.cursor ?? this.shown[0];
    const at = clamp(this.nearest(densest, before) + (this.cursor === null ? 0 : count), 0, densest.x.length - 1);
    this.cursor = this.toX(densest.x[at]);
    this.follow();
    if (marking) this.markTo(before);
    else this.anchor = null;
    this.frame.redrawOverlay();
  }

  follow() {
    const span = this.shown[1] - this.shown[0];
    if (this.cursor >= this.shown[0] && this.cursor <= this.shown[1]) return;
    const low = this.cursor < this.shown[0] ? this.cursor : this.cursor - span;
    this.shown = [low, low + span];
    this.frame.redraw();
  }

  markTo(before) {
    this.anchor ??= before;
    this.band = [this.anchor, this.cursor].sort((a, b) => a - b).map(v => this.fromX(v));
    this.sendBrush();
  }
}

// ---- Heat maps

class HeatView {
  constructor(frame) {
    this.frame = frame;
    this.model = frame.model;
    this.base = frame.addLayer();
    this.overlay = frame.addLayer();
    this.tip = make("div", "cvs-tip", { "aria-hidden": "true" });
    frame.stage.append(this.tip);
    this.cell = null;
    this.zoomed = 1;
    this.left = 0; // the first column and row shown, with fractions
    this.top = 0;
    this.input = new PlotInput(frame, this);
    frame.watch("change:data", () => this.load());
  }

  describe() {
    this.frame.describeStage(
      "application",
      "Arrow keys move over the cells, Enter picks one, plus and minus zoom, 0 shows all.",
    );
  }

  heightFor(width) {
    return Math.min(this.model.get("height"), Math.max(220, width));
  }

  load() {
    const meta = this.model.get("meta");
    const kept = this.rows === meta.rows?.length && this.columns === meta.columns?.length;
    this.meta = meta;
    this.rowNames = meta.rows || [];
    this.columnNames = meta.columns || [];
    this.rows = this.rowNames.length;
    this.columns = this.columnNames.length;
    this.values = this.unpack(bufferOf(this.model.get("data")));
    this.totals = this.rowTotals();
    this.cell = kept ? this.cell : null;
    if (!kept) this.zoomed = 1;
    this.shade();
  }

  // Either all values, or positions and values of those that are not zero
  unpack(buffer) {
    const count = this.rows * this.columns;
    if (!this.meta.sparse) return new Float32Array(buffer, 0, count);
    const values = new Float32Array(count);
    const filled = buffer.byteLength / 8;
    const positions = new Uint32Array(buffer, 0, filled);
    const numbers = new Float32Array(buffer, filled * 4, filled);
    for (let i = 0; i < filled; i++) values[positions[i]] = numbers[i];
    return values;
  }

  rowTotals() {
    const totals = new Float64Array(this.rows);
    for (let row = 0; row < this.rows; row++) {
      for (let column = 0; column < this.columns; column++) {
        const value = this.values[row * this.columns + column];
        if (value > 0) totals[row] += value;
      }
    }
    return totals;
  }

  // How much of the full color a cell has: the root, since most cells hold little
  computeShares() {
    const shares = new Float32Array(this.values.length);
    const largest = this.values.reduce((a, b) => (b > a ? b : a), 0) || 1;
    for (let i = 0; i < shares.length; i++) {
      const value = this.values[i];
      const whole = this.meta.by_row ? this.totals[Math.floor(i / this.columns)] || 1 : largest;
      shares[i] = Number.isNaN(value) ? -1 : Math.sqrt(clamp(value / whole, 0, 1));
    }
    return shares;
  }

  themeChanged() {
    if (this.values) this.shade();
  }

  shade() {
    const { colors } = this.frame;
    if (!colors.ground || !this.values.length) return this.frame.redraw();
    const ground = rgbOf(colors.ground);
    const full = this.frame.dark ? [120, 195, 255] : [0, 68, 136];
    this.palette = Array.from({ length: 256 }, (_, i) => mixColors(ground, full, i / 255));
    this.missing = mixColors(ground, [128, 128, 128], 0.5);
    this.shares = this.computeShares();
    this.levels = this.buildLevels();
    this.frame.redraw();
  }

  // The map at full, half, quarter ... size; a pixel is the strongest of its cells, so that no single error vanishes
  buildLevels() {
    const levels = [];
    let level = { shares: this.shares, width: this.columns, height: this.rows };
    for (;;) {
      levels.push(this.paintLevel(level));
      if (Math.max(level.width, level.height) <= 64) return levels;
      level = this.halve(level);
    }
  }

  halve({ shares, width, height }) {
    const half = { width: (width + 1) >> 1, height: (height + 1) >> 1 };
    half.shares = new Float32Array(half.width * half.height);
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        const at = (row >> 1) * half.width + (column >> 1);
        const share = shares[row * width + column];
        if (share > half.shares[at]) half.shares[at] = share;
      }
    }
    return half;
  }

  paintLevel({ shares, width, height }) {
    const canvas = make("canvas", "");
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const packed = this.palette.map(([r, g, b]) => (255 << 24) | (b << 16) | (g << 8) | r);
    const [r, g, b] = this.missing;
    const missing = (255 << 24) | (b << 16) | (g << 8) | r;
    for (let i = 0; i < pixels.length; i++) pixels[i] = shares[i] < 0 ? missing : packed[Math.round(shares[i] * 255)];
    context.putImageData(image, 0, 0);
    return canvas;
  }

  // Where the map lies on the stage, and the size of a cell
  measure() {
    const { base, frame } = this;
    base.font = FONT;
    const widest = (names, limit) => Math.min(limit, Math.max(20, ...this.sample(names).map(n => base.measureText(n).width)));
    this.x = widest(this.rowNames, frame.width * 0.28) + 30;
    this.y = 8;
    const room = { width: frame.width - this.x - 8, height: frame.height - this.y - 64 };
    let cellWidth = room.width / this.columns;
    let cellHeight = room.height / this.rows;
    const ratio = this.rows / this.columns;
    if (ratio > 1 / 3 && ratio < 3) cellWidth = cellHeight = Math.min(cellWidth, cellHeight);
    this.width = cellWidth * this.columns;
    this.height = cellHeight * this.rows;
    this.cellWidth = cellWidth * this.zoomed;
    this.cellHeight = cellHeight * this.zoomed;
    this.across = this.width / this.cellWidth; // cells shown
    this.down = this.height / this.cellHeight;
    this.left = clamp(this.left, 0, this.columns - this.across);
    this.top = clamp(this.top, 0, this.rows - this.down);
  }

  sample(names) {
    const step = Math.max(1, Math.floor(names.length / 100));
    return names.filter((_, i) => i % step === 0).map(String);
  }

  draw() {
    const { base, frame } = this;
    base.fillStyle = frame.colors.ground;
    base.fillRect(0, 0, frame.width, frame.height);
    if (!this.values.length) return frame.say("Nothing to show: the matrix is empty.");
    this.measure();
    this.drawMap();
    if (this.cellWidth > 26 && this.cellHeight > 14) this.drawValues();
    base.strokeStyle = frame.colors.line;
    base.strokeRect(this.x - 0.5, this.y - 0.5, this.width + 1, this.height + 1);
    this.drawRowNames();
    this.drawColumnNames();
  }

  drawMap() {
    const { base } = this;
    const wanted = Math.log2(1 / (Math.min(this.cellWidth, this.cellHeight) * this.frame.ratio));
    const at = clamp(Math.floor(wanted + 0.5), 0, this.levels.length - 1);
    const level = this.levels[at];
    const factor = 2 ** at;
    base.save();
    base.beginPath();
    base.rect(this.x, this.y, this.width, this.height);
    base.clip();
    base.imageSmoothingEnabled = false;
    base.drawImage(
      level,
      this.x - this.left * this.cellWidth,
      this.y - this.top * this.cellHeight,
      level.width * factor * this.cellWidth,
      level.height * factor * this.cellHeight,
    );
    base.restore();
  }

  forShownCells(action) {
    const lastRow = Math.min(this.rows, Math.ceil(this.top + this.down));
    const lastColumn = Math.min(this.columns, Math.ceil(this.left + this.across));
    for (let row = Math.floor(this.top); row < lastRow; row++) {
      for (let column = Math.floor(this.left); column < lastColumn; column++) action(row, column);
    }
  }

  drawValues() {
    const { base } = this;
    base.save();
    base.beginPath();
    base.rect(this.x, this.y, this.width, this.height);
    base.clip();
    base.textAlign = "center";
    base.textBaseline = "middle";
    this.forShownCells((row, column) => {
      const at = row * this.columns + column;
      if (!this.values[at]) return;
      const share = this.shares[at];
      const back = share < 0 ? this.missing : this.palette[Math.round(share * 255)];
      base.fillStyle = luminance(back) > 0.18 ? "#000" : "#fff";
      const [x, y] = this.corner(row, column);
      const text = shorten(base, formatNumber(this.values[at]), this.cellWidth - 2);
      base.fillText(text, x + this.cellWidth / 2, y + this.cellHeight / 2);
    });
    base.restore();
  }

  corner(row, column) {
    return [this.x + (column - this.left) * this.cellWidth, this.y + (row - this.top) * this.cellHeight];
  }

  drawRowNames() {
    const { base, frame } = this;
    const step = Math.max(1, Math.ceil(14 / this.cellHeight));
    base.fillStyle = frame.colors.ink;
    base.textAlign = "right";
    base.textBaseline = "middle";
    for (let row = Math.ceil(this.top - 0.5); row < Math.min(this.rows, this.top + this.down - 0.4); row += step) {
      if (row < 0) continue;
      const y = this.y + (row - this.top + 0.5) * this.cellHeight;
      base.fillText(shorten(base, String(this.rowNames[row]), this.x - 30), this.x - 5, y);
    }
    base.save();
    base.translate(10, this.y + this.height / 2);
    base.rotate(-Math.PI / 2);
    base.textAlign = "center";
    base.fillStyle = frame.colors.muted;
    base.fillText(this.meta.row_label, 0, 0);
    base.restore();
  }

  drawColumnNames() {
    const { base, frame } = this;
    const step = Math.max(1, Math.ceil(56 / this.cellWidth));
    const room = step * this.cellWidth - 6;
    const bottom = this.y + this.height;
    base.fillStyle = frame.colors.ink;
    base.textAlign = "center";
    base.textBaseline = "middle";
    const end = Math.min(this.columns, this.left + this.across - 0.4);
    for (let column = Math.max(0, Math.ceil(this.left - 0.5)); column < end; column += step) {
      const x = this.x + (column - this.left + 0.5) * this.cellWidth;
      base.fillText(shorten(base, String(this.columnNames[column]), room), x, bottom + 13);
    }
    base.fillStyle = frame.colors.muted;
    base.fillText(this.meta.column_label, this.x + this.width / 2, bottom + 34);
  }

  drawOverlay() {
    const { overlay, frame } = this;
    overlay.clearRect(0, 0, frame.width, frame.height);
    this.tip.style.display = this.cell ? "block" : "none";
    if (!this.cell || !this.values.length) return;
    const [x, y] = this.corner(...this.cell);
    overlay.strokeStyle = frame.colors.accent;
    overlay.lineWidth = 2;
    overlay.strokeRect(x, y, Math.max(this.cellWidth, 3), Math.max(this.cellHeight, 3));
    const text = this.readOut();
    frame.say(text);
    this.tip.textContent = text;
    const right = clamp(x + this.cellWidth + 6, 0, Math.max(0, frame.width - this.tip.offsetWidth - 4));
    const below = clamp(y + this.cellHeight + 6, 0, Math.max(0, frame.height - this.tip.offsetHeight - 4));
    this.tip.style.transform = `translate(${right}px, ${below}px)`;
  }

  readOut() {
    const [row, column] = this.cell;
    const value = this.values[row * this.columns + column];
    const names = `${this.meta.row_label} ${this.rowNames[row]}, ${this.meta.column_label} ${this.columnNames[column]}`;
    const share = 100 * value / (this.totals[row] || 1);
    const percent = this.meta.by_row ? ` (${Number(share.toPrecision(3))} % of the row)` : "";
    return `${names}: ${formatNumber(value)}${percent}`;
  }

  cellAt(point) {
    const column = Math.floor((point.x - this.x) / this.cellWidth + this.left);
    const row = Math.floor((point.y - this.y) / this.cellHeight + this.top);
    const inside = point.x >= this.x && point.x < this.x + this.width && point.y >= this.y && point.y < this.y + this.height;
    return inside && row < this.rows && column < this.columns ? [row, column] : null;
  }

  hover(point) {
    this.cell = this.cellAt(point);
    this.frame.redrawOverlay();
  }

  leave() {
    this.cell = null;
    this.frame.redrawOverlay();
  }

  press(point) {
    this.last = point;
  }

  drag(point) {
    this.pan(point.x - this.last.x, point.y - this.last.y);
    this.last = point;
  }

  release(point, moved) {
    this.hover(point);
    if (!moved) this.pick();
  }

  pick() {
    if (this.cell) this.model.send({ type: "click", row: this.cell[0], column: this.cell[1] });
  }

  pan(x, y) {
    this.left -= x / this.cellWidth;
    this.top -= y / this.cellHeight;
    this.frame.redraw();
  }

  zoom(factor, point) {
    const center = point || this.cellCenter() || { x: this.x + this.width / 2, y: this.y + this.height / 2 };
    const column = this.left + (center.x - this.x) / this.cellWidth;
    const row = this.top + (center.y - this.y) / this.cellHeight;
    const before = this.zoomed;
    const largest = Math.max(1, 64 * this.zoomed / this.cellWidth);
    this.zoomed = clamp(this.zoomed * factor, 1, largest);
    const change = this.zoomed / before;
    this.left = column - (column - this.left) / change;
    this.top = row - (row - this.top) / change;
    this.frame.redraw();
  }

  cellCenter() {
    if (!this.cell) return null;
    const [x, y] = this.corner(...this.cell);
    return { x: x + this.cellWidth / 2, y: y + this.cellHeight / 2 };
  }

  reset() {
    this.zoomed = 1;
    this.frame.redraw();
  }

  key(event) {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (event.key === "Enter" || event.key === " ") this.pick();
    else if (event.key === "Escape") this.leave();
    else if (event.key in steps) this.step(...steps[event.key]);
    else return false;
    return true;
  }

  step(rows, columns) {
    if (!this.values.length) return;
    const [row, column] = this.cell || [Math.ceil(this.top) - rows, Math.ceil(this.left) - columns];
    this.cell = [clamp(row + rows, 0, this.rows - 1), clamp(column + columns, 0, this.columns - 1)];
    this.left = clamp(this.left, this.cell[1] - this.across + 1, this.cell[1]);
    this.top = clamp(this.top, this.cell[0] - this.down + 1, this.cell[0]);
    this.frame.redraw();
  }
}

// ---- Scatter plots

function insidePolygon(x, y, polygon) {
  let inside = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const a = polygon[i];
    const b = polygon[j];
    if (a.y > y !== b.y > y && x < (b.x - a.x) * (y - a.y) / (b.y - a.y) + a.x) inside = !inside;
  }
  return inside;
}

class ScatterView {
  constructor(frame) {
    this.frame = frame;
    this.model = frame.model;
    this.base = frame.addLayer();
    this.overlay = frame.addLayer();
    this.tip = make("div", "cvs-tip", { "aria-hidden": "true" });
    frame.stage.append(this.tip);
    this.hidden = new Set();
    this.current = -1;
    this.shape = null; // the lasso or box being drawn, in pixels
    this.modes = this.addModes();
    this.input = new PlotInput(frame, this);
    frame.watch("change:data", () => this.load());
    frame.watch("change:selected", () => this.readSelection());
  }

  addModes() {
    const names = { lasso: "Select with a lasso", box: "Select with a box", move: "Move the plot" };
    const buttons = {};
    for (const mode in names) {
      const text = mode[0].toUpperCase() + mode.slice(1);
      buttons[mode] = this.frame.addButton(text, names[mode], () => this.setMode(mode));
    }
    this.mode = "lasso";
    for (const mode in buttons) buttons[mode].setAttribute("aria-pressed", mode === this.mode);
    return buttons;
  }

  setMode(mode) {
    this.mode = mode;
    for (const name in this.modes) this.modes[name].setAttribute("aria-pressed", name === mode);
  }

  describe() {
    this.frame.describeStage(
      "application",
      "Arrow keys move to the next point in a direction, Space selects it, Enter picks it, Control A selects all, " +
        "Escape none, plus and minus zoom, 0 shows all.",
    );
  }

  load() {
    const meta = this.model.get("meta");
    const buffer = bufferOf(this.model.get("data"));
    this.meta = meta;
    this.count = meta.count || 0;
    this.xs = new Float32Array(buffer, 0, this.count);
    this.ys = new Float32Array(buffer, this.count * 4, this.count);
    this.groups = new Uint16Array(buffer, this.count * 8, this.count);
    this.current = -1;
    this.full = [...this.rangeOf(this.xs), ...this.rangeOf(this.ys)];
    this.shown = [...this.full];
    this.fillLegend();
    this.readSelection();
  }

  rangeOf(values) {
    let low = Infinity;
    let high = -Infinity;
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    if (low > high) return [0, 1];
    const space = (high - low) * 0.04 || 0.5;
    return [low - space, high + space];
  }

  readSelection() {
    const sent = new Uint8Array(bufferOf(this.model.get("selected")));
    const size = (this.count + 7) >> 3;
    this.selected = sent.length === size ? sent : new Uint8Array(size);
    this.frame.redraw();
  }

  fillLegend() {
    const names = this.meta.groups || [];
    this.frame.legend.replaceChildren();
    this.frame.legend.hidden = names.length < 2 || names.length > 24;
    names.forEach((name, i) => {
      const button = make("button", "cvs-key", { type: "button", "aria-pressed": !this.hidden.has(i), ...OWN_KEYS });
      const swatch = make("span", "cvs-swatch cvs-dot", { "aria-hidden": "true" });
      swatch.style.setProperty("--swatch", `var(--cvs-series-${i % 6})`);
      button.append(swatch, String(name));
      button.title = `Show or hide ${name}`;
      button.addEventListener("click", () => this.toggleGroup(i, button));
      this.frame.legend.append(button);
    });
  }

  toggleGroup(group, button) {
    if (!this.hidden.delete(group)) this.hidden.add(group);
    button.setAttribute("aria-pressed", !this.hidden.has(group));
    this.frame.redraw();
  }

  themeChanged() {
    this.frame.colors.series.forEach((color, i) => this.frame.root.style.setProperty(`--cvs-series-${i}`, color));
  }

  pixelX(x) { return (x - this.shown[0]) / (this.shown[1] - this.shown[0]) * this.frame.width; }
  pixelY(y) { return (1 - (y - this.shown[2]) / (this.shown[3] - this.shown[2])) * this.frame.height; }
  isShown(i) { return !this.hidden.has(this.groups[i]) && Number.isFinite(this.xs[i]) && Number.isFinite(this.ys[i]); }

  draw() {
    const { base, frame } = this;
    base.fillStyle = frame.colors.ground;
    base.fillRect(0, 0, frame.width, frame.height);
    if (!this.count) return frame.say("Nothing to show: there are no points.");
    const some = countBits(this.selected) > 0;
    base.globalAlpha = some ? 0.25 : 0.8;
    this.drawPoints(i => !some || !bitIsSet(this.selected, i), 2);
    base.globalAlpha = 1;
    if (some) this.drawPoints(i => bitIsSet(this.selected, i), 3);
    base.strokeStyle = frame.colors.line;
    base.strokeRect(0.5, 0.5, frame.width - 1, frame.height - 1);
  }

  // Groups past the sixth have the colors of the first ones and another shape
  drawPoints(wanted, radius) {
    const { base } = this;
    for (let i = 0; i < this.count; i++) {
      if (!this.isShown(i) || !wanted(i)) continue;
      const x = this.pixelX(this.xs[i]);
      const y = this.pixelY(this.ys[i]);
      base.fillStyle = this.frame.colors.series[this.groups[i] % 6];
      if (this.groups[i] % 12 < 6) base.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
      else this.drawCross(x, y, radius);
    }
  }

  drawCross(x, y, radius) {
    this.base.fillRect(x - radius - 1, y - 0.75, 2 * radius + 2, 1.5);
    this.base.fillRect(x - 0.75, y - radius - 1, 1.5, 2 * radius + 2);
  }

  drawOverlay() {
    const { overlay, frame } = this;
    overlay.clearRect(0, 0, frame.width, frame.height);
    this.tip.style.display = this.current < 0 ? "none" : "block";
    if (this.shape) this.drawShape();
    if (this.current < 0) return;
    const x = this.pixelX(this.xs[this.current]);
    const y = this.pixelY(this.ys[this.current]);
    overlay.strokeStyle = frame.colors.ink;
    overlay.lineWidth = 2;
    overlay.beginPath();
    overlay.arc(x, y, 6, 0, 7);
    overlay.stroke();
    const text = this.readOut();
    frame.say(text);
    this.tip.textContent = text;
    const right = clamp(x + 10, 0, Math.max(0, frame.width - this.tip.offsetWidth - 4));
    const below = clamp(y + 10, 0, Math.max(0, frame.height - this.tip.offsetHeight - 4));
    this.tip.style.transform = `translate(${right}px, ${below}px)`;
  }

  drawShape() {
    const { overlay, frame } = this;
    overlay.strokeStyle = frame.colors.accent;
    overlay.fillStyle = frame.colors.accent;
    overlay.lineWidth = 1.5;
    overlay.beginPath();
    this.shape.forEach((point, i) => (i ? overlay.lineTo(point.x, point.y) : overlay.moveTo(point.x, point.y)));
    overlay.closePath();
    overlay.stroke();
    overlay.globalAlpha = 0.15;
    overlay.fill();
    overlay.globalAlpha = 1;
  }

  readOut() {
    const label = this.meta.labels[this.current] ?? `point ${this.current}`;
    const group = this.meta.groups?.[this.groups[this.current]];
    const count = countBits(this.selected);
    return [label, group, count ? `${count} selected` : null].filter(o => o != null).join(", ");
  }

  nearestTo(point, limit) {
    let best = -1;
    let least = limit * limit;
    for (let i = 0; i < this.count; i++) {
      if (!this.isShown(i)) continue;
      const distance = (this.pixelX(this.xs[i]) - point.x) ** 2 + (this.pixelY(this.ys[i]) - point.y) ** 2;
      if (distance < least) {
        least = distance;
        best = i;
      }
    }
    return best;
  }

  hover(point) {
    this.current = this.nearestTo(point, 16);
    this.frame.redrawOverlay();
  }

  leave() {
    this.current = -1;
    this.frame.redrawOverlay();
  }

  press(point, event) {
    this.start = point;
    this.last = point;
    this.shape = null;
    this.adding = event.shiftKey;
  }

  drag(point) {
    if (this.mode === "move") this.pan(point.x - this.last.x, point.y - this.last.y);
    else if (this.mode === "box") this.shape = this.boxTo(point);
    else this.shape = [...(this.shape || [this.start]), point];
    this.last = point;
    this.frame.redrawOverlay();
  }

  boxTo(point) {
    return [this.start, { x: point.x, y: this.start.y }, point, { x: this.start.x, y: point.y }];
  }

  release(point, moved) {
    if (moved && this.shape) this.selectInside();
    else if (!moved) this.clickAt(point);
    this.shape = null;
    this.frame.redrawOverlay();
  }

  cancel() {
    this.shape = null;
    this.frame.redrawOverlay();
  }

  clickAt(point) {
    this.hover(point);
    this.pick();
  }

  pick() {
    if (this.current >= 0) this.model.send({ type: "click", index: this.current });
  }

  selectInside() {
    const bits = this.adding ? this.selected.slice() : new Uint8Array(this.selected.length);
    for (let i = 0; i < this.count; i++) {
      if (!this.isShown(i)) continue;
      if (insidePolygon(this.pixelX(this.xs[i]), this.pixelY(this.ys[i]), this.shape)) setBit(bits, i, true);
    }
    this.sendSelection(bits);
  }

  sendSelection(bits) {
    this.selected = bits;
    this.frame.say(`${countBits(bits)} of ${this.count} points selected`);
    sendBits(this.model, bits);
    this.frame.redraw();
  }

  zoom(factor, point) {
    const center = point || { x: this.frame.width / 2, y: this.frame.height / 2 };
    const x = this.shown[0] + center.x / this.frame.width * (this.shown[1] - this.shown[0]);
    const y = this.shown[2] + (1 - center.y / this.frame.height) * (this.shown[3] - this.shown[2]);
    const [x0, x1, y0, y1] = this.shown;
    const next = [x - (x - x0) / factor, x + (x1 - x) / factor, y - (y - y0) / factor, y + (y1 - y) / factor];
    const share = (next[1] - next[0]) / (this.full[1] - this.full[0]);
    if (share > 1) this.shown = [...this.full];
    else if (share > 1e-4) this.shown = next;
    this.frame.redraw();
  }

  pan(x, y) {
    const [x0, x1, y0, y1] = this.shown;
    const right = -x / this.frame.width * (x1 - x0);
    const up = y / this.frame.height * (y1 - y0);
    this.shown = [x0 + right, x1 + right, y0 + up, y1 + up];
    this.frame.redraw();
  }

  reset() {
    this.shown = [...this.full];
    this.frame.redraw();
  }

  key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Enter") this.pick();
    else if (event.key === " ") this.toggleCurrent();
    else if (event.key === "Escape") this.sendSelection(new Uint8Array(this.selected.length));
    else if (event.key in steps) this.step(...steps[event.key]);
    else return false;
    return true;
  }

  controlKey(event) {
    if (event.key.toLowerCase() !== "a") return false;
    const bits = new Uint8Array(this.selected.length);
    for (let i = 0; i < this.count; i++) if (this.isShown(i)) setBit(bits, i, true);
    this.sendSelection(bits);
    return true;
  }

  toggleCurrent() {
    if (this.current < 0) return;
    const bits = this.selected.slice();
    setBit(bits, this.current, !bitIsSet(bits, this.current));
    this.sendSelection(bits);
  }

  // The nearest point within 45 degrees of a direction
  step(right, down) {
    if (!this.count) return;
    if (this.current < 0) {
      this.current = this.nearestTo({ x: this.frame.width / 2, y: this.frame.height / 2 }, Infinity);
      return this.frame.redrawOverlay();
    }
    const x = this.pixelX(this.xs[this.current]);
    const y = this.pixelY(this.ys[this.current]);
    let best = -1;
    let least = Infinity;
    for (let i = 0; i < this.count; i++) {
      if (i === this.current || !this.isShown(i)) continue;
      const dx = this.pixelX(this.xs[i]) - x;
      const dy = this.pixelY(this.ys[i]) - y;
      const along = dx * right + dy * down;
      const aside = Math.abs(dx * down) + Math.abs(dy * right);
      if (along <= 0 || aside > along) continue;
      if (along + aside < least) {
        least = along + aside;
        best = i;
      }
    }
    if (best >= 0) this.current = best;
    this.frame.redrawOverlay();
  }
}

// ---- Grids of pictures: only what is in sight is in the page, in pages of pictures asked from Python

const PAGE = 32; // pictures in a message
const KEPT_PAGES = 80;
const REQUESTS = 3; // on the way at a time

class GridView {
  constructor(frame) {
    this.frame = frame;
    this.model = frame.model;
    this.stage = frame.stage;
    this.stage.classList.add("cvs-scroll");
    this.space = make("div", "cvs-space");
    this.stage.append(this.space);
    this.tiles = new Map(); // index -> element
    this.spare = [];
    this.pages = new Map(); // page -> pictures and captions
    this.requested = new Map(); // page -> when
    this.outdated = new Set(); // pages to ask again, shown until the answer is there
    this.id = Math.random().toString(36).slice(2);
    this.current = 0;
    this.anchor = 0;
    this.scrolledFrom = 0;
    this.direction = 1;
    frame.bar.hidden = true;
    frame.legend.hidden = true;
    frame.listen(this.stage, "scroll", () => this.scrolled(), { passive: true });
    frame.listen(this.stage, "click", event => this.click(event));
    frame.listen(this.stage, "dblclick", event => this.indexOf(event) >= 0 && this.open());
    frame.listen(this.stage, "keydown", event => this.key(event));
    frame.watch("change:version", () => this.load());
    frame.watch("change:selected", () => this.readSelection());
  }

  describe() {
    this.stage.setAttribute("aria-multiselectable", "true");
    this.frame.describeStage(
      "listbox",
      "Arrow keys move, Space selects, with Shift a range, Control A all, Escape none, Enter opens.",
    );
  }

  load() {
    const meta = this.model.get("meta");
    this.count = meta.count || 0;
    this.size = meta.size;
    this.tileWidth = meta.size + 12;
    this.tileHeight = meta.size + 12 + (meta.captions ? 34 : 0);
    this.version = this.model.get("version");
    this.current = clamp(this.model.get("current"), 0, Math.max(0, this.count - 1));
    this.requested.clear();
    this.outdated.clear();
    this.forgetAll();
    this.stage.scrollTop = 0;
    this.readSelection();
    if (!this.count) this.frame.say("Nothing to show: no pictures.");
  }

  forgetAll() {
    for (const page of this.pages.values()) page.urls.forEach(url => url && URL.revokeObjectURL(url));
    this.pages.clear();
    for (const tile of this.tiles.values()) this.putAway(tile);
    this.tiles.clear();
  }

  close() {
    this.forgetAll();
  }

  readSelection() {
    const sent = new Uint8Array(bufferOf(this.model.get("selected")));
    const size = (this.count + 7) >> 3;
    this.selected = sent.length === size ? sent : new Uint8Array(size);
    this.frame.redraw();
  }

  scrolled() {
    const top = this.stage.scrollTop;
    this.direction = top >= this.scrolledFrom ? 1 : -1;
    this.scrolledFrom = top;
    this.frame.redraw();
  }

  // First and last index (not included) in sight, with a number of screens before and after
  range(before = 0, after = 0) {
    const screen = this.frame.height;
    const first = Math.floor((this.stage.scrollTop - before * screen) / this.tileHeight) * this.columns;
    const rows = Math.ceil((this.stage.scrollTop + (1 + after) * screen) / this.tileHeight);
    return [clamp(first, 0, this.count), clamp(rows * this.columns, 0, this.count)];
  }

  draw() {
    this.columns = Math.max(1, Math.floor(this.stage.clientWidth / this.tileWidth));
    this.space.style.height = `${Math.ceil(this.count / this.columns) * this.tileHeight}px`;
    const [first, last] = this.range(0.3, 0.3);
    for (const [i, tile] of this.tiles) {
      if (i >= first && i < last) continue;
      this.putAway(tile);
      this.tiles.delete(i);
    }
    for (let i = first; i < last; i++) this.drawTile(i);
    if (this.count) this.stage.setAttribute("aria-activedescendant", this.tileId(this.current));
    this.askForPages();
  }

  drawOverlay() {}

  tileId(i) { return `cvs-${this.id}-${i}`; }

  putAway(tile) {
    tile.remove();
    this.spare.push(tile);
  }

  newTile() {
    const tile = make("div", "cvs-tile", { role: "option" });
    const image = make("img", "", { alt: "", draggable: "false" });
    image.width = image.height = this.size;
    tile.append(image, make("div", "cvs-caption"));
    return tile;
  }

  tileFor(i) {
    let tile = this.tiles.get(i);
    if (tile) return tile;
    tile = this.spare.pop() || this.newTile();
    tile.id = this.tileId(i);
    tile.dataset.index = i;
    tile.page = null;
    tile.firstChild.removeAttribute("src");
    tile.lastChild.textContent = "";
    tile.style.width = `${this.size + 4}px`;
    tile.style.height = `${this.tileHeight - 8}px`;
    tile.setAttribute("aria-posinset", i + 1);
    tile.setAttribute("aria-setsize", this.count);
    tile.setAttribute("aria-label", `picture ${i}`);
    this.space.append(tile);
    this.tiles.set(i, tile);
    return tile;
  }

  drawTile(i) {
    const tile = this.tileFor(i);
    const x = (i % this.columns) * this.tileWidth;
    const y = Math.floor(i / this.columns) * this.tileHeight;
    tile.style.transform = `translate(${x}px, ${y}px)`;
    tile.setAttribute("aria-selected", bitIsSet(this.selected, i) === 1);
    tile.classList.toggle("cvs-current", i === this.current);
    const page = this.pages.get(Math.floor(i / PAGE));
    if (page && tile.page !== page) this.fillTile(tile, page, i % PAGE);
  }

  fillTile(tile, page, at) {
    tile.page = page;
    const caption = page.captions[at] || "";
    if (page.urls[at]) tile.firstChild.src = page.urls[at];
    tile.classList.toggle("cvs-broken", !page.urls[at]);
    tile.lastChild.textContent = caption;
    tile.title = caption;
    tile.setAttribute("aria-label", caption || `picture ${tile.dataset.index}`);
  }

  // What is in sight first, then a screen further on, then a screen back
  askForPages() {
    if (!this.count) return;
    const now = performance.now();
    for (const [page, when] of this.requested) if (now - when > 8000) this.requested.delete(page);
    const ahead = this.direction > 0 ? [0, 1.5] : [1.5, 0];
    for (const [first, last] of [this.range(), this.range(...ahead), this.range(0.7, 0.7)]) {
      for (let page = Math.floor(first / PAGE); page <= Math.floor((last - 1) / PAGE); page++) this.askFor(page, now);
    }
  }

  askFor(page, now) {
    if (this.requested.size >= REQUESTS || this.requested.has(page)) return;
    if (this.pages.has(page) && !this.outdated.has(page)) return;
    this.requested.set(page, now);
    this.outdated.delete(page);
    const first = page * PAGE;
    const last = Math.min(this.count, first + PAGE);
    this.frame.ask({ type: "page", version: this.version, page, first, last });
  }

  receive(message, buffers) {
    if (message.type === "page" && message.version === this.version) this.receivePage(message, buffers);
    if (message.type === "refresh") this.refresh(message.indices);
  }

  receivePage(message, buffers) {
    const { page, sizes, captions, error } = message;
    this.requested.delete(page);
    const bytes = new Uint8Array(bufferOf(buffers[0]));
    const old = this.pages.get(page);
    let start = 0;
    const urls = sizes.map(size => {
      const part = bytes.subarray(start, start + size);
      start += size;
      return size ? URL.createObjectURL(new Blob([part], { type: "image/jpeg" })) : "";
    });
    this.pages.set(page, { urls, captions });
    if (old) setTimeout(() => old.urls.forEach(url => url && URL.revokeObjectURL(url)), 1000);
    if (error) this.frame.say(`Error: ${error}`);
    this.forgetFarPages();
    this.frame.root.dataset.pages = 1 + Number(this.frame.root.dataset.pages || 0);
    this.frame.redraw();
  }

  forgetFarPages() {
    if (this.pages.size <= KEPT_PAGES) return;
    const middle = this.range()[0] / PAGE;
    const far = [...this.pages.keys()].reduce((a, b) => (Math.abs(b - middle) > Math.abs(a - middle) ? b : a));
    this.pages.get(far).urls.forEach(url => url && URL.revokeObjectURL(url));
    this.pages.delete(far);
  }

  refresh(indices) {
    const pages = indices ? indices.map(i => Math.floor(i / PAGE)) : [...this.pages.keys()];
    for (const page of pages) if (this.pages.has(page) || this.requested.has(page)) this.outdated.add(page);
    for (const page of pages) this.requested.delete(page);
    this.frame.redraw();
  }

  indexOf(event) {
    const tile = event.target.closest?.(".cvs-tile");
    return tile ? Number(tile.dataset.index) : -1;
  }

  click(event) {
    const i = this.indexOf(event);
    if (i < 0) return;
    this.stage.focus({ preventScroll: true });
    this.current = i;
    if (event.shiftKey) this.selectRange();
    else if (event.ctrlKey || event.metaKey || event.pointerType === "touch") this.toggle(i);
    else this.selectOnly(i);
  }

  selectOnly(i) {
    this.selected.fill(0);
    setBit(this.selected, i, true);
    this.anchor = i;
    this.sendSelection();
  }

  toggle(i) {
    setBit(this.selected, i, !bitIsSet(this.selected, i));
    this.anchor = i;
    this.sendSelection();
  }

  selectRange() {
    const [first, last] = [this.anchor, this.current].sort((a, b) => a - b);
    for (let i = first; i <= last; i++) setBit(this.selected, i, true);
    this.sendSelection();
  }

  selectAll(on) {
    this.selected.fill(0);
    if (on) for (let i = 0; i < this.count; i++) setBit(this.selected, i, true);
    this.sendSelection();
  }

  sendSelection() {
    this.sayPlace();
    sendBits(this.model, this.selected, { current: this.current });
    this.frame.redraw();
  }

  sayPlace() {
    const tile = this.tiles.get(this.current);
    const name = tile?.getAttribute("aria-label") || `picture ${this.current}`;
    this.frame.say(`${name}; ${countBits(this.selected)} of ${this.count} selected`);
  }

  open() {
    this.model.send({ type: "open", current: this.current });
  }

  moveTo(i, extend) {
    this.current = clamp(i, 0, this.count - 1);
    this.bringIntoView();
    if (extend) return this.selectRange();
    this.anchor = this.current;
    this.model.send({ type: "move", current: this.current });
    this.frame.redraw();
    this.sayPlace();
  }

  bringIntoView() {
    const top = Math.floor(this.current / this.columns) * this.tileHeight;
    const bottom = top + this.tileHeight;
    if (top < this.stage.scrollTop) this.stage.scrollTop = top;
    else if (bottom > this.stage.scrollTop + this.frame.height) this.stage.scrollTop = bottom - this.frame.height;
  }

  key(event) {
    if (!this.count || event.altKey || !this.handleKey(event)) return;
    event.preventDefault();
  }

  handleKey(event) {
    const screen = Math.max(1, Math.floor(this.frame.height / this.tileHeight)) * this.columns;
    const steps = {
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns,
      PageUp: -screen, PageDown: screen, Home: -this.count, End: this.count,
    };
    if (event.ctrlKey || event.metaKey) {
      if (event.key.toLowerCase() !== "a") return false;
      this.selectAll(true);
    } else if (event.key in steps) this.moveTo(this.current + steps[event.key], event.shiftKey);
    else if (event.key === " ") this.toggle(this.current);
    else if (event.key === "Escape") this.selectAll(false);
    else if (event.key === "Enter") this.open();
    else if (event.key.length === 1 || event.key === "Delete" || event.key === "Backspace") this.sendKey(event.key);
    else return false;
    return true;
  }

  sendKey(key) {
    this.model.send({ type: "key", key, current: this.current });
  }
}

// ---- Names for the controls of an explorer: ipywidgets gives none to handles of sliders and to buttons with a symbol

function nameControls(root) {
  for (const box of root.querySelectorAll(".widget-inline-hbox")) {
    const name = box.querySelector(".widget-label")?.textContent.trim();
    if (!name) continue;
    const handles = [...box.querySelectorAll(".noUi-handle")];
    handles.forEach((handle, i) => setName(handle, handles.length > 1 ? `${name}, ${i ? "high" : "low"}` : name));
    for (const readout of box.querySelectorAll(".widget-readout")) setName(readout, `${name}, value`);
  }
  for (const button of root.querySelectorAll("button[title]")) {
    if (button.title && !/\w/.test(button.textContent)) setName(button, button.title);
  }
}

function setName(element, name) {
  if (element.getAttribute("aria-label") !== name) element.setAttribute("aria-label", name);
}

// Controls come and go, so the explorer is watched; `el` is put into the page after this function ends
function keepNaming(model, el) {
  const selector = `.${model.get("meta").root}`;
  let pending = null;
  let tries = 0;
  const watcher = new MutationObserver(() => later());
  function name() {
    pending = null;
    const root = el.closest(selector);
    if (!root && tries++ < 300) return later();
    if (!root) return;
    watcher.disconnect();
    nameControls(root);
    root.dataset.named = "yes";
    watcher.observe(root, { childList: true, subtree: true });
  }
  function later() {
    pending ??= requestAnimationFrame(name);
  }
  later();
  return () => {
    watcher.disconnect();
    cancelAnimationFrame(pending);
  };
}

// ---- For anywidget

const VIEWS = { curve: CurveView, heat: HeatView, scatter: ScatterView, grid: GridView };

function render({ model, el }) {
  if (model.get("kind") === "names") return keepNaming(model, el);
  try {
    const frame = new Frame(model, el);
    const View = VIEWS[model.get("kind")];
    frame.start(new View(frame));
    return () => frame.stop();
  } catch (error) {
    el.textContent = `This view failed: ${error.message}`; // an output would stay empty
    throw error;
  }
}

export default { render };
