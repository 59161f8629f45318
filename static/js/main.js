// The page with scripts: files are sent without leaving it, so that a result can be looked at in
// full depth. Without scripts every form of it is a plain form.

import { complaint } from "./files.js";
import { linkFindings, shownFindings } from "./findings.js";
import { saveJson, saveObject, savePng } from "./save.js";
import { analyse, fetchObject, fetchPixels, formOf, withOtherBodyPart } from "./server.js";
import { remember } from "./settings.js";
import { say } from "./texts.js";
import { Viewer } from "./viewer.js";
import { Worklist, filesOf } from "./worklist.js";

const results = new WeakMap(); // by their article: the viewer, and where the file is
const views = new Map(); // by number in the history: what <main> was, and the title
let shown = 0;
let front = null; // the form's page and what takes files for it, once there is one
let requests = 0; // sent so far: of two, the later one is what is waited for
history.replaceState({ view: shown }, "");

enhance(document.querySelector("main"), null);
offerThemes(document.querySelector("[data-role='theme']"));

window.addEventListener("popstate", ({ state }) => {
  if (!state || state.view === shown) {
    return; // a jump within the page
  }
  const view = views.get(state.view);
  if (!view) {
    location.reload();
    return;
  }
  keep();
  shown = state.view;
  replaceMain(view);
});

// Show a page that the server answered with; `source` gives the file that it speaks of.
function show(page, source) {
  const main = document.adoptNode(page.querySelector("main"));
  open(main, page.title);
  enhance(main, source);
}

// A further view in the history of this page.
function open(main, title) {
  keep();
  shown += 1;
  history.pushState({ view: shown }, "");
  replaceMain({ main, title });
  window.scrollTo(0, 0);
  const heading = main.querySelector("h1");
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
}

function keep() {
  views.set(shown, { main: document.querySelector("main"), title: document.title });
}

function replaceMain({ main, title }) {
  document.querySelector("main").replaceWith(main);
  document.title = title;
}

function enhance(main, source) {
  const form = main.querySelector("#upload");
  if (form) {
    enhanceUpload(form);
  }
  for (const sample of main.querySelectorAll("form[data-sample]")) {
    sample.addEventListener("submit", (event) => {
      event.preventDefault();
      const file = async () => new File([await (await fetch(sample.dataset.sample)).blob()], "sample.dcm");
      send(sample.action, new FormData(), { file, options: [] }, statusOf(main));
    });
  }
  const anyway = main.querySelector("[data-action='anyway']");
  if (anyway && source) {
    anyway.hidden = false;
    anyway.addEventListener("click", async () => {
      const [file, options] = [await source.file(), withOtherBodyPart(source.options)];
      anyway.disabled = true;
      await send(document.body.dataset.upload, formOf(file, options), { file: async () => file, options }, statusOf(main));
      anyway.disabled = false;
    });
  }
  const result = main.querySelector(".result");
  if (result) {
    enhanceResult(result, source);
  }
}

function enhanceResult(result, source) {
  const answer = JSON.parse(result.querySelector("#analysis").textContent);
  const viewer = new Viewer(result.querySelector(".viewer"), {
    millimetres: answer.image.pixel_spacing,
    fetchPixels: source && (async () => fetchPixels(await source.file(), source.options)),
  });
  linkFindings(result, viewer, answer.detection.findings);
  results.set(result, { viewer, number: source?.number });
  const downloads = result.querySelector("[data-role='downloads']");
  const trouble = result.querySelector("[data-role='download-trouble']");
  downloads.hidden = false;
  for (const button of downloads.querySelectorAll("[data-action='save-png'], [data-action='save-dicom']")) {
    button.disabled = !source;
  }
  downloads.addEventListener("click", (event) => {
    const action = event.target.dataset.action;
    if (action === "save-json") {
      saveJson(answer, source?.number);
    } else if (action === "print") {
      window.print();
    } else if (action === "save-png") {
      const { caveat, disclaimer } = result.dataset;
      const words = { headline: result.querySelector("h1").textContent, caveat, disclaimer };
      const shown = shownFindings(result);
      savePng({ viewer, answer, shown, words, number: source.number }).then((saved) => {
        trouble.textContent = saved ? "" : say("no_pixels");
      });
    } else if (action === "save-dicom") {
      fetchAndSave(event.target, source, trouble);
    }
  });
}

// Whatever prints: which file of a list it is, when, and how the image was looked at.
window.addEventListener("beforeprint", () => {
  const result = document.querySelector(".result");
  const { viewer, number } = results.get(result) ?? {};
  if (viewer) {
    const now = new Date().toLocaleString(document.documentElement.lang);
    const parts = [number ? say("file_number", { number }) : "", now, ...viewer.view()];
    result.querySelector("[data-role='printed']").textContent = parts.filter(Boolean).join(" · ");
  }
});

