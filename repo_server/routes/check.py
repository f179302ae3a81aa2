"""``POST /v1/check``: what is there for this device (FR-UPD-003, FR-SRV-001)."""

from __future__ import annotations

import msgspec

from repo_server.core.errors import DeviceIdInvalid, FormatError
from repo_server.core.identity import normalise_device_id
from repo_server.core.wire import CheckRequest
from repo_server.http import CHECK_BODY_BYTES, Call, HttpError, decode, method_not_allowed, not_ready, require_json
from repo_server.routes.context import Context

PATH = "/v1/check"
_decoder = msgspec.json.Decoder(CheckRequest)


async def check(context: Context, call: Call) -> None:
    """Answer a device, and remember that it asked."""
    if call.method != "POST":
        raise method_not_allowed("POST")
    context.guard.agent(call)
    if not context.live.ready:
        raise not_ready()
    require_json(call)
    base = call.base(context.base_url)
    request = decode(await call.body(CHECK_BODY_BYTES), _decoder)
    now = context.clock()
    try:
        device_id = None if request.device_id is None else normalise_device_id(request.device_id)
        body = context.answers.answer(context.live.current, request, device_id, base, now)
    except FormatError as error:
        raise HttpError(422, error.code, error.message) from None
    if device_id is not None:
        previous = _previous(request, device_id) if request.previous_ids else ()
        context.check_ins.put(device_id, previous, request, now)
    await call.answer(200, body)


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
