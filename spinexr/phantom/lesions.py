"""The seven classes of findings as changes of geometry, each with its box in the projection.

A finding changes vertebrae before they are placed, adds solids to the piece of a vertebra, or adds
pieces of its own. Severity runs from 0 (barely visible) to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from spinexr.domain import Box
from spinexr.phantom.anatomy import LEVELS, SACRAL, Groups, Patient, Vertebra, below
from spinexr.phantom.solids import Frame, Material, Vector, cone, plate, rotation, superquadric

_Rng = np.random.Generator
_SMALLEST_BOX_PX = 6.0
_EVIDENT = 0.35  # exponent of a uniform number: below 1 leans to the severe
_SEEN = 0.5  # least share of a facing direction that must lie in the plane of the film

Points = list[Vector]


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding to be: its class, where and how bad."""

    label: str
    level: str  # of the vertebra, or of the one above the disc
    severity: float


@dataclass(frozen=True, slots=True)
class Marks:
    """What a finding has left behind: points in the world around it, for its box.

    `margin` in mm is added around the projected points. A finding with a `facing` direction shows
    only where that direction lies near enough to the plane of the film: a spur at the front of a
    body is hidden by the body in a frontal view.
    """

    label: str
    points: Points
    margin: float = 0.0
    facing: Vector | None = None


@dataclass
class Changes:
    """Everything findings add to a scene."""

    joined: dict[str, list[Vector]] = field(default_factory=dict)  # to the piece of a vertebra
    pieces: Groups = field(default_factory=list)
    marks: list[Marks] = field(default_factory=list)


def draw(
    levels: Sequence[str], rng: _Rng, *, classes: Sequence[str], probabilities: Sequence[float],
    alone: bool = False,
) -> list[Finding]:  # fmt: skip
    """One to three kinds of findings at levels of the film, or one kind `alone`.

    What radiologists mark is evident more often than doubtful: severity ** (1 / _EVIDENT) is
    uniform, so that one finding in 23 is of the mildest third.
    """
    count = 1 if alone else int(rng.choice([1, 2, 3], p=[0.3, 0.4, 0.3]))
    kinds = rng.choice(
        len(classes), size=count, replace=False,
        p=np.asarray(probabilities) / np.sum(probabilities),
    )  # fmt: skip
    findings = []
    for kind in kinds:
        label = classes[int(kind)]
        several = int(rng.integers(2, 6)) if label == "Osteophytes" else int(rng.integers(1, 4))
        several = 1 if label == "Surgical implant" else several
        chosen = rng.choice(len(levels), size=min(several, len(levels)), replace=False)
        findings += [
            Finding(label, levels[int(n)], float(rng.random()) ** _EVIDENT) for n in chosen
        ]
    return findings


def change_vertebrae(
    findings: Sequence[Finding], vertebrae: dict[str, Vertebra], rng: _Rng
) -> None:
    """The part of findings that moves or shapes vertebrae; before they are placed."""
    for f in findings:
        v = vertebrae[f.level]
        s = f.severity
        if f.label == "Disc space narrowing":
            v.disc *= 0.62 - 0.42 * s
            v.sclerosis_below = 0.8 + 2.8 * s
        elif f.label == "Spondylolysthesis":
            shift = v.depth * (0.11 + 0.34 * s)
            kind = rng.random()
            if kind < 0.85:
                v.slip[1] = shift if kind < 0.7 else -0.7 * shift
                v.pars_gap = float(kind < 0.4 and v.lumbar)
            else:  # to a side
                v.slip[0] = shift * (0.6 if rng.random() < 0.5 else -0.6)
            v.disc *= 1 - 0.3 * s
        elif f.label == "Vertebral collapse":
            kind = rng.random()
            if kind < 0.55:  # wedge
                v.front *= 0.78 - 0.36 * s
                v.middle *= 0.92 - 0.2 * s
            elif kind < 0.8:  # biconcave
                v.middle *= 0.78 - 0.36 * s
            else:  # crush
                for part in ("front", "middle", "back"):
                    setattr(v, part, getattr(v, part) * (0.76 - 0.3 * s))
            v.bend = v.bend + np.array([4.0 + 8 * s, 0.0, 0.0]) * (kind < 0.55)
        elif f.label == "Foraminal stenosis":
            v.foramen = 0.68 - 0.43 * s


