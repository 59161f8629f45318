// Which files are worth sending.

import { say } from "./texts.js";

// What keeps a file from being sent, in words; empty when nothing does. `limits` as in the form.
export function complaint(file, { maxBytes, maxMb, extensions }) {
  if (file.size > Number(maxBytes)) {
    return say("too_large", { size: (file.size / 1048576).toFixed(1), limit: maxMb });
  }
  if (file.size === 0) {
    return say("empty");
  }
  const suffix = /\.[^.]*$/.exec(file.name)?.[0].toLowerCase() ?? "";
  // The end of a UID such as 1.2.840.10008 is no extension.
  if (suffix && !extensions.split(" ").includes(suffix) && !/^\d+(\.\d+)+$/.test(file.name)) {
    return say("extension", { suffix, accepted: extensions.split(" ").join(", ") });
  }
  return "";
}
