// Many files: a list that fills with results, two requests at a time. It lives in this page alone.

import { complaint } from "./files.js";
import { save } from "./save.js";
import { analyse, formOf, withOtherBodyPart } from "./server.js";
import { say } from "./texts.js";

const AT_ONCE = 2;
const BUSY_TRIES = 20; // the server says after how many seconds to come again
const LONGEST_REST_S = 30; // beyond that it is not busy, but has a trouble that it tells
const OTHER_BODY_PART = "other_body_part"; // a refusal that the reader may overrule
let running = 0; // of all lists of this page
const THUMB = { width: 48, height: 72 };

export class Worklist {
  // limits: what the form says of acceptable files. options: fields to send with each of them.
  // openResult: makes the article of a result live.
  constructor({ limits, options, action, openResult }) {
    this.limits = limits;
    this.options = options;
    this.action = action;
    this.openResult = openResult;
    this.items = [];
    this.key = crypto.getRandomValues(new Uint32Array(4)).join("");
    this.main = document.getElementById("worklist").content.firstElementChild.cloneNode(true);
    for (const element of this.main.querySelectorAll("[data-role]")) {
      this[`$${element.dataset.role}`] = element;
    }
    this.$add.addEventListener("change", () => {
      this.add([...this.$add.files]);
      this.$add.value = "";
    });
    this.$order.addEventListener("change", () => this.arrange());
    this.$names.addEventListener("change", () => {
      for (const item of this.items) {
        item.$label.textContent = this.label(item);
      }
    });
    this["$save-csv"].addEventListener("click", () => this.saveCsv());
    this["$save-json"].addEventListener("click", () => this.saveJson());
    this.$items.addEventListener("keydown", (event) => this.arrows(event));
    this.$previous.addEventListener("click", () => this.step(-1));
    this.$next.addEventListener("click", () => this.step(1));
    this["$to-list"].addEventListener("click", () => this.chosen.$open.focus());
    this.main.addEventListener("drop", async (event) => this.add(await filesOf(event.dataTransfer)));
  }

  add(files) {
    const left = files.filter((file) => complaint(file, this.limits));
    this["$left-out"].textContent = left.length
      ? say("left_out", { count: left.length, why: complaint(left[0], this.limits) })
      : "";
    for (const file of files.filter((file) => !left.includes(file))) {
      this.items.push(this.item(file));
    }
    this.arrange();
    this.work();
  }

  item(file) {
    const element = document.getElementById("worklist-item").content.firstElementChild.cloneNode(true);
    const item = {
      number: this.items.length + 1, file, options: this.options, element, state: "waiting", tries: 0,
    };
    for (const part of element.querySelectorAll("[data-role]")) {
      item[`$${part.dataset.role}`] = part;
    }
    item.$open.addEventListener("click", () => {
      this.choose(item);
      const { top } = this.$steps.getBoundingClientRect();
      if (top > window.innerHeight / 2) {
        this.$steps.scrollIntoView(); // on a phone the result is below the list
      }
    });
    item.$retry.addEventListener("click", () => {
      item.tries = 0;
      if (item.problem?.code === OTHER_BODY_PART) {
        item.options = withOtherBodyPart(item.options);
      }
      this.set(item, "waiting");
      this.work();
    });
    this.set(item, "waiting");
    return item;
  }

  work() {
    const waiting = this.items.filter((item) => item.state === "waiting");
    for (const item of waiting.slice(0, Math.max(0, AT_ONCE - running))) {
      this.run(item);
    }
    this.summarise();
  }

  async run(item) {
    running += 1;
    this.set(item, "running", say("uploading", { percent: 0 }));
    const form = formOf(item.file, [...item.options, ["grouping_key", this.key]]);
    try {
      const answer = await analyse(this.action, form, (share) => {
        const done = share < 1 ? say("uploading", { percent: Math.round(100 * share) }) : say("analysing");
        this.set(item, "running", done);
      });
      const busy = [429, 503].includes(answer.status) && answer.retryAfter <= LONGEST_REST_S;
      if (busy && answer.retryAfter && item.tries < BUSY_TRIES) {
        item.tries += 1;
        this.set(item, "resting", say("busy"));
        setTimeout(() => {
          this.set(item, "waiting");
          this.work();
        }, 1000 * answer.retryAfter);
      } else {
        this.finish(item, answer);
      }
    } catch (error) {
      item.problem = { code: "network", message: error.userMessage ?? say("network") };
      this.set(item, "failed", item.problem.message);
    }
    running -= 1;
    this.work();
  }

