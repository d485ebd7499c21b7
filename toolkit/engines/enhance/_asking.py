"""How a model that writes is asked for the prompt of a hole."""

from __future__ import annotations

import cv2
import numpy as np

from toolkit.engines import Bytes, EnhanceJob

LONGEST = 768
"""Longest side of a picture that is sent, in pixels."""

ORDERS = (
    "You write prompts for an inpainting model. It is given a photo with a hole in it and repaints the hole only; the "
    "prompt says what is to be seen in the hole. Rewrite the user's prompt for it, in English, as one sentence of at "
    "most 60 words. Say what the thing itself looks like, how large it is in the hole, and that light, colours, "
    "sharpness and grain are those of its surroundings. Keep everything the user asks for. Add no other things, do not "
    "describe the rest of the photo, and write no instructions such as 'add' or 'remove'. Answer with the prompt alone."
)


def question(job: EnhanceJob, pictured: bool) -> str:
    """The user's prompt and what is known of the hole."""
    shown = " The picture shows the hole in plain grey, with what lies around it." if pictured else ""
    return f"Prompt: {job.prompt}\nHole: {job.surroundings.text}{shown}"


def picture_file(job: EnhanceJob, suffix: str) -> bytes:
    """The hole's neighbourhood as a JPEG or PNG file with nothing in it but the pixels."""
    picture: Bytes = job.picture
    height, width = picture.shape[:2]
    scale = LONGEST / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    return cv2.imencode(suffix, np.ascontiguousarray(picture[..., ::-1]))[1].tobytes()
