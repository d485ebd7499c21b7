"""The main subject of a product photo, without a prompt: what stands on the ground that the photo's edge shows.

Two ways to propose it. On paper or another smooth ground (see `_paper`) the subject is what cannot be reached from the
edge through sheet and soft shadow; GrabCut on a copy of the subject alone then settles a band along the outline.
In a scene it is the object in the box around what differs in colour from the edge and is walled off from it.

Sources: Zhang, Sclaroff: Boolean Map Saliency, 2013; Rother, Kolmogorov, Blake: GrabCut, 2004 (OpenCV's).
Pure functions of arrays; OpenCV's random generator of the calling thread is seeded before each use.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from toolkit.engines.segment._box import Selection, context_for, select_box
from toolkit.engines.segment._paper import Float, Sheet, fit_sheet, frame, reached
from toolkit.engines.segment._refine import settled
from toolkit.engines.segment.edge import Binary, Pixels, enlarged, without_holes
from toolkit.errors import ParameterError
from toolkit.geometry import Box, Size

SIDE = 320  # the longer side on which the subject is looked for
CLOSE = 320  # the longer side of the copy on which its outline is settled
STRICT, LENIENT = 4.5, 9.0  # units of noise up to which the ground may differ from the sheet
CRISP = 0.9  # share of an outline along edges that leaves no doubt
MIDDLE = 128  # of features: the sheet's own
QUIET = 0.012  # noise of a sheet; a ground above it is a scene
NOTHING = "nothing stands out from the background, so the middle of the photo was taken"
LEAST, MOST = 0.003, 0.9  # shares of the photo; a mask beyond them has told nothing apart


def select_subject(pixels: Pixels, seed: int = 0) -> Selection:
    """Select the main subject of a whole photo.

    Args:
        pixels: (h, w, 3) uint8 sRGB.
        seed: of the colour clustering.

    Returns:
        A mask that is never empty. Holes through which the ground is seen are not selected. The confidence is near 1
        for a subject with clear edges on a plain ground and below 0.5, with a reason, where the photo shows no clear
        subject.

    Raises:
        ParameterError: when the array has another form.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise ParameterError(f"pixels: must be (h, w, 3) uint8, got {pixels.shape} {pixels.dtype}")
    whole = Box.of_size((pixels.shape[1], pixels.shape[0]))
    small = _reduced(pixels, SIDE)
    if min(small.shape[:2]) < 8:
        return _middle(whole)
    sheet = fit_sheet(small)
    ground, strip = _ground(sheet, sheet.strange, STRICT), frame(small.shape)
    plain = sheet.noise < QUIET and float(ground[strip].mean()) > 0.5
    guess = _stronger(sheet, ground, seed) if plain else _in_scene(small, strip, seed)
    if guess is None or not LEAST * guess.size <= _count(guess) <= MOST * guess.size:
        return _middle(whole)
    full, doubts = (_outline(pixels, small, guess, seed), {}) if plain else _boxed(pixels, guess, seed)
    doubts["the subject lies along the photo's edge"] = float(np.clip(1.25 - 1.5 * guess[strip].mean(), 0, 1))
    if plain:
        doubts["there is hardly an edge along the outline"] = _support(sheet, guess)
    if not full.any():
        return _middle(whole)
    full.flags.writeable = False
    confidence = math.prod(doubts.values())
    confidence = round(math.sqrt(confidence) if plain else confidence, 4)
    return Selection(full, confidence, "" if confidence >= 0.5 else min(doubts, key=lambda reason: doubts[reason]))


