// The radiograph as people read it elsewhere: window, zoom, pan, turns, readout and ruler.

import Panzoom from "../vendor/panzoom/panzoom.es.js";
import { clamp, decode, draw, greys, presets, range } from "./pixels.js";
import { recall, remember } from "./settings.js";
import { say } from "./texts.js";

const FULL_DRAG = 500; // screen pixels that change a window by the range of all values
const [LEAST_ZOOM, MOST_ZOOM] = [0.2, 60];
const WHEEL_STEP = 0.0015; // per pixel of a wheel: a notch of 100 zooms by 1.16
const LINE = 33; // pixels of a wheel that counts lines
const PINCH_STEP = 7; // a pinch on a trackpad comes as a wheel with few pixels
const ZOOM_STEP = 0.45; // in the exponent, for a key or button
const PAN_STEP = 60; // screen pixels for an arrow key
// Screen pixels: a pointer that moved less was a click, a finger less exactly.
const [CLICK, TAP] = [4, 12];
const BY_HAND = "by-hand"; // the choice that a drag makes
const KEYS_OFF = "spinexr.keys-off";
const ACTIONS_BY_KEY = {
  i: "invert", " ": "reset", "+": "zoom-in", "-": "zoom-out", "=": "fit",
  l: "rotate-left", r: "rotate-right", h: "flip-h", v: "flip-v", "?": "help",
};

const viewers = new WeakMap(); // by their section

// Keys go to the viewer that is shown, wherever the focus is.
document.addEventListener("keydown", (event) => {
  viewers.get(document.querySelector(".viewer-live"))?.key(event);
});

export class Viewer {
  // root: the section of a result. millimetres: the image's pixel spacing, or null.
  // fetchPixels: promises the body of /pixels; null where there is no file to send.
  constructor(root, { millimetres, fetchPixels }) {
    viewers.set(root, this);
    this.root = root;
    this.millimetres = millimetres;
    this.fetchPixels = fetchPixels;
    this.rows = Number(root.dataset.rows);
    this.columns = Number(root.dataset.columns);
    for (const element of root.querySelectorAll("[data-role]")) {
      this[`$${element.dataset.role}`] = element;
    }
    this.picture = null; // decoded pixels, once somebody asks for them
    this.window = null;
    this.tool = "window";
    this.ended = true; // no line is waiting for its second end
    this.turns = 0;
    this.flipped = { h: false, v: false };
    this.inverted = false;
    this.pointers = new Map();
    this.gesture = null;
    this.awake = false; // until it is tapped, a finger that swipes over it scrolls the page
    this.root.classList.add("viewer-live");
    this.root.querySelector(".tools").hidden = false;
    this.$stage.tabIndex = 0;
    this.$stage.setAttribute("role", "group");
    this.$stage.setAttribute("aria-label", say("stage"));
    this.panzoom = Panzoom(this.$pan, {
      noBind: true, cursor: "", maxScale: MOST_ZOOM, minScale: LEAST_ZOOM, pinchAndPan: true,
      animate: false, touchAction: "", // the style sheet's, as long as nobody tapped
    });
    this.listen();
    this.layOut();
  }

  listen() {
    const on = (target, type, act, options) => target.addEventListener(type, act, options);
    new ResizeObserver(() => this.layOut()).observe(this.$stage);
    on(this.$pan, "panzoomchange", () => this.showZoom());
    on(this.$stage, "wheel", (event) => this.wheel(event), { passive: false });
    on(this.$stage, "pointerdown", (event) => this.down(event));
    on(this.$stage, "pointermove", (event) => this.move(event));
    on(this.$stage, "pointerup", (event) => this.up(event));
    on(this.$stage, "pointercancel", (event) => this.up(event));
    on(this.$stage, "pointerleave", () => this.read(null));
    on(this.$stage, "contextmenu", (event) => event.preventDefault());
    on(this.$stage, "keydown", (event) => this.arrows(event));
    on(this.root, "click", (event) => {
      const action = event.target.closest("[data-action]")?.dataset.action;
      if (action) {
        this.act(action);
      }
    });
    on(this.$presets, "change", () => this.preset(this.$presets.value));
    on(this.$presets, "focus", () => this.load());
    on(this.$keys, "change", () => {
      remember(KEYS_OFF, this.$keys.checked ? "" : "1");
    });
    this.$keys.checked = !recall(KEYS_OFF);
    for (const input of [this.$center, this.$width]) {
      on(input, "input", () => (this.typing = input));
      on(input, "blur", () => (this.typing = null));
      on(input, "focus", () => this.load());
      on(input, "change", () => this.type(input));
    }
  }

