"""summary.html: what a result set holds, on one page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from spinexr import DISCLAIMER, __version__

BINS = 20
COLUMNS = ("decision", "probability", "threshold", "near_cutoff", "duplicate_of", "findings")
_WIDTH, _HEIGHT, _BASE = 640, 160, 20
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem 1rem .25rem 0;"
    "text-align:left;border-bottom:1px solid #ccc;vertical-align:top}td+td{text-align:right}"
    ".caveat{border-left:4px solid #c60;padding-left:.75rem}svg{max-width:100%;height:auto}"
)


@dataclass(slots=True)
class Counts:
    """What is counted over the rows; `histogram`: answers by probability, in BINS equal bins."""

    answered: int = 0
    abnormal: int = 0
    near_cutoff: int = 0
    duplicates: int = 0
    threshold: float | None = None
    histogram: list[int] = field(default_factory=lambda: [0] * BINS)
    findings: dict[str, int] = field(default_factory=dict)

    @property
    def normal(self) -> int:
        return self.answered - self.abnormal


def count(batches: Iterable[Mapping[str, list[Any]]]) -> Counts:
    """Count over batches of COLUMNS; memory does not grow with them."""
    counts = Counts()
    for batch in batches:
        counts.answered += len(batch["decision"])
        counts.abnormal += sum(d == "abnormal" for d in batch["decision"])
        counts.near_cutoff += sum(map(bool, batch["near_cutoff"]))
        counts.duplicates += sum(d is not None for d in batch["duplicate_of"])
        for probability in batch["probability"]:
            counts.histogram[min(BINS - 1, int(probability * BINS))] += 1
        for findings in batch["findings"]:
            for label in {f["label"] for f in findings or ()}:
                counts.findings[label] = counts.findings.get(label, 0) + 1
        if batch["threshold"]:
            counts.threshold = batch["threshold"][0]
    return counts


def as_html(
    counts: Counts,
    *,
    failures: Mapping[str, int],
    waiting: int,
    active_s: float,
    identity: Mapping[str, Any],
    caveat: str | None,
) -> str:
    """The page.

    Args:
        failures: inputs without an answer, by code.
        waiting: inputs that are known and not done.
        active_s: seconds that the batch ran.
    """
    done = counts.answered + sum(failures.values())
    rows = {
        "Answered": f"{counts.answered:,}",
        "Abnormal": f"{counts.abnormal:,}",
        "Normal": f"{counts.normal:,}",
        "Near the cut-off": f"{counts.near_cutoff:,}",
        "Same instance as another input": f"{counts.duplicates:,}",
        "Failed": f"{sum(failures.values()):,}",
        "Waiting": f"{waiting:,}",
        "Hours of work": f"{active_s / 3600:.2f}",
        "Inputs a second": f"{done / active_s:.2f}" if active_s > 0 else "–",
    }
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><title>SpineXR batch</title>',
        f"<style>{_STYLE}</style></head><body><h1>SpineXR batch</h1>",
        f"<p><strong>{escape(DISCLAIMER)}</strong></p>",
    ]
    if caveat:
        parts.append(f'<p class="caveat">{escape(caveat)}</p>')
    if waiting:
        parts.append("<p>The batch is not finished: <code>--resume</code> goes on.</p>")
    parts += [_table(rows), "<h2>Probability of “abnormal”</h2>", _histogram(counts)]
    if counts.findings:
        ordered = sorted(counts.findings.items(), key=lambda item: (-item[1], item[0]))
        parts += [
            "<h2>Images with findings</h2>",
            _table({label: f"{number:,}" for label, number in ordered}),
        ]
    if failures:
        parts += [
            "<h2>Failures</h2>",
            _table({code: f"{number:,}" for code, number in failures.items()}),
            "<p>failures.parquet names each with its message.</p>",
        ]
    about = {name.replace("_", " "): str(value) for name, value in identity.items()}
    parts += [
        "<h2>What answered</h2>",
        _table({**about, "software": f"SpineXR {__version__}"}),
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _table(rows: Mapping[str, str]) -> str:
    lines = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows.items()
    )
    return f"<table>{lines}</table>"


def _histogram(counts: Counts) -> str:
    highest = max(counts.histogram) or 1
    step = _WIDTH / BINS
    bars = []
    for n, number in enumerate(counts.histogram):
        height = number / highest * (_HEIGHT - _BASE)
        low, high = n / BINS, (n + 1) / BINS
        bars.append(
            f'<rect x="{n * step + 1:.1f}" y="{_HEIGHT - _BASE - height:.1f}" '
            f'width="{step - 2:.1f}" height="{height:.1f}" fill="#47a">'
            f"<title>{low:.2f}–{high:.2f}: {number:,}</title></rect>"
        )
    if counts.threshold is not None:
        x = counts.threshold * _WIDTH
        bars.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{_HEIGHT - _BASE}" stroke="#c30" '
            f'stroke-dasharray="4 3"><title>cut-off {counts.threshold:g}</title></line>'
        )
    labels = "".join(
        f'<text x="{v * _WIDTH:.0f}" y="{_HEIGHT - 4}" font-size="12" text-anchor="{anchor}">'
        f"{v:g}</text>"
        for v, anchor in ((0, "start"), (0.5, "middle"), (1, "end"))
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="Answers by probability, from 0 to 1">{"".join(bars)}{labels}</svg>'
    )
