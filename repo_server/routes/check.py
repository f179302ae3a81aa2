"""``POST /v1/check``: what is there for this device (FR-UPD-003, FR-SRV-001)."""

from __future__ import annotations

import msgspec

from repo_server.core.errors import DeviceIdInvalid, FormatError
from repo_server.core.identity import normalise_device_id
from repo_server.core.wire import CheckRequest, ComponentState
from repo_server.routes.context import Context
from repo_server.web.http import CHECK_BODY_BYTES, Call, HttpError, decode, method_not_allowed, not_ready, require_json

PATH = "/v1/check"
_decoder = msgspec.json.Decoder(CheckRequest)


class Asked(msgspec.Struct, frozen=True, gc=False):
    """A check's parameters in the audit (NFR-AUD-001)."""

    device_id: str | None
    os: str
    arch: str
    channel: str
    updater_version: str
    components: tuple[ComponentState, ...]


async def check(context: Context, call: Call) -> None:
    """Answer a device, and remember that it asked."""
    if call.method != "POST":
        raise method_not_allowed("POST")
    packages = _enter(context, call)
    request, device_id = _understand(context, call, await call.body(CHECK_BODY_BYTES))
    await call.answer(200, _decide(context, call, packages, request, device_id))


def answer_at_once(context: Context, call: Call, body: bytes) -> bytes:
    """Return the answer to a check whose body is there: ``check`` without anything to wait for (design §9)."""
    return _decide(context, call, _enter(context, call), *_understand(context, call, body))


def _enter(context: Context, call: Call) -> str:
    """Let an agent in by its headers alone; return what the URLs in its answer start with."""
    context.guard.agent(call)
    if not context.live.ready:
        raise not_ready()
    head = call.head
    if head is not None and head.derived is not None and head.derived[0] == call.scheme:
        packages: str = head.derived[1]
        return packages
    require_json(call)
    packages = context.packages_at(call)
    if head is not None:
        head.derived = call.scheme, packages
    return packages


def _understand(context: Context, call: Call, body: bytes) -> tuple[CheckRequest, str | None]:
    """Return what is asked and the normalised id of the device; a device that asks too often is refused."""
    request = decode(body, _decoder)
    device_id = None
    if request.device_id is not None:
        try:
            device_id = normalise_device_id(request.device_id)
        except DeviceIdInvalid as error:
            raise HttpError(422, error.code, error.message) from None
    call.asked = Asked(
        device_id, request.os, request.arch, request.release_channel, request.updater_version, request.components
    )
    if device_id is not None:
        context.traffic.limits.device(call.address, device_id, call.began)
    context.traffic.share(call, device_id)
    return request, device_id


def _decide(context: Context, call: Call, packages: str, request: CheckRequest, device_id: str | None) -> bytes:
    now = call.now = context.clock()
    try:
        answer = context.answers.answer(context.live.current, request, device_id, packages, now)
    except FormatError as error:
        raise HttpError(422, error.code, error.message) from None
    call.told = answer.offered
    context.traffic.requests.count_check(bool(answer.offered))
    if device_id is not None:
        previous = _previous(request, device_id) if request.previous_ids else ()
        context.check_ins.put(device_id, previous, request, answer.channel, now)
    return answer.body


def _previous(request: CheckRequest, device_id: str) -> tuple[str, ...]:
    """Return the device's former ids; one that is no id is passed over, for the check must not fail for it."""
    found = []
    for text in request.previous_ids:
        try:
            previous = normalise_device_id(text)
        except DeviceIdInvalid:
            continue
        if previous != device_id:
            found.append(previous)
    return tuple(found)
