"""What is not bone: lungs, heart, muscles, kidneys, bowel, calcified vessels, skin and fat."""

from __future__ import annotations

import numpy as np

from spinexr.phantom.anatomy import Groups, Patient, Vertebra
from spinexr.phantom.solids import Frame, Material, Vector, cone, lung, rotation, superquadric

_Rng = np.random.Generator

# level: half width, half depth, how far the middle lies before the spine (mm)
TRUNK = {
    "C2": (66.0, 76.0, 16.0), "C4": (58.0, 62.0, 12.0), "C6": (64.0, 66.0, 12.0),
    "T1": (118.0, 78.0, 12.0), "T3": (168.0, 100.0, 24.0), "T6": (165.0, 108.0, 44.0),
    "T12": (150.0, 105.0, 40.0), "L3": (140.0, 100.0, 32.0), "L5": (165.0, 106.0, 26.0),
}  # fmt: skip


Loop = list[tuple[Vector, float]]  # bubbles of gas in a piece of bowel: centre, radius


def chest(vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng) -> tuple[Groups, Groups]:
    """Smooth pieces (lungs around the heart) and fine ones (vessels)."""
    t7, t10 = vertebrae["T7"].frame.origin, vertebrae["T10"].frame.origin
    g, s = patient.girth**0.5, patient.scale
    air = Material(-0.15, -0.15, 0.5)
    vessel = Material(0.10, 0.10, 0.5)
    smooth: Groups = []
    fine: Groups = []
    breath = float(rng.normal(0, 12)) * s
    base_z, top_z = float(t10[2]) + breath, float(vertebrae["T2"].frame.origin[2])
    size = float(rng.uniform(0.85, 1.12)) * s
    heart = np.array([20.0 * s, float(t7[1]) + 74 * s, float(vertebrae["T8"].frame.origin[2])])
    heart_half = np.array([56 * g, 44.0, 58.0]) * size
    for side in (-1.0, 1.0):
        middle = np.array([float(t7[0]) + side * 83 * g * s, float(t7[1]) + 46 * s, 0.0])
        middle[2] = (base_z + top_z) / 2
        half = [56 * g * s, 84 * g * s, (top_z - base_z) / 2 + 42 * s]
        foot = base_z - 34.0 * s - 9 * (side > 0) - middle[2]
        smooth.append(
            [
                lung(Frame(middle, np.eye(3)), half, air, dome=42 * s + rng.normal(0, 5),
                     foot=foot, heart=heart - middle, heart_half=heart_half)
            ]
        )  # fmt: skip
        hilum = np.array([float(t7[0]) + side * 30.0 * s, middle[1] - 6, middle[2] + 6])
        fine += _vessels(hilum, side, vessel, rng, (74 * g + 50, base_z - 5, top_z))
    return smooth, fine


def _vessels(
    hilum: Vector, side: float, vessel: Material, rng: _Rng, room: tuple[float, float, float]
) -> Groups:
    """Branching from the hilum outwards, thinner with each branch; one piece, so no double ends."""
    widest, lowest, highest = room
    groups: Groups = []
    for _ in range(30):
        away = rng.normal(0, 1, 3) * [1.0, 1.0, 1.3] + [side * 1.0, 0, 0]
        away /= np.linalg.norm(away)
        start = hilum + rng.normal(0, 9, 3)
        r = float(rng.uniform(1.2, 3.2))
        for _ in range(5):
            stop = start + away * float(rng.uniform(10, 22))
            if abs(stop[0]) > widest or not lowest < stop[2] < highest:
                break
            groups.append([cone(start, stop, r, r * 0.7, vessel, round_ends=False)])
            start, r = stop, r * 0.7
            away = away + rng.normal(0, 0.35, 3)
            away /= np.linalg.norm(away)
    return groups


def belly(vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng) -> Groups:
    """Psoas muscles, kidneys, liver and spleen: a little denser than the fat around them."""
    s, g = patient.scale, patient.girth**0.5
    muscle = Material(0.022, 0.022, 0.5)
    organ = Material(0.018, 0.018, 0.5)
    groups: Groups = []
    for side in (-1.0, 1.0):
        path = [
            vertebrae[n].frame.point([side * (vertebrae[n].width / 2 + x), y, 0])
            for n, x, y in (("T12", 0, 0), ("L2", 7, 2), ("L4", 15, 6), ("L5", 26, 14))
        ]
        path.append(path[-1] + np.array([side * 30, 30, -70]) * s)
        radii = np.array([6, 15, 23, 25, 20]) * s * float(rng.uniform(0.85, 1.1))
        groups.append(
            [
                cone(a, b, float(p), float(q), muscle)
                for a, b, p, q in zip(path, path[1:], radii, radii[1:], strict=False)
            ]
        )
        l2 = vertebrae["L2"].frame.origin
        kidney = l2 + np.array([side * 66, -4, 14 - 12 * (side < 0)]) * s + rng.normal(0, 6, 3)
        groups.append(
            [
                superquadric(
                    Frame(kidney, rotation(y_deg=-side * 16)), [25 * s, 20 * s, 54 * s], organ
                )
            ]
        )
    t12 = vertebrae["T12"].frame.origin
    liver = t12 + np.array([-78 * g, 44, -8]) * s
    groups.append(
        [superquadric(Frame(liver, rotation(y_deg=20)), [80 * g * s, 70 * s, 72 * s], organ)]
    )
    spleen = t12 + np.array([96 * g, -8, -2]) * s
    groups.append(
        [superquadric(Frame(spleen, rotation(y_deg=-30)), [24 * s, 34 * s, 52 * s], organ)]
    )
    return groups


