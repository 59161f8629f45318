"""Judgement → metrics.json, a Markdown table, and one self-contained HTML page."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from html import escape
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no screen is needed to draw to a file

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from spinexr import DISCLAIMER, __version__
from spinexr.evaluation.classification import Classification, Confusion, Estimate
from spinexr.evaluation.detection import IOU_DEFINITION, Detection
from spinexr.evaluation.judge import Judgement, flat

_METRICS = ("auroc", "ap", "f1", "sensitivity", "specificity")

# What was published on the test set of VinDr-SpineXR, with what must be said beside it.
PUBLISHED = (
    (
        "Nguyen et al., MICCAI 2021: 3 DenseNets + Sparse R-CNN",
        "0.8861 (0.8719–0.9002)",
        "0.8106",
        "0.8307",
        "0.7932",
        "0.3315; fused 0.3356",
        "threshold by Youden's index",
    ),
    (
        "same, classifier averaged with the highest box score",
        "≈ 0.902",
        "+0.0046",
        "",
        "",
        "",
        "",
    ),
    (
        "the ensemble with weights 0.42 / 0.26 / 0.32 as first published",
        "0.9103",
        "0.8309",
        "0.8491",
        "0.8168",
        "mAP50-95 0.1899",
        "member weights, threshold and checkpoints were picked on the test set",
    ),
)


def as_json(judgement: Judgement, context: dict[str, object]) -> str:
    """metrics.json: `context` (what was judged) and the flat metrics."""
    return json.dumps({**context, **flat(judgement)}, indent=2, ensure_ascii=False) + "\n"


def as_markdown(judgement: Judgement, context: dict[str, object]) -> str:
    """The table of this evaluation beside the published rows."""
    rows = [_row(name, result) for name, result in judgement.scores.items()]
    head = ["score", "AUROC", "AP", "F1", "sensitivity", "specificity", "ECE"]
    parts = [
        f"{context.get('bundle', 'predictions')} on {context.get('data', '')}: "
        f"{judgement.scores['ensemble'].images} images, "
        f"{judgement.scores['ensemble'].abnormal} abnormal, "
        f"{len(judgement.unanswered)} not answered; cut-off {judgement.threshold:g}; "
        "95 % intervals from bootstraps of whole studies.",
        _markdown_table(head, rows),
    ]
    if judgement.detector_alone and judgement.detector_fused:
        parts.append(
            _markdown_table(
                ["boxes", "mAP50", "mAP50-95", *judgement.detector_alone.ap50],
                [
                    _detection_row("detector alone", judgement.detector_alone),
                    _detection_row("VinDr fusion", judgement.detector_fused),
                ],
            )
        )
        parts.append(IOU_DEFINITION)
    parts.append("Published on the test set of VinDr-SpineXR, which is another set than any other:")
    parts.append(
        _markdown_table(
            ["system", "AUROC", "F1", "sensitivity", "specificity", "mAP50", "remark"],
            [list(row) for row in PUBLISHED],
        )
    )
    return "\n\n".join(parts) + "\n"


def as_html(
    judgement: Judgement,
    context: dict[str, object],
    *,
    abnormal: Sequence[bool],
    scores: dict[str, Sequence[float]],
    problems: Sequence[str],
) -> str:
    """One page without anything outside it.

    Args:
        abnormal, scores: the answered images' truth and each score, for the curves.
        problems: what was left out of the evaluation, a line each.
    """
    ensemble = judgement.scores["ensemble"]
    sections = [
        _section("What was judged", _definition_list(context)),
        _section(
            "Normal or abnormal",
            _html_table(
                ["score", "AUROC", "AP", "F1", "sensitivity", "specificity", "ECE"],
                [_row(name, result) for name, result in judgement.scores.items()],
            )
            + _figure(_curves(np.asarray(abnormal), scores), "ROC and precision–recall curves")
            + _figure(_reliability(judgement.scores), "Reliability in ten bins of equal mass")
            + _confusion(ensemble.confusion),
        ),
    ]
    if judgement.detector_alone and judgement.detector_fused:
        sections.append(
            _section(
                "Lesions",
                f"<p>{escape(IOU_DEFINITION)}</p>"
                + _html_table(
                    ["boxes", "mAP50", "mAP50-95", *judgement.detector_alone.ap50],
                    [
                        _detection_row("detector alone", judgement.detector_alone),
                        _detection_row("VinDr fusion", judgement.detector_fused),
                    ],
                )
                + f"<p>VinDr fusion: boxes of images called normal stay only from "
                f"{judgement.on_normal_confidence:g}.</p>"
                + _figure(_froc(judgement), "FROC at IoU 0.5"),
            )
        )
    for dimension, groups in judgement.subgroups.items():
        sections.append(
            _section(
                f"By {dimension}",
                _html_table(
                    ["group", "images", *(m.upper() if m in ("auroc", "ap", "f1") else m
                                          for m in _METRICS), "ECE"],
                    [[g, str(r.images), *_row(g, r)[1:]] for g, r in groups.items()],
                ),
            )
        )  # fmt: skip
    sections.append(
        _section(
            "Published on VinDr-SpineXR",
            _html_table(
                ["system", "AUROC", "F1", "sensitivity", "specificity", "mAP50", "remark"],
                [list(row) for row in PUBLISHED],
            ),
        )
    )
    left_out = [*problems, *(f"{i}: {code}" for i, code in judgement.unanswered.items())]
    if left_out:
        items = "".join(f"<li>{escape(p)}</li>" for p in left_out)
        sections.append(_section(f"Left out ({len(left_out)})", f"<ul>{items}</ul>"))
    return _PAGE.format(
        title=escape(f"Evaluation of {context.get('bundle', 'predictions')}"),
        sections="".join(sections),
        foot=escape(f"SpineXR {__version__}. {DISCLAIMER}"),
    )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
       color: #14202c; background: #fff; }}
table {{ border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8494a6; }}
th {{ font-weight: 600; }} img {{ max-width: 100%; }} figure {{ margin: 1rem 0; }}
figcaption, footer {{ color: #46566a; }} .wide {{ overflow-x: auto; }}
dt {{ font-weight: 600; }} dd {{ margin: 0 0 .4rem; overflow-wrap: anywhere; }}
</style></head>
<body><h1>{title}</h1>{sections}<footer><p>{foot}</p></footer></body></html>
"""


