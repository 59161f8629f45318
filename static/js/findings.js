// Boxes over the image and rows of the table: linked both ways, shown or hidden together.

export function linkFindings(result, viewer, findings) {
  const boxes = new Map(all(result, "g[data-finding]"));
  const rows = new Map(all(result, "tr[data-finding]"));

  for (const [number, row] of rows) {
    const box = boxes.get(number);
    for (const [one, other] of [[row, box], [box, row]]) {
      for (const type of ["pointerenter", "focusin"]) {
        one.addEventListener(type, () => other.classList.add("linked"));
      }
      for (const type of ["pointerleave", "focusout"]) {
        one.addEventListener(type, () => other.classList.remove("linked"));
      }
    }
    const show = () => {
      viewer.show(findings[number - 1].box);
      viewer.root.scrollIntoView({ block: "nearest" }); // on a phone it is far above the table
    };
    box.addEventListener("choose", () => {
      row.focus({ preventScroll: true });
      viewer.hint(box.querySelector("title").textContent); // the table may be far below
    });
    box.setAttribute("role", "button");
    row.tabIndex = 0;
    row.addEventListener("click", show);
    for (const element of [row, box]) {
      element.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault(); // of scrolling
          show();
        }
      });
    }
  }

  const choice = result.querySelector("[data-role='classes']");
  if (choice) {
    choice.hidden = false;
    const confidence = choice.querySelector("[data-role='confidence']");
    const update = () => {
      const from = Number(confidence.value);
      choice.querySelector("output").textContent = from.toFixed(2);
      const classes = new Set(
        [...choice.querySelectorAll("[data-class]:checked")].map((box) => box.dataset.class),
      );
      findings.forEach((finding, n) => {
        const shown = classes.has(finding.label) && finding.confidence >= from;
        boxes.get(n + 1).toggleAttribute("hidden", !shown);
        rows.get(n + 1).classList.toggle("muted", !shown);
      });
    };
    choice.addEventListener("input", update);
  }
  linkLayers(result);
}

// The numbers of findings that are shown at present, from 1.
export function shownFindings(result) {
  return [...all(result, "g[data-finding]:not([hidden])")].map(([number]) => number);
}

function all(result, selector) {
  return [...result.querySelectorAll(selector)].map((e) => [Number(e.dataset.finding), e]);
}

// The heat's opacity, and a line left of which everything is drawn over the image.
function linkLayers(result) {
  const heat = result.querySelector("[data-role='heat']");
  const swipe = result.querySelector("[data-role='swipe']");
  const divider = result.querySelector("[data-role='divider']");
  const opacity = result.querySelector("[data-role='opacity']");
  if (opacity) {
    opacity.closest("label").hidden = false;
    opacity.addEventListener("input", () => {
      heat.style.opacity = opacity.value / 100;
    });
  }
  if (swipe) {
    swipe.closest("label").hidden = false;
    swipe.addEventListener("input", () => {
      const right = 100 - swipe.value;
      for (const layer of result.querySelectorAll(".layer")) {
        layer.style.clipPath = right ? `inset(0 ${right}% 0 0)` : "";
      }
      divider.hidden = !right;
      divider.style.left = `${swipe.value}%`;
    });
  }
}
