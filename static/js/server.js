// Requests to the server. Nothing is stored there, so a file is sent again for its pixels and objects.

import { say } from "./texts.js";

// A page, as {ok, status, page}: a result, or a refusal in words.
export async function analyse(action, form, onProgress = () => {}) {
  const answer = await post(action, form, "text/html", "document", onProgress);
  return { ok: answer.status === 200, status: answer.status, retryAfter: answer.retryAfter, page: answer.body };
}

// The body of /pixels. An error that it throws has a `userMessage` where the server gave one.
export function fetchPixels(file, options) {
  // /pixels asks what /upload asks, or passes it over.
  return fetchBytes(document.body.dataset.pixels, file, options, "application/vnd.spinexr.pixels");
}

// A DICOM object of the file: "report", "presentation" or "picture". Throws as fetchPixels does.
export function fetchObject(file, options, kind) {
  return fetchBytes(document.body.dataset.upload, file, [...options, ["object", kind]], "application/dicom");
}

async function fetchBytes(address, file, options, type) {
  const answer = await post(address, formOf(file, options), `${type}, application/problem+json`, "arraybuffer");
  if (answer.status !== 200) {
    const problem = JSON.parse(new TextDecoder().decode(answer.body));
    throw Object.assign(new Error(problem.code), { userMessage: problem.detail });
  }
  return answer.body;
}

// What is sent of a file.
export function formOf(file, options) {
  const form = new FormData();
  for (const [name, value] of [...options, ["file", file]]) {
    form.set(name, value);
  }
  return form;
}

// The options of a file that is to be analysed whatever part of the body it names.
export function withOtherBodyPart(options) {
  return [...options.filter(([name]) => name !== "allow_other_body_part"), ["allow_other_body_part", "1"]];
}

function post(action, form, accept, responseType, onProgress = () => {}) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open("POST", action);
    request.setRequestHeader("Accept", accept);
    // On a page of somebody who logged in; the header of the page always has it.
    const token = document.querySelector("[name='csrf_token']")?.value;
    if (token) {
      request.setRequestHeader("X-CSRFToken", token);
    }
    request.responseType = responseType;
    request.upload.addEventListener("progress", ({ loaded, total }) => onProgress(loaded / total));
    request.addEventListener("load", () =>
      done({
        status: request.status,
        body: request.response,
        retryAfter: Number(request.getResponseHeader("Retry-After")) || 0,
      }),
    );
    const lost = () => failed(Object.assign(new Error("network"), { userMessage: say("network") }));
    request.addEventListener("error", lost);
    request.addEventListener("abort", lost);
    request.send(form);
  });
}