def _outline(pixels: Pixels, small: Pixels, guess: Binary, seed: int) -> Pixels:
    """The mask at full size, (h, w) uint8, its outline settled on a copy of the subject alone."""
    whole = Box.of_size((pixels.shape[1], pixels.shape[0]))
    x_scale, y_scale = whole.width / small.shape[1], whole.height / small.shape[0]
    bounds = Box(*_bounds(guess))
    margin = round(0.06 * max(bounds.size)) + 6
    near = bounds.grow(margin, margin).intersect(Box.of_size((small.shape[1], small.shape[0])))
    crop = _scaled(near, x_scale, y_scale).intersect(whole)
    part = pixels[crop.slices]
    close = _reduced(part, CLOSE)
    across, down = crop.width / close.shape[1] / x_scale, crop.height / close.shape[0] / y_scale
    to_small = np.array([
        [across, 0, crop.left / x_scale + across / 2 - 0.5], [0, down, crop.top / y_scale + down / 2 - 0.5],
    ])  # fmt: skip
    enlarged_guess = cv2.warpAffine(
        guess.astype(np.float32), to_small, (close.shape[1], close.shape[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    outline = _sharpened(close, enlarged_guess > 0.5, close.shape[1] / near.width, seed)
    full = np.zeros(pixels.shape[:2], np.uint8)
    full[crop.slices][enlarged(part, close, outline)] = 255
    return full


def _boxed(pixels: Pixels, guess: Binary, seed: int) -> tuple[Pixels, dict[str, float]]:
    """In a scene: the object in the box around the guess, and the causes for doubt."""
    whole = Box.of_size((pixels.shape[1], pixels.shape[0]))
    box = _scaled(Box(*_bounds(guess)), whole.width / guess.shape[1], whole.height / guess.shape[0]).intersect(whole)
    window = context_for(box, whole)
    found = select_box(np.ascontiguousarray(pixels[window.slices]), box.within(window), seed=seed)
    full = np.zeros(pixels.shape[:2], np.uint8)
    full[window.slices] = found.mask
    again = cv2.resize(full, (guess.shape[1], guess.shape[0]), interpolation=cv2.INTER_AREA) > 127
    agreement = _count(again & guess) / max(1, _count(again | guess))
    parts = cv2.connectedComponentsWithStats(guess.astype(np.uint8), connectivity=8)[2][1:, cv2.CC_STAT_AREA]
    return full, {
        "the background is not plain, and several things stand out from it": float(parts.max() / parts.sum()),
        "the background is not plain, and two ways to find the subject disagree": agreement,
        "the background is not plain, and the subject hardly differs from it": found.confidence,
    }


def _scaled(box: Box, x_scale: float, y_scale: float) -> Box:
    return Box(
        int(box.left * x_scale), int(box.top * y_scale), math.ceil(box.right * x_scale), math.ceil(box.bottom * y_scale)
    )


def _ground(sheet: Sheet, strangeness: Float, limit: float) -> Binary:
    """What can be reached from the photo's edge over pixels of less than `limit`."""
    free = reached(strangeness < limit, sheet.frame)
    wide = cv2.morphologyEx(free.astype(np.uint8), cv2.MORPH_OPEN, _disc(2)) > 0  # no leaks through narrow gaps
    ground = reached(wide | (free & sheet.frame), sheet.frame)
    for _ in range(2):  # and back into the corners that this has rounded off
        ground = ground | ((cv2.dilate(ground.astype(np.uint8), _disc(1)) > 0) & free)
    return ground


def _stronger(sheet: Sheet, ground: Binary, seed: int) -> Binary | None:
    """The subject on `ground`, or on a ground allowed to differ more where that outline follows sharper edges."""
    strict = best = _on_sheet(sheet, ground, seed)
    if strict is None or not strict.any() or _support(sheet, strict) > CRISP:
        return strict
    highest = 0.0
    for strangeness, limit in ((sheet.strange, LENIENT), (sheet.broken, STRICT)):
        mask = _on_sheet(sheet, _ground(sheet, strangeness, limit) | ground, seed)
        if mask is None:
            continue
        # What is lost may be shadow and cast colour, which are smooth; if it is much, or textured, it is the subject.
        lost = cv2.morphologyEx((strict & ~mask).astype(np.uint8), cv2.MORPH_OPEN, _disc(2)) > 0
        smooth = not lost.any() or float(np.median(sheet.broken[lost])) < STRICT
        support, kept = _support(sheet, mask), _count(mask) / _count(strict)
        if support > CRISP and kept > (0.75 if smooth else 0.95) and support * kept > highest:
            best, highest = mask, support * kept
    return best


def _on_sheet(sheet: Sheet, ground: Binary, seed: int) -> Binary | None:
    """The subject on `ground`: a graph cut between where it lies and what colours it and the ground have."""
    beyond = ~ground
    if _count(beyond) < 20 or _count(ground) < 20:
        return None
    holes = _holes(sheet, ground)
    depth = cv2.distanceTransform(beyond.astype(np.uint8), cv2.DIST_L2, 5)
    belief = np.where(beyond, np.clip(0.6 * (depth - 3), -0.3, 4), -3)
    belief[holes] = -1
    part = Box(*_bounds(beyond)).grow(4, 4).intersect(Box.of_size((ground.shape[1], ground.shape[0]))).slices
    sure = (depth > 3) & ~holes
    inside, outside = (_some(sheet.features, where) for where in (sure, ground))
    belief[part] += np.clip(_likelier(sheet.features[part], inside, outside, seed), -3, 3)
    mask = np.zeros_like(ground)
    mask[part] = _cut(sheet.features[part], belief[part])
    return _tidy(mask)


def _holes(sheet: Sheet, ground: Binary) -> Binary:
    """Enclosed parts that look like sheet, lit or in shade, with nothing on them.

    A part with something printed on it is a surface of the subject: ground seen through a hole is bare.
    """
    free = ((sheet.strange < STRICT) & ~ground).astype(np.uint8)
    free = np.asarray(cv2.morphologyEx(free, cv2.MORPH_OPEN, _disc(1)), np.uint8)
    holes = np.zeros_like(free)
    outlines, tree = cv2.findContours(free, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for number, outline in enumerate(outlines):
        if tree[0, number, 3] >= 0:  # the rim of something on the part above
            continue
        inner, marks = tree[0, number, 2], 0.0
        while inner >= 0:
            marks, inner = marks + cv2.contourArea(outlines[inner]), tree[0, inner, 0]
        if marks < 0.03 * cv2.contourArea(outline):
            cv2.drawContours(holes, outlines, number, 1, cv2.FILLED)
    return np.asarray(holes & free, bool)


def _some(features: Pixels, where: Binary) -> Float:
    """The features of about 3000 of the pixels that are set, (n, 3)."""
    places = np.flatnonzero(where)
    return features.reshape(-1, 3)[places[:: max(1, len(places) // 3000)]].astype(np.float32)


def _likelier(features: Pixels, inside: Float, outside: Float, seed: int) -> Float:
    """By how much the colours `inside` (n, 3) explain a pixel better than those `outside`, as a log ratio."""
    terms, logs = _terms(features.reshape(-1, 3).astype(np.float32)), []
    for sample, least in ((inside, -14.0), (outside, -24.0)):  # unseen colours: rather the subject's than the sheet's
        if len(sample) < 30:
            return np.zeros(features.shape[:2], np.float32)
        logs.append(np.maximum(_mixture(terms, sample, seed), least))
    return np.asarray(logs[0] - logs[1], np.float32).reshape(features.shape[:2])


def _terms(values: Float) -> Float:
    """What a quadratic function of each of `values` (n, 3) is a sum of, (10, n): squares, products, values, 1."""
    x, y, z = np.ascontiguousarray(values.T) - np.float32(MIDDLE)
    return np.stack([x * x, y * y, z * z, x * y, x * z, y * z, x, y, z, np.ones_like(x)])


def _mixture(terms: Float, sample: Float, seed: int) -> Float:
    """The log density at each of `terms` (10, n) of the likeliest of five normal distributions fitted to (m, 3)."""
    cv2.setRNGSeed(seed & 0x7FFFFFFF)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 15, 0.5)
    labels = cv2.kmeans(sample, 5, np.zeros((0,), np.int32), stop, 1, cv2.KMEANS_PP_CENTERS)[1][:, 0]
    factors = []
    for members in (sample[labels == number] for number in range(5)):
        if len(members) < 5:
            continue
        spread = np.cov(members.T) + 6 * np.eye(3)
        inverse, mean = np.linalg.inv(spread), members.mean(0) - MIDDLE
        (xx, xy, xz), (_, yy, yz), (_, _, zz) = inverse
        share = math.log(len(members) / len(sample)) - 0.5 * np.linalg.slogdet(spread)[1]
        linear = inverse @ mean
        factors.append([
            -xx / 2, -yy / 2, -zz / 2, -xy, -xz, -yz, *linear, share - 0.5 * (mean @ linear),
        ])  # fmt: skip
    return np.asarray((np.asarray(factors, np.float32) @ terms).max(0), np.float32)


def _cut(features: Pixels, belief: npt.NDArray[np.floating]) -> Binary:
    """The least graph cut for a log odds at each pixel; cuts along steps of `features` are cheap.

    OpenCV's GrabCut with colour models that are not learnt: the first channel carries the log odds, and two normal
    distributions of equal spread turn it into costs.
    """
    scale = 6.0
    carried = np.clip(np.rint(64 + scale * belief), 0, 128)
    picture = np.dstack([carried, features[..., 0], features[..., 1]]).astype(np.uint8)
    models = []
    for mean in (48, 80):
        model = np.zeros((1, 65))
        model[0, 0] = 1
        model[0, 5:8] = mean, 128, 128
        model[0, 20:] = np.tile(np.eye(3).ravel(), 5)
        model[0, 20:29] = np.diag([16 * scale, 1e6, 1e6]).ravel()
        models.append(model)
    labels = np.where(belief > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    cv2.grabCut(picture, labels, (0, 0, 1, 1), models[0], models[1], 1, cv2.GC_EVAL_FREEZE_MODEL)
    return np.asarray(labels & 1, bool)


def _in_scene(small: Pixels, strip: Binary, seed: int) -> Binary:
    """What differs from the colours along the photo's edge and is walled off from it, sharpened by GrabCut."""
    lab = np.asarray(cv2.cvtColor(cv2.GaussianBlur(small, (0, 0), 1), cv2.COLOR_RGB2LAB), np.uint8)
    differs, walled = _unlike(lab, strip, seed), _walled(lab)
    score = sum(np.clip(values / max(1e-6, float(np.percentile(values, 99))), 0, 1) for values in (differs, walled))
    levels = np.clip(255 * score / max(1e-6, float(np.percentile(score, 99.5))), 0, 255).astype(np.uint8)
    threshold = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[0]
    labels = np.where(levels > threshold, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    core = cv2.erode((levels > min(250, 1.5 * threshold)).astype(np.uint8), np.ones((5, 5), np.uint8))
    labels[core > 0] = cv2.GC_FGD
    labels[levels < 0.35 * threshold] = cv2.GC_BGD
    return _tidy(_grabcut(small, labels, seed))


def _unlike(lab: Pixels, strip: Binary, seed: int) -> Float:
    """The distance of each pixel to the nearest of the colours common along the edge, in their spreads."""
    sample = lab[strip].astype(np.float32)
    cv2.setRNGSeed(seed & 0x7FFFFFFF)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.5)
    labels = cv2.kmeans(sample, 4, np.zeros((0,), np.int32), stop, 2, cv2.KMEANS_PP_CENTERS)[1][:, 0]
    best = np.full(lab.shape[:2], np.inf, np.float32)
    for members in (sample[labels == number] for number in range(4)):
        if len(members) < max(4, 0.08 * len(sample)):  # a subject that touches the edge
            continue
        away = lab - members.mean(0)
        best = np.minimum(best, (away @ np.linalg.inv(np.cov(members.T) + 4 * np.eye(3)) * away).sum(-1))
    return np.sqrt(best)


def _walled(lab: Pixels) -> Float:
    """By how many levels a pixel is walled off from the photo's edge, in the channel where that is most."""
    most = np.zeros(lab.shape[:2], np.float32)
    for channel in cv2.split(lab):
        low, high = int(channel.min()), int(channel.max())
        step = max(1, (high - low) // 24)
        total = np.zeros_like(most)
        for level in range(low + step, high, step):
            for side in (channel >= level, channel < level):
                count, parts = cv2.connectedComponents(side.astype(np.uint8), connectivity=4)[:2]
                inner = np.ones(count, bool)
                inner[np.unique(np.concatenate((parts[0], parts[-1], parts[:, 0], parts[:, -1])))] = False
                inner[0] = False
                total[inner[parts]] += step
        most = np.maximum(most, total)
    return most


def _sharpened(close: Pixels, guess: Binary, pixel: float, seed: int) -> Binary:
    """Settle a band of four small pixels inside and two outside the outline by GrabCut, then by what looks alike."""
    labels = np.where(guess, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[cv2.erode(guess.astype(np.uint8), _disc(round(4 * pixel))) > 0] = cv2.GC_FGD
    labels[cv2.dilate(guess.astype(np.uint8), _disc(round(2 * pixel))) == 0] = cv2.GC_BGD
    cut = _tidy(_grabcut(close, labels, seed, 2))
    return settled(close, cut if _count(cut) > 0.5 * _count(guess) else guess)


def _grabcut(small: Pixels, labels: Pixels, seed: int, iterations: int = 3) -> Binary:
    """Run GrabCut; the guess itself comes back where a class has too few pixels for its five colours."""
    if 10 <= _count(labels & 1) <= labels.size - 10:
        cv2.setRNGSeed(seed & 0x7FFFFFFF)
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(small, labels, (0, 0, 1, 1), *models, iterations, cv2.GC_INIT_WITH_MASK)
    return np.asarray(labels & 1, bool)


def _tidy(mask: Binary) -> Binary:
    """Without parts smaller than a tenth of the largest and holes below 0.05 % of the picture."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    area = stats[:, cv2.CC_STAT_AREA].copy()
    area[0] = 0
    return without_holes(((area > 0) & (area >= 0.1 * area.max()))[parts], 0.0005 * mask.size)


def _support(sheet: Sheet, mask: Binary) -> float:
    """The share of the outline that runs along a sharp edge of the picture."""
    one = mask.astype(np.uint8)
    outline = cv2.dilate(one, _disc(1)) != cv2.erode(one, _disc(1))
    return float((cv2.dilate(sheet.sharpness, _disc(1))[outline] > 6).mean()) if outline.any() else 0.0


def _middle(whole: Box) -> Selection:
    """What stands in when nothing was found: an ellipse over the middle half of the photo."""
    y, x = np.ogrid[: whole.height, : whole.width]
    across, down = (2 * x + 1) / whole.width - 1, (2 * y + 1) / whole.height - 1
    mask = np.where(across.astype(np.float32) ** 2 + down.astype(np.float32) ** 2 <= 0.5, 255, 0).astype(np.uint8)
    mask[whole.height // 2, whole.width // 2] = 255
    mask.flags.writeable = False
    return Selection(mask, 0.1, NOTHING)


def _reduced(part: Pixels, side: int) -> Pixels:
    factor = min(1.0, side / max(part.shape[:2]))
    size = Size(max(1, round(part.shape[1] * factor)), max(1, round(part.shape[0] * factor)))
    return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)


def _disc(radius: int) -> Pixels:
    side = 2 * radius + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def _count(mask: npt.NDArray[np.generic]) -> int:
    return int(np.count_nonzero(mask))


def _bounds(mask: Binary) -> tuple[int, int, int, int]:
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return left, top, left + width, top + height
