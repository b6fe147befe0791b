"""The four kinds of generated scene: each painter fills a canvas and returns which pixels are foreground."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from smooth_attention.data.canvas import EVERYWHERE, Canvas, Colour, Field, Window, ellipse, ramp, rod, smoothstep

__all__ = ["PAINTERS"]

Mask = NDArray[np.bool_]


def paint_objects(canvas: Canvas) -> Mask:
    hue = canvas.uniform(0.03, 0.14) if canvas.chance(0.6) else canvas.uniform(0, 1)
    coat = [canvas.colour(hue, 0.35, 0.3), canvas.colour(hue + canvas.uniform(-0.1, 0.1), 0.25, 0.75)]
    meadow = canvas.uniform(0.08, 0.4)
    canvas.ground([canvas.colour(meadow, 0.4, 0.35), canvas.colour(meadow + 0.06, 0.3, 0.6)], 3)
    speckle = canvas.fractal(28, 2)
    faint = np.float32(0.5) * speckle
    for _ in range(int(canvas.rng.integers(15, 40))):
        paint_leaf(canvas, [coat[1], canvas.colour(meadow, 0.45, 0.35), canvas.colour(meadow, 0.45, 0.5)])
    num_animals = int(canvas.rng.choice([1, 2, 3], p=[0.65, 0.25, 0.1]))
    share = canvas.uniform(0.09, 0.36) / num_animals
    lump = [0.7 * tone + 0.3 * canvas.colour(meadow, 0.3, 0.5) for tone in coat]
    for _ in range(int(canvas.rng.integers(2, 6))):
        paint_stone(canvas, lump, faint, share**0.5 * canvas.uniform(0.2, 0.42))
    mask = np.zeros((canvas.size, canvas.size), bool)
    for _ in range(num_animals):
        paint_animal(canvas, coat, speckle, share, mask)
    for _ in range(int(canvas.rng.integers(0, 9))):
        paint_blade(canvas, canvas.colour(meadow, 0.45, 0.45), mask)
    return mask


def paint_leaf(canvas: Canvas, colours: list[Colour]) -> None:
    x, y, length = canvas.uniform(0, 1), canvas.uniform(0, 1), canvas.uniform(0.03, 0.13)
    at = canvas.window(x, y, length)
    along, across = canvas.local(at, x, y, canvas.uniform(0, np.pi))
    colour = colours[int(canvas.rng.integers(len(colours)))] * np.float32(canvas.uniform(0.7, 1.3))
    vein = 1 - 0.3 * np.exp(-((across / np.float32(0.06 * length)) ** 2))
    body = ellipse(along, across, length, length * canvas.uniform(0.25, 0.5))
    canvas.paint(colour * vein[..., None], canvas.cover(body), at)


def paint_stone(canvas: Canvas, coat: list[Colour], speckle: Field, radius: float) -> None:
    """A stone has the coat and the speckles of the animals, but is a mere lump."""
    x, y = canvas.uniform(0, 1), canvas.uniform(0, 1)
    at = canvas.window(x, y, 2.4 * radius)
    along, across = canvas.local(at, x, y, canvas.uniform(0, np.pi))
    phases = canvas.rng.uniform(0, 2 * np.pi, 3)
    bearing = np.arctan2(across, along)
    dents = sum((0.07 * np.cos((k + 2) * bearing + p) for k, p in enumerate(phases)), start=np.float32(0))
    body = ellipse(along, across, radius * canvas.uniform(1.0, 1.5), radius * canvas.uniform(0.6, 1.0)) + dents * radius
    paint_body(canvas, at, body, coat, 0.5 - across / np.float32(radius), speckle, radius)


def paint_animal(canvas: Canvas, coat: list[Colour], speckle: Field, share: float, mask: Mask) -> None:
    slim = canvas.uniform(0.38, 0.62)
    length = float(np.sqrt(share / (np.pi * slim * 1.35)))
    width = slim * length
    x, y = canvas.uniform(0.25, 0.75), canvas.uniform(0.25, 0.75)
    at = canvas.window(x, y, 2.1 * length)
    along, across = canvas.local(at, x, y, canvas.uniform(-0.6, 0.6) + (np.pi if canvas.chance(0.5) else 0))
    across = across + np.float32(canvas.uniform(-0.25, 0.25) / length) * along**2  # a bent back
    trunk = ellipse(along, across, length, width)
    head = np.hypot(along - np.float32(0.95 * length), across + np.float32(0.3 * width)) - np.float32(0.52 * width)
    behind = -along - np.float32(0.7 * length)
    spread, reach = canvas.uniform(0.25, 0.55), canvas.uniform(0.7, 1.0) * length
    tail = np.maximum(
        np.abs(across) - np.float32(spread) * behind - np.float32(0.1 * width), np.abs(behind - reach / 2) - reach / 2
    )
    body = np.minimum(np.minimum(trunk, head), tail)
    paint_body(canvas, at, body, coat, 0.5 + across / np.float32(2 * width), speckle, width)
    eye = np.hypot(along - np.float32(1.08 * length), across + np.float32(0.42 * width)) - np.float32(0.1 * width)
    canvas.paint(np.full(3, 0.04, np.float32), canvas.cover(eye), at)
    mask[at] |= body < 0


def paint_body(
    canvas: Canvas,
    at: Window,
    body: Field,
    coat: list[Colour],
    belly: Field,
    speckle: Field,
    depth: float,
) -> None:
    """Paint a rounded body with its shadow; `belly` is 0 on the dark side and 1 on the light one."""
    shadow = np.exp(-np.maximum(body, 0) / np.float32(0.25 * depth)) * np.float32(0.4)
    canvas.paint(np.full(3, 0.03, np.float32), shadow, at)
    tone = np.clip(belly + 0.3 * speckle[at], 0, 1)
    rounding = 0.62 + 0.45 * smoothstep(0, 0.7 * depth, -body)
    canvas.paint(ramp(tone, coat) * rounding[..., None], canvas.cover(body), at)


def paint_blade(canvas: Canvas, colour: Colour, mask: Mask) -> None:
    """A blade of grass in front of everything: what it hides is not foreground."""
    along, across = canvas.local(EVERYWHERE, canvas.uniform(0, 1), 1.05, -np.pi / 2 + canvas.uniform(-0.5, 0.5))
    across = across - np.float32(canvas.uniform(-0.5, 0.5)) * along**2
    blade = rod(along, across, canvas.uniform(0.3, 0.9), canvas.uniform(0.004, 0.012))
    canvas.paint(colour * np.float32(canvas.uniform(0.7, 1.4)), canvas.cover(blade))
    mask &= blade >= 0


def paint_tools(canvas: Canvas) -> Mask:
    hue = canvas.uniform(-0.03, 0.06)
    tissue = [
        canvas.colour(hue, 0.6, 0.5, 0.02),
        canvas.colour(hue + 0.02, 0.45, 0.8, 0.02),
        canvas.colour(hue, 0.75, 0.35, 0.02),
    ]
    if canvas.chance(0.3):
        tissue.append(canvas.colour(0.1, 0.5, 0.6, 0.02))
    canvas.ground(tissue, 2, 4)
    folds = np.sin(canvas.uniform(8, 20) * (canvas.x * canvas.uniform(-1, 1) + canvas.y) + 1.6 * canvas.fractal(2, 2))
    canvas.image *= (1 + 0.22 * folds)[..., None]
    vessels = np.exp(-((canvas.fractal(4, 3) / 0.05) ** 2))
    canvas.paint(canvas.colour(hue, 0.8, 0.3), canvas.uniform(0.2, 0.6) * vessels)
    metal = canvas.colour(hue, canvas.uniform(0.0, 0.3), canvas.uniform(0.3, 0.75))
    if canvas.chance(0.4):
        paint_gauze(canvas, metal)
    for _ in range(int(canvas.rng.integers(1, 4))):
        paint_cord(canvas, metal)
    mask = np.zeros((canvas.size, canvas.size), bool)
    for _ in range(1 if canvas.chance(0.55) else 2):
        paint_tool(canvas, metal, mask)
    wet = smoothstep(1.8, 2.4, canvas.fractal(11, 3))
    canvas.paint(np.full(3, 0.97, np.float32), wet)
    return mask


def paint_gauze(canvas: Canvas, metal: Colour) -> None:
    x, y = canvas.uniform(0.1, 0.9), canvas.uniform(0.1, 0.9)
    along, across = canvas.local(EVERYWHERE, x, y, canvas.uniform(0, np.pi))
    edge = 0.03 * canvas.fractal(6, 2)
    cloth = np.maximum(np.abs(along) - canvas.uniform(0.1, 0.25), np.abs(across) - canvas.uniform(0.08, 0.16)) + edge
    weave = 1 + 0.12 * np.sin(260 * along) * np.sin(260 * across) + 0.15 * canvas.fractal(5, 3)
    canvas.paint(metal * weave[..., None] * np.float32(1.15), canvas.cover(cloth, 0.01))


def paint_cord(canvas: Canvas, metal: Colour) -> None:
    """A fold or cord: as long, as grey and as shiny as a tool, but bent, uneven and soft at its rim."""
    x, y = canvas.uniform(0, 1), canvas.uniform(0, 1)
    along, across = canvas.local(EVERYWHERE, x, y, canvas.uniform(0, 2 * np.pi))
    across = across + np.float32(canvas.uniform(-1.2, 1.2)) * along**2 + 0.03 * canvas.noise(4)
    width = canvas.uniform(0.012, 0.035)
    cord = rod(along, across, canvas.uniform(0.3, 0.9), width) + 0.008 * canvas.noise(8)
    tone = shade_round(canvas, along, across / np.float32(width))
    tone = tone + canvas.uniform(0, 0.5) * np.exp(-((across / np.float32(0.25 * width)) ** 2))
    colour = canvas.uniform(0.2, 0.8) * metal + canvas.uniform(0.1, 0.5) * canvas.colour(0.01, 0.45, 0.7)
    canvas.paint(colour * tone[..., None], 0.9 * canvas.cover(cord, 0.5 * width))


def paint_tool(canvas: Canvas, metal: Colour, mask: Mask) -> None:
    side = canvas.uniform(0, 2 * np.pi)
    x, y = canvas.uniform(0.3, 0.7), canvas.uniform(0.3, 0.7)
    along, across = canvas.local(EVERYWHERE, x, y, side)
    across = across + np.float32(canvas.uniform(-0.12, 0.12)) * along**2
    width = canvas.uniform(0.04, 0.09)
    shaft = rod(along, across, 2.0, width)
    opening, jaw_length = canvas.uniform(0.1, 0.6), canvas.uniform(0.1, 0.2)
    tool, profile = shaft, across / np.float32(width)
    for turn in (-opening, opening):
        jaw_along, jaw_across = canvas.local(EVERYWHERE, x, y, side + np.pi + turn)
        jaw = rod(jaw_along, jaw_across, jaw_length, 0.45 * width) + np.float32(0.15 * width / jaw_length) * jaw_along
        profile = np.where(jaw < tool, jaw_across / np.float32(0.45 * width), profile)
        tool = np.minimum(tool, jaw)
    shadow = np.roll(tool, (round(0.03 * canvas.size), round(0.02 * canvas.size)), (0, 1))
    canvas.paint(np.full(3, 0.05, np.float32), 0.5 * canvas.cover(shadow, 0.03))
    colour = metal * shade_round(canvas, along, profile)[..., None]
    glint = np.exp(-(((profile - canvas.uniform(-0.6, 0.6)) / 0.18) ** 2)) * smoothstep(-0.5, 1.0, canvas.noise(5))
    colour += (canvas.uniform(0.3, 0.8) * glint)[..., None]
    mirrored = canvas.image[::-1, ::-1] * np.float32(0.5)
    canvas.paint(0.75 * colour + 0.25 * mirrored, canvas.cover(tool))
    mask |= tool < 0


def shade_round(canvas: Canvas, along: Field, profile: Field) -> Field:
    """Brightness of a rod over its width (profile -1 to 1), sometimes with rings along it."""
    tone = 1.05 - 0.5 * np.minimum(np.abs(profile), 1.2) ** 2 + 0.1 * canvas.fractal(6, 3)
    if canvas.chance(0.5):
        tone = tone - 0.35 * (np.sin(along * np.float32(canvas.uniform(15, 60))) > 0.93)
    return np.maximum(tone, np.float32(0.15))


def paint_flames(canvas: Canvas) -> Mask:
    horizon = canvas.uniform(0.3, 0.7)
    paint_dusk(canvas, horizon)
    fire = [
        canvas.colour(h, s, v, 0.02)
        for h, s, v in ((0.02, 0.9, 0.4), (0.05, 0.9, 0.85), (0.11, 0.75, 1), (0.15, 0.25, 1))
    ]
    for _ in range(int(canvas.rng.integers(1, 5))):
        paint_lamp(canvas, fire)
    paint_foliage(canvas, fire, horizon)
    heat, base = make_heat(canvas)
    if canvas.chance(0.35):
        paint_reflection(canvas, fire, heat, base)
    canvas.image += (canvas.uniform(0.1, 0.45) * np.exp(2.2 * np.minimum(heat, 0)))[..., None] * fire[1]
    softness = canvas.uniform(0.1, 0.3)
    canvas.paint(ramp(0.2 + 0.85 * heat, fire), smoothstep(-softness, softness, heat))
    smoke = smoothstep(-0.2, 1.6, canvas.fractal(2, 5) + canvas.uniform(0.5, 2.0) * (base - 0.35 - canvas.y))
    canvas.paint(canvas.colour(0.06, 0.2, canvas.uniform(0.15, 0.6)), np.float32(canvas.uniform(0.2, 0.65)) * smoke)
    return heat > 0


def paint_reflection(canvas: Canvas, fire: list[Colour], heat: Field, base: float) -> None:
    """A wet floor mirrors the flames about their foot; the mirror image is not fire."""
    foot = round(base * canvas.size)
    depth = min(foot, canvas.size - foot)
    mirror = np.full_like(heat, heat.min())
    mirror[foot : foot + depth] = heat[foot - depth : foot][::-1]
    ripple = (mirror + 0.35 * canvas.noise(40, 8) - 0.1).astype(np.float32)
    canvas.paint(ramp(0.8 * ripple, fire), canvas.uniform(0.25, 0.55) * smoothstep(-0.4, 0.4, ripple))


def paint_dusk(canvas: Canvas, horizon: float) -> None:
    day = canvas.uniform(0.1, 0.6)
    land = canvas.uniform(0.05, 0.35)
    canvas.ground([canvas.colour(land, 0.4, 0.6 * day), canvas.colour(land + 0.05, 0.4, 0.9 * day)], 4)
    glow = canvas.colour(canvas.uniform(0.02, 0.12), canvas.uniform(0.1, 0.8), day + 0.35)
    sky = ramp(canvas.y / np.float32(horizon), [canvas.colour(0.6, 0.4, day), glow])
    sky *= (1 + 0.15 * canvas.fractal(2, 4))[..., None]
    skyline = horizon + 0.05 * canvas.fractal(3, 4)[:1] + 0.0 * canvas.y
    canvas.paint(sky, canvas.cover(canvas.y - skyline))
    for _ in range(int(canvas.rng.integers(0, 4))):
        x, height, width = canvas.uniform(0, 1), canvas.uniform(0.1, 0.35), canvas.uniform(0.04, 0.14)
        house = np.maximum(np.abs(canvas.x - x) - width, np.abs(canvas.y - horizon) - height)
        windows = (
            (np.sin(90 * canvas.x) > 0.3) & (np.sin(70 * canvas.y) > 0.3) & (canvas.noise(12) > canvas.uniform(0, 2))
        )
        front = np.where(windows[..., None], glow, canvas.colour(land, 0.2, 0.5 * day))
        canvas.paint(front, canvas.cover(house))


def paint_lamp(canvas: Canvas, fire: list[Colour]) -> None:
    """A lamp or low sun runs through the colours of a flame, but is round."""
    radius = canvas.uniform(0.01, 0.03) if canvas.chance(0.7) else canvas.uniform(0.03, 0.08)
    away = np.hypot(canvas.x - canvas.uniform(0, 1), canvas.y - canvas.uniform(0, 0.8)) / np.float32(radius)
    canvas.paint(ramp(1.6 - away, fire), smoothstep(0.0, 1.0, 1.6 - away))
    canvas.image += (0.35 * np.exp(-0.6 * away))[..., None] * fire[1]


def paint_foliage(canvas: Canvas, fire: list[Colour], horizon: float) -> None:
    """Orange bushes, awnings, lit walls: the colour without the flow."""
    lit = canvas.fractal(3, 4) - 12 * np.maximum(np.float32(horizon - 0.05) - canvas.y, 0)
    tone = 0.32 + 0.16 * canvas.fractal(20, 3, 0.9)
    canvas.paint(ramp(tone, fire), np.float32(canvas.uniform(0.4, 0.9)) * smoothstep(1.3, 1.6, lit))


def make_heat(canvas: Canvas) -> tuple[Field, float]:
    """Return a field that is positive in the flames, and the height of their foot."""
    base = canvas.uniform(0.55, 0.95)
    centre, spread = canvas.uniform(0.25, 0.75), canvas.uniform(0.08, 0.4)
    up = np.float32(base) - canvas.y
    sway = 0.2 * canvas.noise(5, 3) * np.clip(up + 0.1, 0, 1) + 0.03 * canvas.fractal(7, 3)
    heat = np.full_like(sway, -9)
    for _ in range(int(canvas.rng.integers(2, 9))):
        x = centre + canvas.uniform(-1, 1) * spread
        width, t = (
            np.float32(canvas.uniform(0.06, 0.18)),
            up / np.float32(canvas.uniform(0.15, 0.7) * min(1.0, 0.5 + spread)),
        )
        girth = width * np.minimum(1.02 - t, 1 + 6 * t)  # negative above the tip and below the foot
        heat = np.maximum(heat, (girth - np.abs(canvas.x - np.float32(x) + sway)) / width)
    heat = np.clip(heat, -2, 0.6) + 0.2 * canvas.fractal(9, 5, 0.75) * smoothstep(-1.2, -0.2, heat)
    low, high = np.quantile(heat, [0.55, 0.96])
    return (heat - np.clip(0, low, high)).astype(np.float32), base


def paint_regions(canvas: Canvas) -> Mask:
    hue = canvas.uniform(0.3, 0.6) if canvas.chance(0.2) else canvas.uniform(0.06, 0.12)
    water = canvas.colour(hue, canvas.uniform(0.1, 0.4), canvas.uniform(0.4, 0.75))
    green = canvas.uniform(0.15, 0.36)
    soil = (0.55 * canvas.uniform(0.8, 1.2) * water + 0.45 * canvas.colour(0.09, 0.45, 0.45)).astype(np.float32)
    canvas.ground([canvas.colour(green, 0.45, 0.3), canvas.colour(green, 0.35, 0.5)], 3)
    rough = 1 + 0.14 * canvas.fractal(16, 4, 0.9)
    canvas.paint(soil * rough[..., None], smoothstep(0.3, 1.1, canvas.fractal(3, 5)))
    for _ in range(int(canvas.rng.integers(0, 3))):
        paint_field(canvas, soil)
    level = canvas.fractal(2, 6, 0.55) + canvas.uniform(0, 2.5) * (canvas.y - 0.5)
    sky = canvas.uniform(0.12, 0.35) if canvas.chance(0.45) else 0.0
    skyline = canvas.y - np.float32(sky) - 0.03 * canvas.fractal(4, 3)[:1]
    level = np.where(skyline < 0.02, np.float32(-9), level)
    shore = (level - np.quantile(level, 1 - canvas.uniform(0.2, 0.62))).astype(np.float32)
    canvas.paint(0.55 * soil, smoothstep(-0.25, 0, -np.abs(shore)))
    paint_water(canvas, water, shore)
    mask = shore > 0
    if sky:
        canvas.paint(water * (1.3 + 0.1 * canvas.fractal(2, 3))[..., None], canvas.cover(skyline, 0.005))
    leaves = canvas.fractal(18, 3, 0.9)
    for _ in range(int(canvas.rng.integers(4, 12))):
        paint_island(canvas, soil, green, sky, leaves, mask)
    return mask


def paint_field(canvas: Canvas, soil: Colour) -> None:
    """A road or a ploughed field in the water's colour, as smooth or as streaked as water is."""
    along, across = canvas.local(EVERYWHERE, canvas.uniform(0, 1), canvas.uniform(0, 1), canvas.uniform(0, np.pi))
    across = across + np.float32(canvas.uniform(-0.4, 0.4)) * along**2
    plot = np.maximum(np.abs(along) - canvas.uniform(0.15, 0.9), np.abs(across) - canvas.uniform(0.03, 0.16))
    furrows = canvas.uniform(0, 0.1) * np.sin(across * np.float32(canvas.uniform(60, 200)) + canvas.noise(4))
    tone = 1 + furrows + 0.13 * canvas.fractal(14, 4, 0.9)
    canvas.paint(soil * tone[..., None], canvas.cover(plot + 0.01 * canvas.noise(12), 0.005))


