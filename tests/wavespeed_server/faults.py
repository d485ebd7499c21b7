"""What can be scripted to go wrong, where, and how it looks on the wire.

`where` is an endpoint (service.KINDS), "any" of them, "connect" (the moment a connection is made) or "task" (what
becomes of an accepted submission). `what` is a name from WHATS or an HTTP status.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2

from .picture import decode, encode, png
from .service import KINDS
from .wire import Act, Reply, Request, Step, refusal

STATUSES = (202, 400, 401, 402, 403, 404, 409, 413, 415, 422, 429, 500, 502, 503, 504)
TASK_ERRORS = {
    1200: "Content flagged by moderation.",
    1400: "A required parameter is missing.",
    1401: "A parameter is invalid.",
    1402: "Failed to download image from the provided URL.",
    1403: "Task execution failed.",
    1405: "The task failed.",
    1406: "The task failed.",
    1407: "insufficient credits",
    5000: "Internal error.",
    5003: "The service is unavailable.",
    5004: "The task timed out.",
}
HTML = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>"
BOMB = 20000  # pixels a side
CLAIMED = 5 * 1024**3  # bytes

Match = str | Mapping[str, Any] | Callable[[Any], bool] | None


class NoSuchFault(ValueError):
    """The script asks for something that does not exist."""


@dataclass
class Fault:
    """One scripted event. `times` None is for ever; the first `after` requests that match are spared.

    `match` picks requests: a part of the path; a mapping that the JSON body (for "poll", "download" and "task" the
    prediction's inputs) must contain; or a function of that mapping. `accepted` says whether the service does what it
    was asked to all the same.
    """

    where: str
    what: str
    times: int | None
    after: int
    match: Match
    accepted: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    seen: int = 0
    used: int = 0

    def fits(self, path: str, values: Any) -> bool:
        """Whether a request at `path` with these values is meant."""
        if self.match is None:
            return True
        if isinstance(self.match, str):
            return self.match in path
        if not isinstance(values, Mapping):
            return False
        if isinstance(self.match, Mapping):
            return all(name in values and values[name] == value for name, value in self.match.items())
        return self.match(values)


def make(
    where: str,
    what: str | int,
    times: int | None = 1,
    after: int = 0,
    match: Match = None,
    accepted: bool | None = None,
    **options: Any,
) -> Fault:
    """A fault, checked: NoSuchFault names what would have been right."""
    name = str(what)
    kind = "status" if name.isdecimal() else name
    if name == "status" or (kind == "status" and int(name) not in STATUSES):
        raise NoSuchFault(f"HTTP status {name}: expected one of {STATUSES}")
    places = ("connect", "task", "any", *KINDS)
    if where not in places:
        raise NoSuchFault(f"where {where!r}: expected one of {places}")
    group = possible(where)
    if kind not in group:
        raise NoSuchFault(f"{where}: {name!r} cannot happen there, only {', '.join(group)}")
    known = group[kind]
    if extra := set(options) - set(known):
        raise NoSuchFault(f"{name}: no option {sorted(extra)}, only {list(known)}")
    if kind == "drop-unread" and match is not None and not isinstance(match, str):
        raise NoSuchFault("drop-unread happens before the body is read, so match can only be a part of the path")
    if accepted is not None and kind not in EITHER:
        raise NoSuchFault(f"{name}: accepted can only be chosen for {', '.join(EITHER)}")
    handled = kind not in NOT_HANDLED if accepted is None else accepted
    filled = {**known, **options, **({"status": int(name)} if kind == "status" else {})}
    return Fault(where, kind, times, after, match, handled, filled)


# Options by fault, with their defaults.
CONNECT: dict[str, dict[str, Any]] = {"drop": {}, "stall": {"seconds": 5.0}}
TASK: dict[str, dict[str, Any]] = {
    "fail": {"code": 5000, "error": None},  # status failed, inner code and sentence
    "nsfw": {"flags": [True]},  # has_nsfw_contents; a list of bool, repeated as needed
    "stuck": {},  # processing until server.finish()
    "unknown-status": {"status": "queued"},  # this word instead of processing
    "end": {"status": "cancelled"},  # ends with this word
    "seconds": {"seconds": 1.0},  # takes so long
}
WIRE: dict[str, dict[str, Any]] = {
    "drop-unread": {},  # closed when the head was read, the body was not
    "drop": {},  # request read, not handled, closed without a reply
    "drop-after": {},  # handled, closed without a reply
    "drop-amid": {},  # handled, closed in the middle of the reply's body
    "slow": {"seconds": 1.0},  # handled, answered so much later
    "late": {"seconds": 1.0},  # handled so much later, even if the client has gone by then
    "stall": {"seconds": 1.0},  # half the body, silence, the rest
    "trickle": {"seconds": 1.0},  # the body in twenty pieces over this time
    "status": {"retry_after": None, "message": None, "code": None, "html": False},
    "refuse": {"code": 1407, "status": 400, "message": None},  # envelope with a business code
    "redirect": {"to": None, "status": 302},  # to the other host, or to this URL
    "endless": {},  # a body without end, in chunks
    "huge": {},  # Content-Length 5 GB, and bytes to go with it
}
JSON: dict[str, dict[str, Any]] = {
    "not-json": {},
    "html": {},
    "empty": {},
    "null-data": {},
    "missing": {"fields": ["data"]},  # dotted paths to leave out
    "wrong-types": {},  # every value in data of another type
    "change": {"values": {}},  # dotted paths to new values, null too
    "no-inputs": {},  # list items without inputs
}
FABRICATED = ("not-json", "html", "empty")
EITHER = ("status", "refuse", *FABRICATED)  # what may come with or without the request having been handled
NOT_HANDLED = ("status", "refuse", "drop-unread", "drop", "redirect")  # unless told otherwise
PICTURE: dict[str, dict[str, Any]] = {
    "truncated": {},  # half a picture, whole for HTTP
    "other-size": {"size": [300, 260]},
    "gif": {},
    "noise": {},  # bytes that are no picture, called image/png
    "bomb": {},  # a PNG of 20000 x 20000 pixels in little more than 50 kB
}


def possible(where: str) -> dict[str, dict[str, Any]]:
    """The faults that can happen at a place, with their options and defaults."""
    if where in ("connect", "task"):
        return CONNECT if where == "connect" else TASK
    if where == "download":
        return {**WIRE, **PICTURE, **{name: {} for name in FABRICATED}}
    if where in ("any", "put", "uploaded"):
        return {**WIRE, **{name: {} for name in FABRICATED}}
    return {**WIRE, **JSON}


def before(fault: Fault, request: Request, other: str) -> Reply | list[Step] | None:
    """The answer when the request is not to be handled; None when it is. `other` is the other host's origin."""
    options = fault.options
    if fault.what in ("drop-unread", "drop"):
        return [Act.DROP]
    if fault.what == "redirect":
        return Reply(options["status"], b"", "text/html", {"Location": options["to"] or other + request.target})
    if fault.accepted:
        return None
    if fault.what in FABRICATED:
        return content(fault, Reply(200, b""))
    return refused(fault)


def refused(fault: Fault) -> Reply | None:
    """The error reply of a "status" or "refuse" fault."""
    options = fault.options
    if fault.what == "refuse":
        code = options["code"]
        return refusal(options["status"], options["message"] or TASK_ERRORS.get(code, "refused"), code)
    if fault.what != "status":
        return None
    if options["html"]:
        return Reply(options["status"], HTML, "text/html")
    wait = options["retry_after"]
    headers = {} if wait is None else {"Retry-After": str(wait)}
    return refusal(options["status"], options["message"] or "scripted", options["code"], headers)


def content(fault: Fault, reply: Reply) -> Reply:
    """The reply with other content."""
    what, options = fault.what, fault.options
    if what == "html":
        return Reply(200, HTML, "text/html")
    if what == "empty":
        return Reply(reply.status, b"", reply.content_type)
    if what == "not-json":
        return Reply(200, b'{"code": 200, "message": "success", "data": {"id": ')
    if what in PICTURE:
        return _picture(what, options, reply)
    if what in JSON:
        return Reply(reply.status, _json(what, options, reply.body), headers=reply.headers)
    return refused(fault) or reply


def steps(fault: Fault | None, reply: Reply) -> list[Step]:
    """How the reply goes out."""
    what = fault.what if fault else ""
    seconds = float(fault.options.get("seconds", 0.0)) if fault else 0.0
    head, body = reply.head(len(reply.body)), reply.body
    whole = head + body
    half = len(head) + len(body) // 2 if body else len(head) // 2
    if what == "drop-after":
        return [Act.DROP]
    if what == "drop-amid":
        return [whole[:half], 0.01, Act.DROP]  # lets the half arrive before the reset
    if what == "slow":
        return [seconds, whole]
    if what == "stall":
        return [whole[:half], seconds, whole[half:]]
    if what == "trickle":
        piece = max(1, -(-len(body) // 20))
        pieces = [body[at : at + piece] for at in range(0, len(body), piece)]
        return [head, *(step for one in pieces for step in (seconds / len(pieces), one))]
    if what == "endless":
        return [reply.head(None), b"%x\r\n%s\r\n" % (len(body), body) if body else b"", Act.ENDLESS_CHUNKS]
    if what == "huge":
        return [reply.head(CLAIMED) + body, Act.ENDLESS]
    return reply.steps()


def task_options(fault: Fault | None) -> dict[str, Any]:
    """What the service needs to know of a "task" fault."""
    if fault is None:
        return {}
    what, options = fault.what, fault.options
    if what == "fail":
        return {"code": options["code"], "error": options["error"] or TASK_ERRORS.get(options["code"], "")}
    if what == "end":
        return {"end": options["status"]}
    return {"stuck": True} if what == "stuck" else dict(options)


def _json(what: str, options: Mapping[str, Any], body: bytes) -> bytes:
    value = json.loads(body)
    if what == "null-data":
        value["data"] = None
    elif what == "missing":
        for path in options["fields"]:
            place, name = _place(value, path)
            del place[name]
    elif what == "change":
        for path, new in options["values"].items():
            place, name = _place(value, path)
            place[name] = new
    elif what == "no-inputs":
        for item in value["data"].get("items", []):
            item.pop("inputs", None)
    elif isinstance(value["data"], dict):
        value["data"] = {name: _otherwise(one) for name, one in value["data"].items()}
    else:
        value["data"] = "wrong"
    return json.dumps(value).encode()


def _place(value: Any, path: str) -> tuple[Any, Any]:
    """The container and key or index that a dotted path like "data.outputs.0" names."""
    *outer, last = path.split(".")
    for name in outer:
        value = value[int(name) if isinstance(value, list) else name]
    return value, int(last) if isinstance(value, list) else last


def _otherwise(value: object) -> object:
    return {"wrong": value} if isinstance(value, (int, float)) else 7 if isinstance(value, (str, list)) else "wrong"


def _picture(what: str, options: Mapping[str, Any], reply: Reply) -> Reply:
    if what == "truncated":
        return Reply(200, reply.body[: len(reply.body) // 2], reply.content_type)
    if what == "noise":
        return Reply(200, b"\x00\x01\x02 no picture at all " * 50, "image/png")
    if what == "bomb":
        return Reply(200, _bomb(), "image/png")
    picture = decode(reply.body)
    if what == "gif":
        return Reply(200, bytes(cv2.imencode(".gif", picture)[1]), "image/gif")
    width, height = options["size"]
    return Reply(200, encode(cv2.resize(picture, (width, height)), "png"), "image/png")


def _bomb() -> bytes:
    """A valid one-bit PNG of BOMB x BOMB pixels."""
    press = zlib.compressobj(9)
    row = bytes(1 + BOMB // 8) * 100
    pixels = b"".join(press.compress(row) for _ in range(BOMB // 100)) + press.flush()
    return png(BOMB, BOMB, 1, 0, pixels)