def airway(vertebrae: dict[str, Vertebra], patient: Patient) -> Groups:
    """Pharynx and windpipe before the cervical spine."""
    air = Material(-0.21, -0.21, 0.5)
    s = patient.scale
    rods: list[Vector] = []
    c2 = vertebrae["C2"]
    previous = c2.frame.point([0, c2.depth / 2 + 9 * s, 14 * s])
    for level in ("C3", "C4", "C5", "C6", "C7", "T1", "T2", "T3"):
        v = vertebrae[level]
        gap = 10 if level < "C5" else (14 if level < "C7" else 20)
        point = v.frame.point([0, v.depth / 2 + gap * s, 0])
        rods.append(cone(previous, point, 7.0 * s, 7.5 * s, air, flat=0.8))
        previous = point
    return [rods]


def calcifications(vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng) -> Groups:
    """Plaques of the aorta and of costal cartilage: common, harmless, more of them with age."""
    groups: Groups = []
    share = np.clip((patient.age - 45) / 60, 0, 0.75)
    lime = Material(0.24, 0.24, 0.3)
    s = patient.scale
    if rng.random() < share:
        for level in ("L1", "L2", "L3", "L4"):
            v = vertebrae[level]
            for _ in range(int(rng.integers(0, 7))):
                angle = rng.uniform(0, 2 * np.pi)
                wall = (
                    np.array([9 + 9 * np.cos(angle), v.depth / 2 + 13 + 9 * np.sin(angle), 0]) * s
                )
                at = v.frame.at(
                    wall + [0, 0, rng.uniform(-16, 16)], rotation(z_deg=float(np.degrees(angle)))
                )
                groups.append([superquadric(at, [1.0, *rng.uniform(1.2, 4.5, 2)], lime)])
    if rng.random() < share:
        t10 = vertebrae["T10"].frame.origin
        for side in (-1.0, 1.0):
            for _ in range(int(rng.integers(4, 16))):
                spot = t10 + np.array([side * rng.uniform(50, 110), 110, rng.uniform(-70, 40)]) * s
                groups.append(
                    [superquadric(Frame(spot, np.eye(3)), list(rng.uniform(1, 3.5, 3)), lime)]
                )
    return groups


def bowel_gas(center: Vector, patient: Patient, rng: _Rng) -> list[Loop]:
    """Loops of gut with clusters of bubbles, from a few dots to a filled colon."""
    loops = []
    for _ in range(int(rng.integers(2, 9))):
        at = center + np.array(
            [rng.uniform(-105, 105) * patient.girth, rng.uniform(35, 105), rng.uniform(-140, 95)]
        )
        way = rng.normal(0, 1, 3) * [1, 0.4, 1]
        radius = float(rng.choice([4.0, 8.0, 13.0, 18.0])) * float(rng.uniform(0.7, 1.2))
        bubbles = []
        for _ in range(int(rng.integers(5, 26))):
            place = at + rng.normal(0, 0.25, 3) * radius
            bubbles.append((place, radius * float(rng.uniform(0.6, 1.2))))
            way = 0.8 * way / np.linalg.norm(way) + rng.normal(0, 0.4, 3) * [1, 0.3, 1]
            at = at + way / np.linalg.norm(way) * radius * 0.5
        loops.append(bubbles)
    return loops


def stomach_bubble(vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng) -> list[Loop]:
    """Gas under the left dome of the diaphragm, in most people."""
    if rng.random() < 0.3:
        return []
    at = vertebrae["T11"].frame.origin + np.array([62, 55, 0]) * patient.scale
    at = at + rng.normal(0, 10, 3)
    bubbles = [
        (at + rng.normal(0, 1, 3) * [14, 10, 7], float(rng.uniform(8, 20))) for _ in range(9)
    ]
    return [bubbles]