  finish(item, { ok, page }) {
    const main = document.adoptNode(page.querySelector("main"));
    item.article = main.firstElementChild;
    if (!ok) {
      const notice = main.querySelector(".notice-bad");
      const message = notice?.querySelector("h1").textContent ?? "";
      item.article = notice;
      item.problem = { code: notice?.dataset.code ?? "", message };
      this.set(item, "failed", message);
      return;
    }
    item.problem = null;
    item.answer = JSON.parse(item.article.querySelector("#analysis").textContent);
    item.article.querySelector(".leave").remove();
    this.thumbnail(item);
    const { decision, probability } = item.answer;
    this.set(item, "done", `${say(decision)} ${probability.toFixed(2)}`);
    item.element.dataset.decision = decision;
    if (this.$order.value !== "dropped") {
      this.arrange();
    }
  }

  thumbnail(item) {
    const picture = item.article.querySelector("img.plain");
    const canvas = document.createElement("canvas");
    const scale = Math.min(THUMB.width / picture.width, THUMB.height / picture.height);
    [canvas.width, canvas.height] = [picture.width * scale, picture.height * scale];
    const copy = new Image();
    copy.addEventListener("load", () =>
      canvas.getContext("2d").drawImage(copy, 0, 0, canvas.width, canvas.height),
    );
    copy.src = picture.src;
    item.$thumb.replaceChildren(canvas);
  }

  set(item, state, text = say(state)) {
    item.state = state;
    item.element.dataset.state = state;
    item.$label.textContent = this.label(item);
    item.$state.textContent = text;
    item.$retry.hidden = state !== "failed";
    item.$retry.textContent = item.problem?.code === OTHER_BODY_PART ? say("anyway") : say("again");
    item.$open.disabled = !item.article;
    if (this.chosen === item && item.article) {
      this.choose(item);
    }
    this.showPlace();
  }

  // Without names unless asked for: those of files often are those of patients.
  label({ number, file, answer }) {
    const tags = Object.fromEntries((answer?.metadata ?? []).map((a) => [a.keyword, a.value]));
    const name = this.$names.checked ? file.name : "";
    const parts = [say("file_number", { number }), name, tags.BodyPartExamined, tags.ViewPosition];
    return parts.filter(Boolean).join(" · ");
  }

  // In the chosen order; images of one study side by side under a line of their own, those that
  // have no answer yet behind them.
  arrange() {
    const rank = ({ answer }) => (answer ? (answer.decision === "abnormal" ? 1 - answer.probability : 2) : 3);
    const group = ({ answer }) => answer?.grouping?.study ?? "";
    const sorted = [...this.items];
    const first = new Map();
    if (this.$order.value === "abnormal") {
      sorted.sort((a, b) => rank(a) - rank(b) || a.number - b.number);
    } else if (this.$order.value === "study") {
      for (const item of sorted) {
        first.set(group(item), Math.min(first.get(group(item)) ?? Infinity, item.number));
      }
      const inStudy = ({ answer, number }) => [
        answer?.grouping?.series_number ?? Infinity, answer?.grouping?.instance_number ?? Infinity, number,
      ];
      sorted.sort((a, b) => {
        if (group(a) !== group(b)) {
          return !group(a) - !group(b) || first.get(group(a)) - first.get(group(b));
        }
        const [left, right] = [inStudy(a), inStudy(b)];
        const n = left.findIndex((value, at) => value !== right[at]);
        return n < 0 ? 0 : left[n] - right[n];
      });
    }
    const focused = document.activeElement;
    const studies = [...first.keys()].filter(Boolean);
    const rows = [];
    sorted.forEach((item, n) => {
      if (studies.length && item.answer && (n === 0 || group(item) !== group(sorted[n - 1]))) {
        const line = document.createElement("li");
        line.className = "item-study";
        line.textContent = group(item)
          ? say("study_number", { number: studies.indexOf(group(item)) + 1 })
          : say("no_study");
        rows.push(line);
      }
      rows.push(item.element);
    });
    this.$items.replaceChildren(...rows);
    this.sorted = sorted;
    this.showPlace();
    if (this.$items.contains(focused)) {
      focused.focus({ preventScroll: true });
    }
  }

