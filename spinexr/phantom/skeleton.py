"""The bones around the spine: ribs, sternum, shoulders, pelvis, skull base and mandible."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from spinexr.phantom.anatomy import Groups, Patient, Vertebra
from spinexr.phantom.solids import (
    Frame,
    Material,
    Vector,
    cone,
    plate,
    rotation,
    superquadric,
)

_Rng = np.random.Generator


def ribs(vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng) -> Groups:
    """Twelve pairs of ribs as chains of flat rods around an elliptic chest."""
    groups: Groups = []
    bone = Material(0.36, 0.03 + 0.04 * patient.density, 0.75)
    slope = float(rng.normal(1, 0.12))
    last = float(rng.uniform(0.5, 1.3))  # the twelfth differs most between people
    for n in range(1, 13):
        v = vertebrae[f"T{n}"]
        around = patient.girth**0.5 * patient.scale
        width = float(np.interp(n, [1, 3, 7, 10, 12], [62, 98, 132, 128, 112])) * around
        depth = float(np.interp(n, [1, 3, 7, 10, 12], [52, 78, 98, 92, 80])) * around
        end = float(np.interp(n, [1, 7, 10, 11, 12], [1.25, 1.18, 0.85, 0.45, 0.25])) * np.pi / 1.35
        end *= last if n == 12 else 1.0
        fall = float(np.interp(n, [1, 6, 10, 12], [28, 78, 95, 60])) * slope * patient.scale
        for side in (-1.0, 1.0):
            start = np.array([side * v.width / 2 * 0.9, -v.depth / 2 * 0.8, 0.32 * v.middle])
            drop, swing = rng.normal(0, 2.5), 1 + rng.normal(0, 0.03)
            points = []
            for t in np.linspace(0, 1, 15):
                angle = -0.46 * np.pi + t * end
                ring = np.array(
                    [side * width * swing * np.cos(angle), depth * (np.sin(angle) + 0.62),
                     -fall * t**1.15 + drop * t]
                )  # fmt: skip
                blend = min(1.0, t / 0.14)
                points.append(v.frame.origin + (1 - blend) * (start @ v.frame.axes) + blend * ring)
            r = float(rng.uniform(5.0, 6.2)) * patient.scale
            for p, q in pairwise(points):
                rod = cone(p, q, r, r, bone, flat=0.55, round_ends=False,
                           flat_axis=np.array([p[0], p[1] + 20.0, 0.0]))  # fmt: skip
                groups.append([rod])
    return groups


def shoulders(vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng) -> Groups:
    """Sternum with manubrium, clavicles, shoulder blades."""
    s = patient.scale
    t2, t6 = vertebrae["T2"].frame.origin, vertebrae["T6"].frame.origin
    bone = Material(0.36, 0.03 + 0.04 * patient.density, 1.0)
    front = float(t6[1]) + 118 * patient.girth**0.5 * s
    notch = np.array([float(t2[0]), front - 22 * s, float(t2[2]) - 18 * s])
    middle = np.array([float(t6[0]), front, float(t6[2]) - 18 * s])
    tilt = float(np.degrees(np.arctan2(middle[1] - notch[1], notch[2] - middle[2])))
    groups: Groups = [
        [
            plate(Frame(notch - [0, 0, 14 * s], rotation(x_deg=tilt)), [26 * s, 5, 22 * s], bone,
                  rim=4, bend=(0, 0)),
            plate(Frame(middle, rotation(x_deg=tilt)), [17 * s, 4.5, 50 * s], bone,
                  rim=4, bend=(0, 0)),
        ]
    ]  # fmt: skip
    lift = float(rng.normal(0, 8))
    for side in (-1.0, 1.0):
        rise = lift + float(rng.normal(0, 4))
        way = [(14, -4, 4), (52, -2, 12 + rise * 0.4), (92, -30, 22 + rise), (132, -62, 24 + rise)]
        points = [notch + np.array([side * x, y, z]) * s for x, y, z in way]
        groups.append([cone(p, q, 7 * s, 6 * s, bone, flat=0.85) for p, q in pairwise(points)])
        blade = np.array([side * 112 * s, float(t6[1]) - 40 * s, float(t6[2]) + 12 * s + rise])
        frame = Frame(blade, rotation(x_deg=-8, y_deg=side * 8, z_deg=side * 32))
        ridge = [np.array([-side * 42, -9, 48]), np.array([side * 48, -14, 82])]
        groups.append(
            [
                plate(frame, [48 * s, 1.6, 76 * s], bone, rim=4.0, bend=(-7, -5), n=2.0),
                cone(frame.point(ridge[0] * s), frame.point(ridge[1] * s), 5, 8, bone),
            ]
        )
    return groups


def pelvis(sacrum: Frame, patient: Patient, rng: _Rng) -> Groups:
    """Sacrum with its foramina, iliac wings with crests, hip joints and pubic rami."""
    bone = patient.bone(shell_mm=0.7)
    hollow = Material(-0.10, -0.10, 0.3)
    s = patient.scale
    sacral: list[Vector] = []
    holes: Groups = []
    at = sacrum
    for n, (w, d, h) in enumerate(
        [(48, 30, 29), (42, 23, 26), (35, 17, 23), (28, 13, 20), (20, 9, 18)]
    ):
        turn = rotation(x_deg=-12.0 * n)
        piece = Frame(at.origin - at.axes[2] * h * s / 2, turn @ sacrum.axes)
        sacral.append(
            superquadric(piece, [w / 2 * s, d / 2 * s, h / 2 * s + 5.0], bone, n=2.6, m=2.8)
        )
        if n < 4:
            for side in (-1.0, 1.0):
                wing = piece.at(
                    [side * (w / 2 + 12 - 3 * n) * s, -5.0, -1.0], rotation(y_deg=side * 14)
                )
                sacral.append(
                    superquadric(wing, [(25 - 5 * n) * s, (15 - 2.5 * n) * s, h / 2 * s + 6], bone,
                                 n=2.2, m=2.4)
                )  # fmt: skip
                hole = piece.at([side * w * 0.47 * s, d / 2 - 6, -h / 2 * s])
                holes.append([superquadric(hole, [4.0, 7.0, 3.0], hollow)])
        at = Frame(at.origin - at.axes[2] * h * s, turn @ sacrum.axes)
    groups: Groups = [sacral, *holes]
    flat = Material(0.30, 0.03 + 0.05 * patient.density, 1.0)
    flare = float(rng.normal(0, 4))
    for side in (-1.0, 1.0):
        o = sacrum.origin

        def place(x: float, y: float, z: float, o: Vector = o, side: float = side) -> Vector:
            point: Vector = o + np.array([side * x * s, y * s, z * s])
            return point

        # Local y, across the plate, looks forward and inward; the plate is hollow on that side.
        frame = Frame(
            place(84, 4, -20), rotation(x_deg=-14, z_deg=side * (52 + flare), y_deg=side * 10)
        )
        socket = place(88, 34, -112)
        ilium = [
            plate(frame, [62 * s, 1.7, 58 * s], flat, rim=4.5 * s, bend=(12 * s, -16 * s), n=2.5),
            cone(place(44, -26, -34), place(58, -16, -70), 9 * s, 10 * s, flat),
            cone(place(58, -16, -70), socket, 11 * s, 24 * s, flat),
            cone(frame.point([side * 30 * s, -4, -42 * s]), socket, 8 * s, 20 * s, flat),
        ]
        pubis = [
            cone(socket + [0, 10, -6], place(14, 66, -142), 12 * s, 9 * s, flat),
            cone(socket + [-side * 4, -8, -16], place(54, -2, -190), 15 * s, 13 * s, flat),
            cone(place(54, -2, -190), place(14, 60, -160), 9 * s, 8 * s, flat),
        ]
        ball = Frame(socket + [side * 10, 2, -8], np.eye(3))
        head = [superquadric(ball, [24 * s, 24 * s, 24 * s], bone)]
        head.append(
            cone(socket + [side * 12, 2, -10], socket + [side * 46, 0, -38], 16 * s, 17 * s, bone)
        )
        groups += [ilium, pubis, head]
    return groups


def head_and_neck(vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng) -> Groups:
    """Odontoid and atlas, skull base, mandible with teeth, hyoid."""
    c2 = vertebrae["C2"]
    f = c2.frame
    top = f.point([0, 0, c2.middle / 2])
    groups: Groups = [_atlas(c2, patient)]
    nod = float(rng.normal(-4, 6))
    skull = Frame(top, rotation(x_deg=nod))
    groups += _skull(skull, patient, rng)
    groups += _mandible(skull, patient, rng)
    hyoid = vertebrae["C3"].frame.point([0, 40, -6])
    bone = patient.bone(shell_mm=1.2)
    return [*groups, [cone(hyoid + [x, -14, 3], hyoid, 1.8, 2.3, bone) for x in (-13, 13)]]


def _atlas(c2: Vertebra, patient: Patient) -> list[Vector]:
    """Odontoid process and the first cervical vertebra."""
    bone = patient.bone(shell_mm=1.2)
    f, h = c2.frame, c2.middle / 2
    s = patient.scale
    piece = [
        cone(f.point([0, 0, h]), f.point([0, 0, h + 15 * s]), 5.2 * s, 4.0 * s, bone),
        superquadric(f.at([0, 7.5 * s, h + 11 * s]), [9 * s, 3.5 * s, 5 * s], bone),
    ]
    for side in (-1.0, 1.0):
        mass = f.at([side * 16 * s, -2 * s, h + 9 * s])
        piece.append(superquadric(mass, [9 * s, 9 * s, 7 * s], bone, n=2.4, m=2.4))
        rear = f.point([side * 4 * s, -30 * s, h + 8 * s])
        piece.append(cone(f.point([side * 18 * s, -8 * s, h + 9 * s]), rear, 4.0, 3.6, bone))
    return piece


def _skull(at: Frame, patient: Patient, rng: _Rng) -> Groups:
    """Vault, skull base with petrous and mastoid bone, maxilla; `at` on top of the axis."""
    s = patient.scale

    def frame(x: float, y: float, z: float) -> Frame:
        return at.at(np.array([x, y, z]) * s)

    vault = superquadric(
        frame(0, 12, 86), [74 * s, 92 * s, 70 * s], Material(0.28, -0.01, 4.0 * s), n=2.2
    )
    dense, light = Material(0.24, 0.09, 1.6), Material(0.16, 0.01, 1.2)
    faint = Material(0.08, 0.06, 1.0)
    base = [superquadric(frame(0, -6, 20), [40 * s, 34 * s, 9 * s], faint)]
    groups: Groups = [[vault], base]
    for side in (-1.0, 1.0):
        groups.append(
            [
                superquadric(frame(side * 34, 6, 27), [22 * s, 12 * s, 11 * s], dense),
                superquadric(frame(side * 52, -6, 17), [9 * s, 12 * s, 17 * s], light),
            ]
        )
        for _ in range(9):  # air cells
            cell = np.array([side * 52, -6, 18]) + rng.normal(0, 1, 3) * [5, 6, 9]
            groups.append([superquadric(frame(*cell), [3 * s] * 3, Material(-0.18, -0.18, 0.3))])
    groups.append([superquadric(frame(0, 70, 28), [30 * s, 20 * s, 14 * s], light, n=2.6)])
    sinus = Material(-0.15, -0.15, 0.3)
    groups.append([superquadric(frame(0, 40, 14), [13 * s, 16 * s, 10 * s], sinus)])  # pharynx
    return groups


def _mandible(at: Frame, patient: Patient, rng: _Rng) -> Groups:
    """A bow of bone with its rami, and teeth in both jaws, no two alike."""
    s = patient.scale
    bone, enamel = Material(0.22, 0.14, 1.6), Material(0.50, 0.26, 0.9)
    opening = float(rng.uniform(0, 7))
    groups: Groups = []
    bow = []
    for t in np.linspace(-1, 1, 15):
        x, y = 47 * np.sign(t) * abs(t) ** 0.62, 84 - 62 * abs(t) ** 1.7
        bow.append(at.point(np.array([x, y, -28 - opening + 5 * abs(t)]) * s))
    groups.append(
        [
            cone(p, q, 13 * s, 13 * s, bone, flat=0.45,
                 flat_axis=np.array([p[0] - at.origin[0], 25.0, 0.0]))
            for p, q in pairwise(bow)
        ]
    )  # fmt: skip
    for side in (-1.0, 1.0):
        angle = at.point(np.array([side * 47, 20, -22 - opening]) * s)
        joint = at.point(np.array([side * 54, 4, 28]) * s)
        flat_axis = np.array([side, 0.2, 0.0])
        groups.append([cone(angle, joint, 14 * s, 9 * s, bone, flat=0.35, flat_axis=flat_axis)])
    for jaw, z in ((-1.0, -14 - opening), (1.0, -4.0)):
        for t in np.linspace(-0.8, 0.8, 14):
            if rng.random() < 0.004 * patient.age:
                continue
            x, y = 41 * np.sign(t) * abs(t) ** 0.62, 82 - 56 * abs(t) ** 1.7
            root = np.array([x, y, z + jaw * 11]) + rng.normal(0, 0.8, 3)
            crown = np.array([x, y, z + jaw * 1]) + rng.normal(0, 0.8, 3)
            r = (2.6 + 2.2 * abs(t)) * float(rng.uniform(0.85, 1.1))
            stuff = Material(2.0, 1.5, 0.8) if rng.random() < 0.06 else enamel  # a crown of metal
            rods = _tooth(at, root * s, crown * s, r * s, enamel, stuff)
            groups.append(rods)
    return groups


def _tooth(
    at: Frame, root: Sequence[float] | Vector, crown: Sequence[float] | Vector, r: float,
    dentine: Material, cover: Material,
) -> list[Vector]:  # fmt: skip
    tip, top = at.point(root), at.point(crown)
    piece = [cone(tip, top, 0.5 * r, r, dentine)]
    if cover is not dentine:
        piece = [cone(tip + 0.6 * (top - tip), top, r, r, cover)]
    return piece