def _row(name: str, result: Classification) -> list[str]:
    return [name, *(_estimate(result.estimates.get(m)) for m in _METRICS), f"{result.ece:.3f}"]


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None or np.isnan(estimate.value):
        return "–"
    return f"{estimate.value:.3f} ({estimate.low:.3f}–{estimate.high:.3f})"


def _detection_row(name: str, found: Detection) -> list[str]:
    values = [found.map50, found.map50_95, *found.ap50.values()]
    return [name, *("–" if np.isnan(v) else f"{v:.3f}" for v in values)]


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col">{escape(h)}</th>' for h in head)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _definition_list(values: dict[str, object]) -> str:
    items = "".join(
        f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in values.items()
    )
    return f"<dl>{items}</dl>"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _confusion(c: Confusion | None) -> str:
    if c is None:
        return ""
    return _html_table(
        ["ensemble at the cut-off", "called abnormal", "called normal"],
        [
            ["abnormal", str(c.true_positive), str(c.false_negative)],
            ["normal", str(c.false_positive), str(c.true_negative)],
        ],
    )


def _figure(figure: Any, caption: str) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _curves(abnormal: Any, scores: dict[str, Sequence[float]]) -> Any:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6))
    if abnormal.any() and not abnormal.all():
        for name, values in scores.items():
            fpr, tpr, _ = roc_curve(abnormal, values)
            precision, recall, _ = precision_recall_curve(abnormal, values)
            left.plot(fpr, tpr, label=name)
            right.plot(recall, precision, label=name)
        left.legend(fontsize=8)
    left.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    left.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1))
    right.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1))
    return figure


def _reliability(scores: dict[str, Classification]) -> Any:
    figure, axis = plt.subplots(figsize=(4.8, 4.6))
    for name, result in scores.items():
        axis.plot(
            [b.mean_score for b in result.reliability],
            [b.abnormal_share for b in result.reliability],
            marker="o",
            markersize=3,
            label=name,
        )
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    axis.set(xlabel="mean score", ylabel="share of abnormals", xlim=(0, 1), ylim=(0, 1))
    axis.legend(fontsize=8)
    return figure


def _froc(judgement: Judgement) -> Any:
    figure, axis = plt.subplots(figsize=(4.8, 3.6))
    for name, found in (
        ("detector alone", judgement.detector_alone),
        ("VinDr fusion", judgement.detector_fused),
    ):
        if found is not None:
            axis.plot(list(found.froc), list(found.froc.values()), marker="o", label=name)
    axis.set(xlabel="false positives per image", ylabel="share of lesions found", ylim=(0, 1))
    axis.set_xscale("log", base=2)
    axis.legend(fontsize=8)
    return figure