def apply(
    findings: Sequence[Finding], vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng
) -> Changes:
    """The part of findings that adds solids, and the marks of all; after placing."""
    changes = Changes()
    for f in findings:
        _BY_CLASS[f.label](f, vertebrae, patient, rng, changes)
    return changes


def dents(vertebrae: dict[str, Vertebra], levels: Sequence[str], rng: _Rng) -> Groups:
    """Schmorl-like dents of end-plates with a dense rim; a variant of normal, never marked."""
    pieces: Groups = []
    for level in levels:
        if rng.random() < 0.05:
            v = vertebrae[level]
            size = float(rng.uniform(2.0, 4.5)) * v.width / 45
            side = 1.0 if rng.random() < 0.5 else -1.0
            at = [rng.normal(0, v.width / 8), rng.normal(0, v.depth / 8), side * (v.middle / 2 - 1)]
            dent = superquadric(
                v.frame.at(at), [1.6 * size, 1.4 * size, size], Material(0.12, -0.10, 1.0)
            )
            pieces.append([dent])
    return pieces


def box_of(
    marks: Marks,
    project: Callable[[Vector], tuple[float, float]],
    *,
    across: Vector,
    pixel_mm: float,
    rows: int,
    columns: int,
) -> Box | None:
    """The box around projected marks, clipped to the film; None where too little of it shows.

    Args:
        across: unit vector of the film's horizontal axis in the world.
    """
    if marks.facing is not None:
        in_plane = np.hypot(float(marks.facing @ across), float(marks.facing[2]))
        if in_plane < _SEEN * np.linalg.norm(marks.facing):
            return None
    xy = np.array([project(p) for p in marks.points])
    margin = marks.margin / pixel_mm
    (x1, y1), (x2, y2) = xy.min(0) - margin, xy.max(0) + margin
    area = max(x2 - x1, 1e-6) * max(y2 - y1, 1e-6)
    x1, x2 = np.clip([x1, x2], 0, columns)
    y1, y2 = np.clip([y1, y2], 0, rows)
    if x2 - x1 < _SMALLEST_BOX_PX or y2 - y1 < _SMALLEST_BOX_PX:
        return None
    if (x2 - x1) * (y2 - y1) < 0.4 * area:
        return None
    return Box(float(x1), float(y1), float(x2), float(y2))


def _rims(v: Vertebra, *heights: float, grow: float = 1.0) -> Points:
    """Points around the outline of a body at local heights."""
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    c, s = np.cos(angles), np.sin(angles)
    around = (np.abs(c) ** 2.5 + np.abs(s) ** 2.5) ** (-1 / 2.5) * grow
    return [
        v.frame.point([v.width / 2 * r * x, v.depth / 2 * r * y, z])
        for z in heights
        for x, y, r in zip(c, s, around, strict=True)
    ]


def _osteophytes(
    f: Finding, vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng, changes: Changes
) -> None:
    """Spurs at the end-plate corners, beaks up or down, denser at the rim; some bridge a disc."""
    v, w = vertebrae[f.level], vertebrae[below(f.level)]
    k = v.width / 45
    bone = Material(0.46, 0.20, 1.0)
    angles = np.array([0.0, np.pi, np.pi / 2, 0.25 * np.pi, 0.75 * np.pi])
    for angle in rng.choice(angles, size=int(rng.integers(1, 4)), replace=False):
        size = (3.0 + 7.5 * f.severity * float(rng.uniform(0.6, 1.0))) * (0.6 + 0.4 * k)
        away = np.array([np.cos(angle), np.sin(angle), 0.0])
        across = np.array([-np.sin(angle), np.cos(angle), 0.0])
        bridge = f.severity > 0.6 and w.level != SACRAL and rng.random() < 0.25
        spurs = [(v, -1.0), (w, 1.0)] if bridge else [(v, -1.0 if rng.random() < 0.6 else 1.0)]
        points: Points = []
        for body, up in spurs:
            out = away * [body.width / 2, body.depth / 2, 0]
            root = out * 0.93 + [0, 0, up * (body.middle / 2 - 1.5)]
            rise = 0.5 * v.disc + 1 if bridge else size * float(rng.uniform(0.3, 0.9))
            tip = root + away * size + [0, 0, up * rise]
            spread = 0.22 * body.width
            for t in (-1.0, -0.4, 0.3, 0.9):
                start = body.frame.point(root + across * t * spread)
                end = body.frame.point(tip + across * t * spread * 0.6)
                spur = cone(start, end, 2.2 * k + 0.8, 0.9, bone)
                changes.joined.setdefault(body.level, []).append(spur)
            points += [body.frame.point(root), body.frame.point(tip)]
        # 1.5 times the spur's own size.
        margin = 0.25 * size + 2.5 * (0.5 + 0.5 * k)
        changes.marks.append(Marks(f.label, points, margin, away @ v.frame.axes))


