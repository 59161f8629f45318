// Drop and size check for the upload form. Without this script it is a plain form.
"use strict";

const form = document.getElementById("upload");
const input = document.getElementById("file");
const button = form.querySelector("button");
const problem = document.getElementById("problem");
const progress = document.getElementById("progress");
const maxBytes = Number(form.dataset.maxBytes);
const extensions = form.dataset.extensions.split(" ");

form.classList.add("drop-active");
form.querySelector(".drop-hint").hidden = false;

// What keeps a file from being sent, in words; empty when nothing does.
function complaint(file) {
  if (file.size > maxBytes) {
    const size = (file.size / 1048576).toFixed(1);
    return `This file has ${size} MB; at most ${form.dataset.maxMb} MB are accepted.`;
  }
  if (file.size === 0) {
    return "This file is empty.";
  }
  const suffix = /\.[^.]*$/.exec(file.name)?.[0].toLowerCase() ?? "";
  // The end of a UID such as 1.2.840.10008 is no extension.
  if (suffix && !extensions.includes(suffix) && !/^\d+(\.\d+)+$/.test(file.name)) {
    return `This is a ${suffix} file. Choose a DICOM file: ${extensions.join(", ")} or no extension.`;
  }
  return "";
}

function check() {
  const file = input.files[0];
  problem.textContent = file ? complaint(file) : "";
  return Boolean(file) && !problem.textContent;
}

// The page is left by an ordinary form post, so Back, reload and the address bar behave as ever.
function send() {
  progress.textContent = "Analysing. This takes a few seconds.";
  button.disabled = true;
  form.submit();
}

input.addEventListener("change", () => {
  if (check()) {
    send();
  }
});

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (check()) {
    send();
  }
});

// A file dropped beside the form must not replace the page by a download of itself.
for (const type of ["dragover", "drop"]) {
  window.addEventListener(type, (event) => event.preventDefault());
}
form.addEventListener("dragover", () => form.classList.add("drop-over"));
form.addEventListener("dragleave", () => form.classList.remove("drop-over"));
form.addEventListener("drop", (event) => {
  form.classList.remove("drop-over");
  const files = event.dataTransfer.files;
  if (files.length > 1) {
    problem.textContent = "Drop one file at a time.";
    return;
  }
  if (files.length === 1) {
    input.files = files;
    if (check()) {
      send();
    }
  }
});

// Coming back with the Back button shows the page as it was left.
window.addEventListener("pageshow", () => {
  button.disabled = false;
  progress.textContent = "";
});