  // -- places: screen, and pixels of the image ------------------------------------------------

  // The image as large as the stage allows, turned as it is.
  layOut() {
    const sideways = this.turns % 2 === 1;
    const [columns, rows] = sideways ? [this.rows, this.columns] : [this.columns, this.rows];
    const fitted = Math.min(this.$stage.clientWidth / columns, this.$stage.clientHeight / rows);
    if (!(fitted > 0)) {
      return;
    }
    this.fitted = fitted;
    this.$turn.style.width = `${this.columns * fitted}px`;
    this.$turn.style.height = `${this.rows * fitted}px`;
    const flip = `scale(${this.flipped.h ? -1 : 1}, ${this.flipped.v ? -1 : 1})`;
    this.$turn.style.transform = `${flip} rotate(${this.turns * 90}deg)`;
    // Numbers of boxes stay upright and readable.
    const upright = `rotate(${-this.turns * 90}) ${flip.replace(",", "")}`;
    for (const text of this.$boxes.querySelectorAll("text[x]")) {
      const [x, y] = [text.getAttribute("x"), text.getAttribute("y")];
      text.setAttribute("transform", `translate(${x} ${y}) ${upright} translate(${-x} ${-y})`);
    }
    this.showZoom();
  }

  // Screen pixels per image pixel.
  get scale() {
    return this.fitted * this.panzoom.getScale();
  }

  // Where in the image a point of the screen lies, in pixels from its top left corner.
  toImage({ clientX, clientY }) {
    const frame = this.$turn.getBoundingClientRect();
    let x = clientX - (frame.left + frame.right) / 2;
    let y = clientY - (frame.top + frame.bottom) / 2;
    x *= this.flipped.h ? -1 : 1;
    y *= this.flipped.v ? -1 : 1;
    for (let n = 0; n < this.turns; n++) {
      [x, y] = [y, -x];
    }
    return { x: x / this.scale + this.columns / 2, y: y / this.scale + this.rows / 2 };
  }

  showZoom() {
    this.root.style.setProperty("--pixel", 1 / this.scale); // image pixels per screen pixel
    this.root.classList.toggle("viewer-near", this.scale * window.devicePixelRatio > 3);
    this.percent = Math.round(100 * this.scale * window.devicePixelRatio);
    this.showRuler();
    this.read(this.last ?? null);
  }

  showRuler() {
    const mm = this.millimetres;
    this.$ruler.hidden = !mm;
    if (!mm) {
      return;
    }
    const across = (this.turns % 2 ? mm.row_mm : mm.column_mm) / this.scale; // mm per screen pixel
    const most = across * Math.min(160, this.$stage.clientWidth / 3);
    const power = 10 ** Math.floor(Math.log10(most));
    const length = [5, 2, 1].find((n) => n * power <= most) * power;
    this.$ruler.style.width = `${length / across}px`;
    const where = mm.source === "ImagerPixelSpacing" ? say("at_detector") : "";
    this.$ruler.firstElementChild.textContent = `${Number(length.toPrecision(1))} mm ${where}`;
  }

  // -- gestures -------------------------------------------------------------------------------