def paint_water(canvas: Canvas, water: Colour, shore: Field) -> None:
    waves = canvas.uniform(0.03, 0.12) * canvas.noise(48, 10) + 0.03 * canvas.noise(90, 24)
    sheen = canvas.uniform(0.05, 0.2) * canvas.noise(3, 2) + canvas.uniform(-0.4, 0.4) * (canvas.y - 0.5)
    # Water mirrors what stands on the far shore, stretched downwards.
    mirrored = ndimage.uniform_filter1d(canvas.image[::-1], max(canvas.size // 8, 1), axis=0)
    colour = 0.72 * water * (1 + waves + sheen)[..., None] + 0.28 * mirrored
    canvas.paint(colour, smoothstep(-0.02, 0.02, shore))


def paint_island(canvas: Canvas, soil: Colour, green: float, sky: float, leaves: Field, mask: Mask) -> None:
    """A roof, a car or a tree: where it stands in the water, it is a hole."""
    x, y = canvas.uniform(0, 1), canvas.uniform(max(sky, 0.05), 1)
    radius = canvas.uniform(0.02, 0.1) * (0.5 + y)
    at = canvas.window(x, y, 2.0 * radius)
    along, across = canvas.local(at, x, y, canvas.uniform(-0.5, 0.5))
    texture = leaves[at]
    if canvas.chance(0.5):
        thing = np.hypot(along, across) - np.float32(radius) + np.float32(0.3 * radius) * texture
        colour = canvas.colour(green, 0.45, 0.35) * np.maximum(1 + 0.3 * texture - 4 * across, 0.3)[..., None]
    else:
        thing = np.maximum(np.abs(along) - radius, np.abs(across) - radius * canvas.uniform(0.4, 0.9))
        tone = np.where(across < 0, np.float32(1.15), np.float32(0.8)) * (1 + 0.06 * texture)
        roof = soil if canvas.chance(0.4) else canvas.colour(canvas.uniform(0, 1), 0.3, 0.6)
        colour = roof * tone[..., None]
    canvas.paint(0.45 * soil, 0.6 * canvas.cover(thing - np.float32(0.15 * radius), 0.3 * radius), at)
    canvas.paint(colour, canvas.cover(thing), at)
    mask[at] &= thing >= 0


PAINTERS: dict[str, Callable[[Canvas], Mask]] = {
    "objects": paint_objects,
    "tools": paint_tools,
    "flames": paint_flames,
    "regions": paint_regions,
}
