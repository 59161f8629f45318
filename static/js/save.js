// What people take with them: the annotated picture, drawn from the pixels, and the answer.

import { draw, greys } from "./pixels.js";

// Of a list, the number of the file in it is in the name; what a file itself is called is not.
const named = (number, what) => ["spinexr", number, what].filter(Boolean).join("-");

export function saveJson(answer, number) {
  const text = `${JSON.stringify(answer, null, 2)}\n`;
  save(new Blob([text], { type: "application/json" }), named(number, "result.json"));
}

export function saveObject(bytes, kind, number) {
  save(new Blob([bytes], { type: "application/dicom" }), named(number, `${kind}.dcm`));
}

// The image at full size through the present window, the boxes shown at present, and the answer
// in words below. Whether that could be done.
export async function savePng({ viewer, answer, shown, words, number }) {
  const picture = await viewer.load();
  if (!picture) {
    return false;
  }
  const { rows, columns } = picture.head;
  const grey = document.createElement("canvas");
  [grey.width, grey.height] = [columns, rows];
  draw(grey, picture, greys(picture, viewer.window, viewer.inverted));

  const side = Math.sqrt(rows * columns);
  const text = Math.max(12, Math.round(side / 70));
  const lines = [words.headline, words.caveat, words.disclaimer].filter(Boolean);
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d", { alpha: false });
  const font = `${text}px system-ui, sans-serif`;
  context.font = font;
  const wrapped = lines.flatMap((line) => wrap(context, line, columns - 2 * text));
  canvas.width = columns;
  canvas.height = rows + Math.round((wrapped.length * 1.4 + 1) * text);
  context.drawImage(grey, 0, 0);
  for (const one of [...shown].reverse()) { // the most confident last, so that they lie on top
    drawBox(context, viewer.root, one, answer.detection.findings[one - 1], side, text);
  }
  context.fillStyle = "#101216";
  context.fillRect(0, rows, columns, canvas.height - rows);
  context.fillStyle = "#ebeef2";
  context.font = font;
  wrapped.forEach((line, n) => context.fillText(line, text, rows + text * (1.6 + 1.4 * n)));
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  save(blob, named(number, "annotated.png"));
  return true;
}

function drawBox(context, root, number, finding, side, text) {
  const { x1, y1, x2, y2 } = finding.box;
  const shown = root.querySelector(`g[data-finding="${number}"]`);
  const colour = shown.querySelector(".box-line").getAttribute("stroke");
  const line = Math.max(2, Math.round(side / 500));
  context.setLineDash(finding.status === "tentative" ? [6 * line, 4 * line] : []);
  for (const [style, width] of [["#000", line + 2], [colour, line]]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  }
  const label = shown.querySelector("title").textContent; // in the page's language
  context.font = `${text}px system-ui, sans-serif`;
  const y = y1 > 1.5 * text ? y1 - 0.4 * text : y2 + 1.1 * text;
  const x = Math.max(0, Math.min(x1, context.canvas.width - context.measureText(label).width));
  context.setLineDash([]);
  context.lineJoin = "round";
  context.lineWidth = text / 4;
  context.strokeStyle = "#000";
  context.strokeText(label, x, y);
  context.fillStyle = colour;
  context.fillText(label, x, y);
}

function wrap(context, line, width) {
  const result = [""];
  for (const word of line.split(" ")) {
    const longer = `${result.at(-1)} ${word}`.trim();
    if (result.at(-1) && context.measureText(longer).width > width) {
      result.push(word);
    } else {
      result[result.length - 1] = longer;
    }
  }
  return result;
}

export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