async function fetchAndSave(button, source, trouble) {
  const kind = button.dataset.object;
  button.disabled = true;
  try {
    saveObject(await fetchObject(await source.file(), source.options, kind), kind, source.number);
    trouble.textContent = "";
  } catch (error) {
    trouble.textContent = error.userMessage ?? say("no_object");
  }
  button.disabled = false;
}

function offerThemes(button) {
  const root = document.documentElement;
  const name = () => {
    button.textContent = root.dataset.theme === "dark" ? say("light") : say("dark");
  };
  button.addEventListener("click", () => {
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    remember("spinexr.theme", root.dataset.theme);
    name();
  });
  name();
  button.hidden = false;
}

async function send(action, form, source, status) {
  requests += 1;
  const mine = requests;
  status.busy(say("analysing"));
  try {
    const { page } = await analyse(action, form, (share) => {
      if (mine === requests) {
        status.busy(share < 1 ? say("uploading", { percent: Math.round(100 * share) }) : say("analysing"));
      }
    });
    if (mine === requests) {
      show(page, source);
      status.idle();
    }
  } catch (error) {
    if (mine === requests) {
      status.failed(error.userMessage ?? say("network"));
    }
  }
}

function statusOf(main) {
  const [problem, progress] = [main.querySelector("#problem"), main.querySelector("#progress")];
  const buttons = main.querySelectorAll("form button");
  const set = (trouble, text, busy) => {
    if (problem) {
      [problem.textContent, progress.textContent] = [trouble, text];
      if (trouble) {
        problem.scrollIntoView({ block: "nearest" }); // on a phone it may be at the lower edge
      }
    }
    buttons.forEach((button) => {
      button.disabled = busy;
    });
  };
  return {
    busy: (text) => set("", text, true),
    failed: (text) => set(text, "", false),
    idle: () => set("", "", false),
  };
}

function enhanceUpload(form) {
  const input = form.querySelector("input[type='file']");
  const main = form.closest("main");
  form.classList.add("drop-active");
  form.querySelector(".drop-hint").hidden = false;

  const take = (files) => {
    const options = [...new FormData(form)].filter(([name]) => name !== "file");
    input.value = ""; // so that the same file can be chosen again
    if (files.length > 1) {
      requests += 1; // what was sent alone is waited for no longer
      statusOf(main).idle();
      const worklist = new Worklist({
        limits: form.dataset, options, action: form.action, openResult: enhanceResult,
      });
      open(worklist.main, say("worklist"));
      worklist.add(files);
      return;
    }
    const trouble = files.length ? complaint(files[0], form.dataset) : "";
    if (trouble) {
      statusOf(main).failed(trouble);
    } else if (files.length) {
      const file = files[0];
      const sent = new FormData(form);
      sent.set("file", file);
      send(form.action, sent, { file: async () => file, options }, statusOf(main));
    }
  };

  input.multiple = true;
  input.addEventListener("change", () => take([...input.files]));
  const folder = form.querySelector("[data-role='folder']");
  folder.closest("label").hidden = false;
  folder.addEventListener("change", () => {
    const files = [...folder.files];
    folder.value = "";
    take(files);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    take([...input.files]);
  });
  form.addEventListener("dragover", () => form.classList.add("drop-over"));
  form.addEventListener("dragleave", () => form.classList.remove("drop-over"));
  form.addEventListener("drop", () => form.classList.remove("drop-over"));
  front = { main, title: document.title, take };
}

// The way back to the form keeps what was seen in the history of this page.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a.brand, a[data-action='again']");
  const plain = !event.button && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
  if (link && plain && front && !front.main.isConnected) {
    event.preventDefault();
    open(front.main, front.title);
  }
});

// A list is nowhere but here: leaving it is asked about.
window.addEventListener("beforeunload", (event) => {
  keep();
  if ([...views.values()].some(({ main }) => main.querySelector(".worklist .item"))) {
    event.preventDefault();
  }
});

// A file dropped anywhere is taken, and never replaces the page by a download of itself.
window.addEventListener("dragover", (event) => event.preventDefault());
window.addEventListener("drop", async (event) => {
  event.preventDefault();
  if (document.querySelector(".worklist") || !front) {
    return; // the list takes it
  }
  const files = await filesOf(event.dataTransfer);
  if (files.length && !front.main.isConnected) {
    open(front.main, front.title);
  }
  front.take(files);
});
