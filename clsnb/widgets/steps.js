// The tiles of clsnb.widgets.step_view: one for each step of a pipeline, to choose, drag, switch off and remove.
// One ES module for anywidget; no import, no network, no build step.

// JupyterLab takes single keys unless this stands on the focused element itself
const OWN_KEYS = { "data-lm-suppress-shortcuts": "true" };
const KEYS = "Arrow keys choose, Alt and arrow keys move, Space switches off and on, Delete removes.";

function make(tag, className, attributes = {}) {
  const element = document.createElement(tag);
  element.className = className;
  for (const name in attributes) element.setAttribute(name, attributes[name]);
  return element;
}

// A copy, since the bytes of a message need not begin where its buffer does
function bytesOf(value) {
  if (!value) return new Uint8Array(0);
  if (!value.buffer) return new Uint8Array(value);
  return new Uint8Array(value.buffer, value.byteOffset, value.byteLength).slice();
}

class Tile {
  constructor(id) {
    this.root = make("div", "stp-tile", { role: "option", id });
    this.head = make("div", "stp-head");
    this.args = make("div", "stp-args");
    this.image = make("img", "stp-image", { alt: "", draggable: "false" });
    this.facts = make("div", "stp-facts");
    this.root.append(this.head, this.args, this.image, this.facts);
  }

  show(step, jpeg, chosen, movable) {
    this.head.textContent = step.title;
    this.args.textContent = step.args;
    this.facts.textContent = step.facts;
    this.root.dataset.state = step.state;
    this.root.setAttribute("aria-selected", String(chosen));
    this.root.draggable = movable;
    this.showImage(step, jpeg);
  }

  showImage(step, jpeg) {
    this.image.hidden = !jpeg.length;
    if (!jpeg.length) return;
    const before = this.url;
    this.url = URL.createObjectURL(new Blob([jpeg], { type: "image/jpeg" }));
    this.image.onload = () => before && URL.revokeObjectURL(before);
    [this.image.width, this.image.height] = step.size;
    this.image.src = this.url;
  }

  remove() {
    if (this.url) URL.revokeObjectURL(this.url);
    this.root.remove();
  }
}

class StepView {
  constructor(model, el) {
    this.model = model;
    this.tiles = [];
    this.draws = 0;
    this.ended = new AbortController();
    this.root = make("div", "stp");
    this.list = make("div", "stp-list", { role: "listbox", tabindex: 0, ...OWN_KEYS });
    this.note = make("div", "stp-note", { role: "status", "aria-live": "polite" });
    this.root.append(this.list, this.note);
    const replaced = model.get("replaces");
    if (replaced) {
      const style = make("style", "");
      style.textContent = `${replaced} { display: none !important }`;
      this.root.append(style);
    }
    el.append(this.root);
    this.listen("click", event => this.click(event));
    this.listen("keydown", event => this.key(event));
    this.listen("dragstart", event => this.dragStart(event));
    this.listen("dragover", event => this.dragOver(event));
    this.listen("drop", event => this.drop(event));
    this.listen("dragend", () => this.dragEnd());
    this.changed = () => this.draw();
    this.told = message => this.tell(message);
    model.on("change:meta", this.changed);
    model.on("msg:custom", this.told);
    this.draw();
    model.send({ type: "shown" });
  }

  listen(event, handler) {
    this.list.addEventListener(event, handler, { signal: this.ended.signal });
  }

  tell(message) {
    if (message.type === "error") this.note.textContent = `Error: ${message.text}`;
  }

  draw() {
    const { steps = [], chosen = -1, movable = false } = this.model.get("meta");
    const data = bytesOf(this.model.get("data"));
    while (this.tiles.length > steps.length) this.tiles.pop().remove();
    while (this.tiles.length < steps.length) {
      const tile = new Tile(`stp-${this.model.get("uid")}-${this.tiles.length}`);
      this.tiles.push(tile);
      this.list.append(tile.root);
    }
    let start = 0;
    steps.forEach((step, i) => {
      this.tiles[i].show(step, data.subarray(start, start + step.bytes), i === chosen, movable && i > 0);
      start += step.bytes;
    });
    this.chosen = chosen;
    this.movable = movable;
    this.note.textContent = "";
    this.list.setAttribute("aria-label", `${this.model.get("label")}. ${movable ? KEYS : ""}`);
    this.list.setAttribute("aria-activedescendant", this.tiles[chosen]?.root.id ?? "");
    this.root.dataset.draws = ++this.draws;
  }

  indexOf(event) {
    const root = event.target.closest?.(".stp-tile");
    return this.tiles.findIndex(tile => tile.root === root);
  }

  click(event) {
    const i = this.indexOf(event);
    if (i >= 0 && this.movable) this.model.send({ type: "choose", at: i });
  }

  move(from, to) {
    if (from < 1 || to < 1 || to >= this.tiles.length || from === to) return;
    this.model.send({ type: "move", at: from, to });
  }

  key(event) {
    if (!this.movable || event.ctrlKey || event.metaKey) return;
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    const target = { Home: 0, End: this.tiles.length - 1 }[event.key] ?? this.chosen + (step ?? 0);
    if (step && event.altKey) this.move(this.chosen, this.chosen + step);
    else if (target !== this.chosen) {
      if (this.tiles[target]) this.model.send({ type: "choose", at: target });
    } else if (event.key === " " && this.chosen > 0) this.model.send({ type: "switch", at: this.chosen });
    else if (event.key === "Delete" && this.chosen > 0) this.model.send({ type: "remove", at: this.chosen });
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  dragStart(event) {
    this.dragged = this.indexOf(event);
    event.dataTransfer.setData("text/plain", String(this.dragged));
    event.dataTransfer.effectAllowed = "move";
    event.stopPropagation();
  }

  dragOver(event) {
    const i = this.indexOf(event);
    if (!(this.dragged > 0) || i < 1) return;
    event.preventDefault();
    event.stopPropagation();
    this.tiles.forEach((tile, k) => tile.root.classList.toggle("stp-target", k === i));
  }

  drop(event) {
    const i = this.indexOf(event);
    if (!(this.dragged > 0)) return;
    event.preventDefault();
    event.stopPropagation();
    this.move(this.dragged, i);
    this.dragEnd();
  }

  dragEnd() {
    this.dragged = null;
    for (const tile of this.tiles) tile.root.classList.remove("stp-target");
  }

  close() {
    this.ended.abort();
    this.model.off("change:meta", this.changed);
    this.model.off("msg:custom", this.told);
    this.tiles.forEach(tile => tile.remove());
    this.root.remove();
  }
}

function render({ model, el }) {
  try {
    const view = new StepView(model, el);
    return () => view.close();
  } catch (error) {
    el.textContent = `This view failed: ${error.message}`; // an output would stay empty
    throw error;
  }
}

export default { render };
