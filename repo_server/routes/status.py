"""``POST /v1/status``: update log records, in the database before they are acknowledged (FR-STA-001, FR-LOG-001)."""

from __future__ import annotations

import asyncio
from datetime import datetime

import msgspec

from repo_server.core.errors import DeviceIdInvalid
from repo_server.core.expected import in_words
from repo_server.core.identity import normalise_device_id
from repo_server.core.instants import has_utc
from repo_server.core.wire import RejectedRecord, StatusRequest, StatusResponse, UpdateRecord
from repo_server.routes.context import Context, RecordsUnavailable
from repo_server.web.http import STATUS_BODY_BYTES, Call, HttpError, decode, method_not_allowed, require_json
from repo_server.web.pieces import NotInPieces, elements, members

PATH = "/v1/status"
RETRY_SECONDS = 60
MOST_ATTEMPTS = 20
"""Ids of attempts in one line of the audit."""

_decoder = msgspec.json.Decoder(StatusRequest)
_record_decoder = msgspec.json.Decoder(UpdateRecord)


class _OnlyId(msgspec.Struct):
    record_id: str | None = None


_id_decoder = msgspec.json.Decoder(_OnlyId)
_text_decoder = msgspec.json.Decoder(str)
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


async def status(context: Context, call: Call) -> None:
    """Store a batch; every record is accepted or rejected by itself."""
    if call.method != "POST":
        raise method_not_allowed("POST")
    context.guard.agent(call)
    require_json(call)
    request = await _understand(await call.body(STATUS_BODY_BYTES))
    try:
        device_id = normalise_device_id(request.device_id)
    except DeviceIdInvalid as error:
        raise HttpError(422, error.code, error.message) from None
    call.asked = {"device_id": device_id, "records": len(request.records)}
    context.traffic.limits.device(call.address, device_id, call.began)
    context.traffic.share(call, device_id)
    records, rejected = _read(request)
    if attempts := _attempts(records):
        call.asked["attempts"] = attempts
    if records:
        try:
            refused = await context.records.store(device_id, records, context.clock())
        except RecordsUnavailable as error:
            message = f"records cannot be stored now, keep them and send them again: {error}"
            raise HttpError(503, "database_unavailable", message, {"retry-after": str(RETRY_SECONDS)}) from None
        rejected += [RejectedRecord(str(item.record.record_id), item.code, item.message) for item in refused]
    gone = {item.record_id for item in rejected}
    accepted = dict.fromkeys(str(record.record_id) for record in records if str(record.record_id) not in gone)
    call.told = {"accepted": len(accepted), "rejected": [item.error_code for item in rejected]}
    await call.json(StatusResponse(tuple(accepted), tuple(rejected)))


async def _understand(body: bytes) -> StatusRequest:
    """Return the request, whose records need not even be JSON; raise ``HttpError`` 400 or 422 for the rest of it."""
    try:
        return decode(body, _decoder)
    except HttpError as error:
        if error.code != "malformed_json":
            raise
        # It may be one record only: half of a character, or nested too deeply. In a thread, for it takes its time.
        try:
            return await asyncio.to_thread(_in_pieces, body)
        except NotInPieces:
            raise error from None


def _in_pieces(body: bytes) -> StatusRequest:
    """Return the request with its records as they came; raise ``NotInPieces`` or ``HttpError``."""
    found = members(body)
    records = elements(found.get("records", b""))
    found["records"] = b"[%b]" % b",".join([b"0"] * len(records))
    whole = b"{%b}" % b",".join(b"%b:%b" % (msgspec.json.encode(name), value) for name, value in found.items())
    return msgspec.structs.replace(decode(whole, _decoder), records=tuple(map(msgspec.Raw, records)))


def _read(request: StatusRequest) -> tuple[list[UpdateRecord], list[RejectedRecord]]:
    """Decode each record by itself, so that a bad one does not hold up the others."""
    records: list[UpdateRecord] = []
    rejected: list[RejectedRecord] = []
    for raw in request.records:
        try:
            records.append(_within_calendar(_record_decoder.decode(raw)))
        except _UNREADABLE as error:
            rejected.append(RejectedRecord(_id_of(raw), "invalid_record", in_words(error, UpdateRecord)))
    return records, rejected


def _within_calendar(record: UpdateRecord) -> UpdateRecord:
    """Return a record whose times every list can show; raise ``msgspec.ValidationError``."""
    for name in ("attempt_timestamp", "completion_timestamp"):
        instant: datetime | None = getattr(record, name)
        if instant is not None and not has_utc(instant):
            raise msgspec.ValidationError(f"{name}: {instant.isoformat()} is not in the years 1 to 9999 of UTC")
    return record


def _attempts(records: list[UpdateRecord]) -> list[str]:
    """Return the ids under which the device's own log has these attempts, without repetition."""
    named = ((record.details or {}).get("attempt_id") for record in records)
    return list(dict.fromkeys(one[:64] for one in named if isinstance(one, str)))[:MOST_ATTEMPTS]


def _id_of(raw: msgspec.Raw) -> str | None:
    """Return the id of a record that cannot be read, as far as it has one that can."""
    try:
        found = _id_decoder.decode(raw).record_id
    except msgspec.ValidationError:
        return None
    except _UNREADABLE:
        try:
            found = _text_decoder.decode(members(bytes(raw)).get("record_id", b""))
        except (NotInPieces, *_UNREADABLE):
            return None
    return None if found is None else found[:128]