def _disc(
    f: Finding, vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng, changes: Changes
) -> None:
    v, w = vertebrae[f.level], vertebrae[below(f.level)]
    dense = Material(0.22, 0.16, 0.8)
    t = v.sclerosis_below / 2
    for body, z in ((v, -v.middle / 2 + t), (w, w.middle / 2 - t)):
        sheet = [body.width / 2 * 0.9, body.depth / 2 * 0.9, t]
        changes.pieces.append([superquadric(body.frame.at([0, 0, z]), sheet, dense, n=2.6)])
    if f.severity > 0.6 and rng.random() < 0.5:  # vacuum
        gap = (v.frame.point([0, 0, -v.middle / 2]) + w.frame.point([0, 0, w.middle / 2])) / 2
        gas = Material(-0.2, -0.2, 0.3)
        frame = Frame(gap, v.frame.axes)
        changes.pieces.append([superquadric(frame, [v.width * 0.3, v.depth * 0.3, 1.0], gas)])
    points = _rims(v, -v.middle / 2, -v.middle / 2 + 3.5)
    points += _rims(w, w.middle / 2 - 3.5, w.middle / 2)
    changes.marks.append(Marks(f.label, points))


def _implant(
    f: Finding, vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng, changes: Changes
) -> None:
    """Screws and rods over two to four levels, a plate in front, a cage, wires, or cement."""
    metal = Material(2.2 + 1.2 * rng.random(), 2.8, 0.6)
    n = LEVELS.index(f.level)
    levels = LEVELS[n : n + int(rng.integers(2, 5))]
    chain = [vertebrae[level] for level in levels]
    kind = rng.random()
    if len(chain) < 2 or kind < 0.12:
        _cement(vertebrae[f.level], rng, changes, f.label)
    elif kind < 0.27:
        _cage(vertebrae[f.level], metal, changes, f.label)
    elif kind < 0.36:
        _wires(chain, metal, changes, f.label)
    elif chain[0].cervical and kind < 0.75:
        _front_plate(chain, metal, changes, f.label)
    else:
        _screws_and_rods(chain, metal, rng, changes, f.label)


def _cement(v: Vertebra, rng: _Rng, changes: Changes, label: str) -> None:
    cement = Material(0.9, 0.9, 0.5)
    places = rng.normal(0, 1, (5, 3)) * [v.width / 6, v.depth / 6, 2]
    blobs = [superquadric(v.frame.at(p), list(rng.uniform(3, 8, 3)), cement) for p in places]
    changes.pieces.append(blobs)
    changes.marks.append(Marks(label, [v.frame.point(p) for p in places], 6.5))


def _cage(v: Vertebra, metal: Material, changes: Changes, label: str) -> None:
    at = v.frame.at([0, 0, -v.middle / 2 - v.disc / 2])
    half = [v.width * 0.3, v.depth * 0.3, max(v.disc * 0.45, 2.5)]
    changes.pieces.append([superquadric(at, half, metal, n=4.0, m=4.0)])
    changes.marks.append(Marks(label, [at.point(d * half) for d in _cube(1.0)]))


def _wires(chain: Sequence[Vertebra], metal: Material, changes: Changes, label: str) -> None:
    """Loops of wire around neighbouring spinous processes."""
    points: Points = []
    for upper, lower in pairwise(chain[:3]):
        k = upper.width / 45
        rear = [-v.depth / 2 - 24 * k - 10 for v in (upper, lower)]
        for side in (-1.0, 1.0):
            a = upper.frame.point([side * 4, rear[0], -0.1 * upper.middle])
            b = lower.frame.point([side * 4, rear[1], -0.5 * lower.middle])
            changes.pieces.append([cone(a, b, 0.6, 0.6, metal)])
            points += [a, b]
        ends = points[-4], points[-2]
        changes.pieces.append([cone(ends[0], ends[1], 0.6, 0.6, metal)])
    changes.marks.append(Marks(label, points, 3.0))