  choose(item) {
    this.chosen?.$open.removeAttribute("aria-current");
    this.chosen = item;
    item.$open.setAttribute("aria-current", "true");
    if (this.$shown.firstElementChild !== item.article) {
      this.$shown.replaceChildren(item.article);
    }
    if (item.answer && !item.live && this.main.isConnected) {
      const source = { file: async () => item.file, options: item.options, number: item.number };
      this.openResult(item.article, source);
      item.live = true;
    }
    this.showPlace();
  }

  arrows(event) {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (by) {
      event.preventDefault();
      this.step(by)?.$open.focus();
    }
  }

  // To another file that has an answer; undefined where there is none.
  step(by) {
    const next = this.neighbour(by);
    if (next) {
      this.choose(next);
    }
    return next;
  }

  neighbour(by) {
    const open = this.sorted.filter((item) => item.article);
    return open[open.indexOf(this.chosen) + by];
  }

  // Of the chosen file in the list, on buttons that a phone needs, where the list is out of sight.
  showPlace() {
    if (this.chosen) {
      const number = this.sorted.indexOf(this.chosen) + 1;
      this.$place.textContent = say("place", { number, all: this.items.length });
      this.$steps.hidden = false;
      this.$previous.setAttribute("aria-disabled", !this.neighbour(-1));
      this.$next.setAttribute("aria-disabled", !this.neighbour(1));
    }
  }

  summarise() {
    const count = (test) => this.items.filter(test).length;
    const values = {
      all: this.items.length,
      done: count((item) => item.state === "done" || item.state === "failed"),
      abnormal: count((item) => item.answer?.decision === "abnormal"),
      failed: count((item) => item.state === "failed"),
    };
    this.$summary.textContent = say("summary", values);
  }

  rows() {
    const studies = [...new Set(this.items.map((item) => item.answer?.grouping?.study).filter(Boolean))];
    return this.items.map(({ number, file, answer, problem }) => {
      const tags = Object.fromEntries((answer?.metadata ?? []).map((a) => [a.keyword, a.value]));
      const findings = answer?.detection.findings ?? [];
      return {
        file: number,
        ...(this.$names.checked ? { name: file.name } : {}),
        study: studies.indexOf(answer?.grouping?.study) + 1 || "",
        region: tags.BodyPartExamined ?? "",
        view: tags.ViewPosition ?? "",
        decision: answer?.decision ?? "",
        probability: answer?.probability ?? "",
        threshold: answer?.threshold ?? "",
        near_cutoff: answer?.review.near_cutoff ?? "",
        firm: answer ? findings.filter((f) => f.status === "firm").length : "",
        tentative: answer ? findings.filter((f) => f.status === "tentative").length : "",
        classes: [...new Set(findings.map((f) => f.label))].join("; "),
        error: problem?.code ?? "",
        message: problem?.message ?? "",
        caveat: answer?.bundle.caveat ?? "",
      };
    });
  }

  // With a byte order mark, by which spreadsheets know UTF-8.
  saveCsv() {
    const rows = this.rows();
    const lines = [Object.keys(rows[0] ?? {}), ...rows.map((row) => Object.values(row))];
    const text = lines.map((line) => line.map(quoted).join(",")).join("\r\n");
    save(new Blob([`\ufeff${text}\r\n`], { type: "text/csv" }), "spinexr-worklist.csv");
  }

  saveJson() {
    const list = this.items.map(({ number, file, answer, problem }) => ({
      file: number,
      ...(this.$names.checked ? { name: file.name } : {}),
      ...(problem ? { error: problem } : { analysis: answer ?? null }),
    }));
    const text = `${JSON.stringify(list, null, 2)}\n`;
    save(new Blob([text], { type: "application/json" }), "spinexr-worklist.json");
  }
}

// A field of a CSV (RFC 4180). What a spreadsheet would take for a formula is made a text.
function quoted(value) {
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// The files that were dropped, those in folders too.
export async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) {
    return [...transfer.files];
  }
  return (await Promise.all(entries.map(below))).flat();
}

async function below(entry) {
  if (entry.isFile) {
    return [await new Promise((done, failed) => entry.file(done, failed))];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    // A reader gives at most a hundred entries at a time.
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) {
      break;
    }
    found.push(...some);
  }
  found.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  return (await Promise.all(found.map(below))).flat();
}