  down(event) {
    if (event.target.closest("button, select, a")) {
      return;
    }
    event.preventDefault();
    this.$stage.focus({ preventScroll: true });
    this.$stage.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event);
    this.pressed = event;
    this.alone = this.pointers.size === 1;
    this.box = this.alone ? event.target.closest("g[data-finding]") : null;
    if (event.pointerType !== "mouse" && !this.awake && this.alone) {
      this.gesture = "asleep";
      return;
    }
    this.wake();
    if (this.pointers.size === 2 && this.gesture !== "pan") {
      // A second finger: what the first one began is a pinch.
      this.panzoom.handleDown([...this.pointers.values()][0]);
    }
    if (this.pointers.size >= 2 || event.button > 0 || event.shiftKey || this.tool === "pan") {
      this.gesture = "pan";
      this.panzoom.handleDown(event);
      this.pinchFrom([...this.pointers.values()]);
    } else {
      this.gesture = this.tool;
      if (this.tool === "measure") {
        this.from = this.ended ? this.toImage(event) : this.from;
        this.measure(this.from, this.toImage(event));
      } else {
        this.load();
      }
    }
  }

  // The image is to grow by what the fingers part, which panzoom knows as a step per 80 pixels.
  pinchFrom([a, b]) {
    if (b) {
      const distance = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
      this.panzoom.setOptions({ step: (80 * this.panzoom.getScale()) / Math.max(1, distance) });
    }
  }

  move(event) {
    this.read(event);
    if (!this.ended && !this.gesture) {
      this.measure(this.from, this.toImage(event)); // after the first of two clicks
    }
    if (!this.pointers.has(event.pointerId)) {
      return;
    }
    if (this.gesture === "pan") {
      this.panzoom.handleMove(event);
    } else if (this.gesture === "measure") {
      this.measure(this.from, this.toImage(event));
    } else if (this.gesture === "window" && this.picture) {
      const before = this.pointers.get(event.pointerId);
      this.nudge(event.clientX - before.clientX, event.clientY - before.clientY);
    }
    this.pointers.set(event.pointerId, event);
  }

  up(event) {
    if (!this.pointers.delete(event.pointerId)) {
      return;
    }
    const { clientX, clientY } = this.pressed;
    const slack = event.pointerType === "mouse" ? CLICK : TAP;
    const clicked = Math.hypot(event.clientX - clientX, event.clientY - clientY) < slack;
    if (this.gesture === "asleep" && event.type === "pointerup") {
      if (clicked) {
        this.wake();
        this.load();
      } else {
        this.hint(say("tap_first"));
      }
    } else if (this.gesture === "pan") {
      this.panzoom.handleUp(event);
    } else if (this.gesture === "measure") {
      // A line is drawn in one go, or from click to click.
      this.ended = !(clicked && this.ended);
    }
    if (clicked && this.box && this.gesture !== "measure") {
      this.box.dispatchEvent(new CustomEvent("choose"));
    }
    if (clicked && this.alone && event.button === 0 && this.tool === "pan") {
      this.centre(event);
    }
    if (!this.pointers.size) {
      this.gesture = null;
    }
  }

  wake() {
    if (!this.awake) {
      this.awake = true;
      this.$stage.dataset.awake = "";
      this.hint("");
    }
  }

  sleep() {
    this.awake = false;
    delete this.$stage.dataset.awake;
  }

  wheel(event) {
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === 1 ? LINE : 1) * (event.ctrlKey ? PINCH_STEP : 1);
    const scale = this.panzoom.getScale() * Math.exp(-pixels * WHEEL_STEP);
    this.panzoom.zoomToPoint(clamp(scale, LEAST_ZOOM, MOST_ZOOM), event);
  }

  // A line with its length, between two places of the image.
  measure(a, b) {
    const mm = this.millimetres;
    const length = Math.hypot((b.x - a.x) * mm.column_mm, (b.y - a.y) * mm.row_mm);
    const [line, text] = this.$measure.children;
    for (const [name, value] of Object.entries({ x1: a.x, y1: a.y, x2: b.x, y2: b.y })) {
      line.setAttribute(name, value);
    }
    const where = mm.source === "ImagerPixelSpacing" ? ` ${say("at_detector")}` : "";
    text.textContent = `${length.toFixed(1)} mm${where}`;
    text.setAttribute("x", b.x);
    text.setAttribute("y", b.y);
    this.$measure.removeAttribute("hidden");
    this.layOut();
  }

  // -- keys and buttons -----------------------------------------------------------------------

  key(event) {
    const typing = event.target.closest("input, select, textarea, dialog");
    const pressing = event.key === " " && event.target.closest("button, a, summary, [data-finding]");
    if (typing || pressing || event.ctrlKey || event.metaKey || event.altKey || !this.$keys.checked) {
      return;
    }
    const action = ACTIONS_BY_KEY[event.key.toLowerCase()];
    if (action) {
      event.preventDefault();
      this.act(action);
    } else if (/^[1-9]$/.test(event.key)) {
      this.preset(Number(event.key) - 1);
    }
  }

  arrows(event) {
    const step = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (step && event.target === this.$stage) {
      event.preventDefault();
      const { x, y } = this.panzoom.getPan();
      const by = PAN_STEP / this.panzoom.getScale();
      this.panzoom.pan(x + step[0] * by, y + step[1] * by, { animate: false });
    }
  }

  // For those who do not drag.
  centre(event) {
    const { left, top, width, height } = this.$stage.getBoundingClientRect();
    const { x, y } = this.panzoom.getPan();
    const scale = this.panzoom.getScale();
    const across = (left + width / 2 - event.clientX) / scale;
    const down = (top + height / 2 - event.clientY) / scale;
    this.panzoom.pan(x + across, y + down, { animate: false });
  }

  act(action) {
    const acts = {
      "tool-window": () => this.use("window"),
      "tool-pan": () => this.use("pan"),
      "tool-measure": () => this.use("measure"),
      "zoom-in": () => this.panzoom.zoomIn({ step: ZOOM_STEP, animate: false }),
      "zoom-out": () => this.panzoom.zoomOut({ step: ZOOM_STEP, animate: false }),
      fit: () => this.fit(),
      "one-to-one": () => this.panzoom.zoom(1 / (this.fitted * window.devicePixelRatio), { animate: false }),
      "rotate-left": () => this.turn(3),
      "rotate-right": () => this.turn(1),
      "flip-h": () => this.flip("h"),
      "flip-v": () => this.flip("v"),
      invert: () => this.invert(!this.inverted),
      reset: () => this.reset(),
      help: () => this.$help.showModal(),
    };
    acts[action]?.();
  }

  use(tool) {
    this.wake();
    this.tool = tool;
    this.ended = true;
    for (const name of ["window", "pan", "measure"]) {
      this.press(`tool-${name}`, name === tool);
    }
    this.$stage.dataset.tool = tool;
    if (tool !== "measure") {
      this.$measure.setAttribute("hidden", "");
    }
  }

  press(action, pressed) {
    this.root.querySelector(`[data-action="${action}"]`)?.setAttribute("aria-pressed", pressed);
  }

  fit() {
    this.panzoom.reset({ animate: false });
  }

  // Turning is about the screen's axes, whatever was turned or flipped before.
  turn(quarters) {
    const mirrored = this.flipped.h !== this.flipped.v;
    this.turns = (this.turns + (mirrored ? 4 - quarters : quarters)) % 4;
    this.layOut();
  }

  flip(axis) {
    this.flipped[axis] = !this.flipped[axis];
    this.press(`flip-${axis}`, this.flipped[axis]);
    this.layOut();
  }

  invert(inverted) {
    this.inverted = inverted;
    this.press("invert", inverted);
    this.$plain.classList.toggle("inverted", inverted);
    this.paint();
  }

  reset() {
    this.turns = 0;
    this.flipped = { h: false, v: false };
    this.press("flip-h", false);
    this.press("flip-v", false);
    this.invert(false);
    if (this.picture) {
      this.preset(0);
    }
    this.fit();
    this.layOut();
    this.hint("");
    this.sleep();
  }

  // Centre a box and make it a third of the view.
  show(box) {
    const size = Math.max(box.x2 - box.x1, box.y2 - box.y1) * this.fitted;
    const scale = clamp(Math.min(this.$stage.clientWidth, this.$stage.clientHeight) / 3 / size, 1, 12);
    const middle = { x: (box.x1 + box.x2) / 2, y: (box.y1 + box.y2) / 2 };
    let x = (this.columns / 2 - middle.x) * this.fitted;
    let y = (this.rows / 2 - middle.y) * this.fitted;
    for (let n = 0; n < this.turns; n++) {
      [x, y] = [-y, x];
    }
    this.panzoom.zoom(scale, { animate: false });
    this.panzoom.pan(this.flipped.h ? -x : x, this.flipped.v ? -y : y, { animate: false });
  }

  // -- pixels ---------------------------------------------------------------------------------

  // The stored values, fetched on the first call; null where they cannot be had.
  load() {
    this.loading ??= this.fetchAll();
    return this.loading;
  }

  async fetchAll() {
    if (!this.fetchPixels) {
      this.hint(say("no_file"));
      return null;
    }
    this.hint(say("loading_pixels"));
    try {
      this.picture = await decode(await this.fetchPixels());
    } catch (error) {
      this.hint(error.userMessage ?? say("no_pixels"));
      this.loading = undefined;
      return null;
    }
    this.hint("");
    this.presets = presets(this.picture);
    this.span = range(this.picture.values);
    this.$presets.replaceChildren(
      ...this.presets.map((preset, n) => new Option(`${n + 1}: ${this.presetName(preset, n)}`, n)),
      new Option(say("by_hand"), BY_HAND),
    );
    this.$canvas.width = this.columns;
    this.$canvas.height = this.rows;
    this.window = { ...this.presets[0] };
    this.paint();
    this.$canvas.hidden = false;
    this.$plain.hidden = true;
    return this.picture;
  }

  presetName(preset, n) {
    if (preset.full) {
      return say("full_range");
    }
    if (preset.table) {
      return say("table");
    }
    return preset.name || say("window_number", { number: n + 1 });
  }

  async preset(number) {
    if ((await this.load()) && this.presets[number]) {
      this.window = { ...this.presets[number] };
      this.$presets.value = number;
      this.paint();
    }
  }

  // Change the window: sideways its width, up and down its centre.
  nudge(dx, dy) {
    const [low, high] = this.span;
    const step = (high - low) / FULL_DRAG;
    const { center, width } = this.window;
    // Down is brighter, as elsewhere: a lower centre shows more as white, or as black where the
    // file says that its highest value is.
    const down = this.picture.head.inverse ? -dy : dy;
    this.windowBy({
      center: clamp(center - down * step, low - (high - low), high + (high - low)),
      width: clamp(width + dx * step, (high - low) / 256, 4 * (high - low)),
    });
  }

  // A centre or width that was written down.
  type(input) {
    this.typing = null;
    if (!this.window) {
      input.value = ""; // the values are not there
      return;
    }
    const { center, width } = this.window;
    const typed = { center, width, [input.dataset.role]: input.valueAsNumber };
    if (Number.isFinite(input.valueAsNumber) && typed.width > 0) {
      this.windowBy(typed);
    } else {
      this.showLevels();
    }
  }

  windowBy({ center, width }) {
    const kind = this.window.table ? "LINEAR_EXACT" : this.window.function;
    this.window = { center, width, function: kind };
    this.$presets.value = BY_HAND;
    this.paint();
  }

  // What is being written stays as it is until it is written down.
  showLevels() {
    for (const input of [this.$center, this.$width].filter((each) => each !== this.typing)) {
      const value = this.window[input.dataset.role];
      input.value = this.window.table ? "" : Number(value.toPrecision(5));
    }
  }

  paint() {
    if (!this.picture || this.painting) {
      return;
    }
    this.painting = requestAnimationFrame(() => {
      this.painting = 0;
      draw(this.$canvas, this.picture, greys(this.picture, this.window, this.inverted));
      this.showLevels();
      this.read(this.last ?? null);
    });
  }

  // Place, stored value, window and zoom, as a line below the image.
  read(event) {
    this.last = event;
    const parts = [];
    if (event) {
      const { x, y } = this.toImage(event);
      const [column, row] = [Math.floor(x), Math.floor(y)];
      if (column >= 0 && row >= 0 && column < this.columns && row < this.rows) {
        parts.push(`x ${column} y ${row}`);
        if (this.picture) {
          const entry = this.picture.pixels[row * this.columns + column];
          parts.push(`${say("value")} ${entry + this.picture.head.lowest}`);
        }
      }
    }
    parts.push(...this.view(), `${this.percent} %`);
    this.$readout.textContent = parts.join(" · ");
    this.$readout.hidden = false;
  }

  // How it is looked at, in words: the window, and whether it is inverted.
  view() {
    const { table, center, width } = this.window ?? {};
    const levels = `C ${Number(center?.toPrecision(5))} W ${Number(width?.toPrecision(5))}`;
    return [
      ...(this.window ? [table ? say("table") : levels] : []),
      ...(this.inverted ? [say("inverted")] : []),
    ];
  }

  hint(text) {
    this.$hint.textContent = text;
  }
}