def _front_plate(chain: Sequence[Vertebra], metal: Material, changes: Changes, label: str) -> None:
    """A plate before the bodies with two screws into each."""
    points: Points = []
    fronts = [v.frame.point([0, v.depth / 2 + 1.5, 0]) for v in chain]
    for a, b in pairwise(fronts):
        middle = (a + b) / 2
        up = (a - b) / np.linalg.norm(a - b)
        front = np.cross(up, chain[0].frame.axes[0])
        frame = Frame(middle, np.stack([np.cross(front, up), front, up]))
        half = [chain[0].width * 0.32, 1.1, float(np.linalg.norm(a - b)) / 2 + 3]
        changes.pieces.append([plate(frame, half, metal, rim=1.1, bend=(-1.0, 0.0), n=3.5)])
        points += [frame.point([x, 0, z]) for x in (-half[0], half[0]) for z in (-half[2], half[2])]
    for v in chain:
        for side in (-1.0, 1.0):
            head = v.frame.point([side * v.width * 0.2, v.depth / 2 + 1.5, 0])
            tip = v.frame.point([side * v.width * 0.12, -v.depth * 0.25, 0])
            changes.pieces.append([cone(head, tip, 1.9, 1.2, metal)])
            points.append(tip)
    changes.marks.append(Marks(label, points, 2.0))


def _screws_and_rods(
    chain: Sequence[Vertebra], metal: Material, rng: _Rng, changes: Changes, label: str
) -> None:
    points: Points = []
    for side in (-1.0, 1.0):
        heads: Points = []
        for v in chain:
            k = v.width / 45
            x = side * (11.5 * (0.75 + 0.25 * k) + 4 * k)
            head = v.frame.point([x * 1.25, -v.depth / 2 - 20 * k - 4, 0.18 * v.middle])
            tip = v.frame.point([x * 0.72, v.depth * 0.22, 0.12 * v.middle])
            r = float(rng.uniform(2.0, 3.3)) * max(k, 0.6)
            changes.pieces.append([cone(head, tip, r, r * 0.75, metal)])
            wide = 6.0 * max(k, 0.6)
            changes.pieces.append([cone(head, head + (head - tip) * 0.16, wide, wide, metal)])
            heads.append(head + (head - tip) * 0.14)
            points += [tip, head + (head - tip) * 0.3]
        ends = (heads[0] - heads[1], heads[-1] - heads[-2])
        line = [heads[0] + ends[0] * 0.2, *heads, heads[-1] + ends[1] * 0.2]
        changes.pieces.append([cone(a, b, 2.9, 2.9, metal) for a, b in pairwise(line)])
        points += [line[0], line[-1]]
    changes.marks.append(Marks(label, points, 3.5))


def _foramen(
    f: Finding, vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng, changes: Changes
) -> None:
    """Overgrown facets around the foramen below a pedicle."""
    v = vertebrae[f.level]
    k = v.width / 45
    bone = Material(0.40, 0.16, 1.0)
    grow = 2.0 + 4.5 * f.severity
    points = []
    for side in (-1.0, 1.0):
        place = np.array([side * 15 * (0.6 + 0.4 * k), -v.depth / 2 - 10 * k, -0.42 * v.middle])
        lump = superquadric(
            v.frame.at(place + [0, -2, 0]), [4 * k + grow, 4 * k + grow, 5 * k + grow], bone
        )
        changes.joined.setdefault(f.level, []).append(lump)
        reach = np.array([3.0, 6.0, 10.0]) * (0.55 + 0.45 * k)
        points += [v.frame.point(place + [0, 4 * k, 0] + d * reach) for d in _cube(1.0)]
    changes.marks.append(Marks(f.label, points, facing=v.frame.axes[1]))


def _slip(
    f: Finding, vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng, changes: Changes
) -> None:
    v, w = vertebrae[f.level], vertebrae[below(f.level)]
    points = _rims(v, -v.middle / 2, v.middle * 0.1)
    points += _rims(w, -w.middle * 0.1, w.middle / 2)
    changes.marks.append(Marks(f.label, points, facing=v.slip @ w.frame.axes))


def _collapse(
    f: Finding, vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng, changes: Changes
) -> None:
    v = vertebrae[f.level]
    band = superquadric(
        v.frame.at([0, v.depth * 0.05, v.middle * 0.22]),
        [v.width * 0.44, v.depth * 0.42, 1.2 + 1.8 * f.severity], Material(0.12, 0.12, 0.6), n=2.6,
    )  # fmt: skip
    changes.pieces.append([band])
    half = max(v.front, v.middle, v.back) / 2
    changes.marks.append(Marks(f.label, _rims(v, -half, half, grow=1.04)))


def _other(
    f: Finding, vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng, changes: Changes
) -> None:
    """A sclerotic or lytic focus, a fracture line, ankylosis, an enthesophyte, a foreign body."""
    v = vertebrae[f.level]
    kind = rng.random()
    if kind < 0.12:
        _ankylosis(f, vertebrae, changes)
        return
    if kind < 0.22:
        _enthesophyte(f, v, changes)
        return
    place = rng.uniform(-1, 1, 3) * [v.width * 0.25, v.depth * 0.25, v.middle * 0.2]
    radius = (3.5 + 6.0 * float(rng.uniform(0.4, 1.0))) * (0.6 + 0.4 * v.width / 45)
    strength = 0.15 + 0.45 * f.severity
    turn = rotation()
    if kind < 0.5:
        half, stuff = rng.uniform(0.7, 1.1, 3) * radius, Material(strength, strength, 0.5)
    elif kind < 0.75:
        strength *= -0.8
        half, stuff = rng.uniform(0.8, 1.2, 3) * radius, Material(strength, strength, 0.5)
    elif kind < 0.88:
        half = np.array([v.width * 0.45, v.depth * 0.4, 0.6 + 0.9 * f.severity])
        stuff = Material(-strength, -strength, 0.3)
        turn = rotation(x_deg=float(rng.normal(0, 10)), y_deg=float(rng.normal(0, 10)))
    else:
        half, stuff = rng.uniform(0.8, 3.5, 3), Material(2.5, 2.5, 0.5)
        place = place + rng.normal(0, 12, 3)
    frame = v.frame.at(place, turn)
    changes.pieces.append([superquadric(frame, list(half), stuff, n=2.2)])
    reach = np.maximum(half * 1.15, 2.5)
    changes.marks.append(Marks(f.label, [frame.point(d * reach) for d in _cube(1.0)]))


def _ankylosis(f: Finding, vertebrae: dict[str, Vertebra], changes: Changes) -> None:
    """Syndesmophytes: thin bone bridges over the rims of several discs."""
    n = LEVELS.index(f.level)
    chain = [vertebrae[level] for level in LEVELS[max(0, n - 3) : n + 1]]
    bone = Material(0.38, 0.20, 0.8)
    points: Points = []
    for upper, lower in pairwise(chain):
        thick = (0.8 + 1.4 * f.severity) * (0.6 + 0.4 * upper.width / 45)
        for angle in np.arange(0.0, np.pi + 0.1, np.pi / 6):
            c, s = np.cos(angle), np.sin(angle)
            a = upper.frame.point([upper.width / 2 * c, upper.depth / 2 * s, -upper.middle / 2 + 1])
            b = lower.frame.point([lower.width / 2 * c, lower.depth / 2 * s, lower.middle / 2 - 1])
            outwards = upper.frame.point([c, s, 0]) - upper.frame.origin
            middle = (a + b) / 2 + outwards * (1 + 2 * f.severity)
            bow = [cone(a, middle, thick, thick, bone), cone(middle, b, thick, thick, bone)]
            changes.pieces.append(bow)
        points += _rims(upper, -upper.middle / 2) + _rims(lower, lower.middle / 2)
    changes.marks.append(Marks(f.label, points, 3.0))


def _enthesophyte(f: Finding, v: Vertebra, changes: Changes) -> None:
    """A spike of bone at the tip of a spinous process."""
    k = v.width / 45
    start = v.frame.point([0, -v.depth / 2 - 38 * k - 6, -0.3 * v.middle])
    end = start + v.frame.axes.T @ np.array([0, -3 - 8 * f.severity, 3 + 5 * f.severity]) * k
    changes.pieces.append([cone(start, end, 2.6 * k + 1, 1.0, Material(0.42, 0.30, 1.0))])
    changes.marks.append(Marks(f.label, [start, end], 3.5, v.frame.axes[1]))


def _cube(reach: float) -> Points:
    return [
        np.array([x, y, z]) * reach for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)
    ]


_BY_CLASS = {
    "Osteophytes": _osteophytes,
    "Disc space narrowing": _disc,
    "Surgical implant": _implant,
    "Foraminal stenosis": _foramen,
    "Spondylolysthesis": _slip,
    "Vertebral collapse": _collapse,
    "Other lesions": _other,
}
