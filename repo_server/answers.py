"""The answer to a check: the core's decision in the words of the wire, remembered as bytes (design §9, FR-SRV-001)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias
from urllib.parse import quote

import msgspec

from repo_server.core.channels import AssignedChannel
from repo_server.core.model import Channel, Release
from repo_server.core.offer import Decision, Offer, Reason, decide
from repo_server.core.policy import ChannelPolicy
from repo_server.core.wire import (
    CheckRequest,
    CheckResponse,
    ComponentState,
    Dependency,
    ReasonEntry,
    SignatureEntry,
    Update,
    device_of,
)
from repo_server.tree.live import Snapshot

PACKAGES = "/v1/packages/"
MAX_REMEMBERED = 8192
"""Different answers; a fleet has few: platforms times channels times versions in use."""
_MOST_COMPONENTS = 16
"""Of a remembered answer; a request of many made-up ones is as long as it likes, and must not fill the memory."""

_Key: TypeAlias = tuple[str, str, str, str, tuple[ComponentState, ...], tuple[Channel | None, ...]]
_encoder = msgspec.json.Encoder()


class Answer(msgspec.Struct, frozen=True, gc=False):
    """An answer to a check."""

    body: bytes
    offered: msgspec.Raw | None
    """Names and versions in the answer, as JSON for the audit (NFR-AUD-001); ``None``: nothing is offered."""
    channel: AssignedChannel


class _Offered(msgspec.Struct, frozen=True, gc=False):
    name: str
    version: str
    action: str


@dataclass(slots=True)
class Answers:
    """Makes answers, and remembers those that do not depend on the device's id or the time."""

    next_check_seconds: int
    _generation: int = 0
    _remembered: dict[_Key, Answer] = field(default_factory=dict)

    def answer(
        self, snapshot: Snapshot, request: CheckRequest, device_id: str | None, packages: str, now: datetime
    ) -> Answer:
        """Return the response; raise ``RequestInvalid`` or ``DeviceIdInvalid``.

        ``device_id`` is normalised; ``packages`` is what the URLs of release files start with.
        """
        if snapshot.generation != self._generation:
            self._generation = snapshot.generation
            self._remembered = {}
        key: _Key = (
            packages,
            request.os,
            request.arch,
            request.release_channel,
            request.components,
            _assignments(snapshot.catalogue.policy, request, device_id),
        )
        known = self._remembered.get(key)
        if known is not None:
            return known
        decision = decide(snapshot.catalogue, device_of(request), now)
        body = _encoder.encode(response(decision, packages, self.next_check_seconds, snapshot.generation))
        answer = Answer(body, _summary(decision), decision.channel)
        if decision.universal and len(request.components) <= _MOST_COMPONENTS:
            if len(self._remembered) >= MAX_REMEMBERED:
                # Something unusual is going on (hostile Hosts, say); starting again costs one decision per answer.
                self._remembered = {}
            self._remembered[key] = answer
        return answer


def _summary(decision: Decision) -> msgspec.Raw | None:
    offers = [_Offered(offer.release.component, offer.release.version.text, offer.action) for offer in decision.offers]
    return msgspec.Raw(_encoder.encode(offers)) if offers else None


def _assignments(policy: ChannelPolicy, request: CheckRequest, device_id: str | None) -> tuple[Channel | None, ...]:
    """Return what the policy says of this device, so that devices of equal assignments share an answer."""
    if not policy.devices and not policy.sites and not policy.organisations:
        return ()
    return (
        policy.devices.get(device_id or ""),
        policy.sites.get((request.site_id or "").strip().lower()),
        policy.organisations.get((request.org_id or "").strip().lower()),
    )


def response(decision: Decision, packages: str, next_check_seconds: int, generation: int) -> CheckResponse:
    """Put a decision into the words of the wire."""
    return CheckResponse(
        updates=tuple(_update(offer, packages) for offer in decision.offers),
        channel=decision.channel.channel,
        channel_source=decision.channel.source,
        reasons=tuple(reason_entry(reason) for reason in decision.reasons),
        next_check_seconds=next_check_seconds,
        catalogue=generation,
    )


def reason_entry(reason: Reason) -> ReasonEntry:
    """Put a reason into the words of the wire."""
    return ReasonEntry(reason.component, reason.code, reason.detail, reason.changes_at)


def download_url(release: Release, packages: str) -> str:
    """Return the absolute URL of a release file."""
    return f"{packages}{quote(release.path)}"


def _update(offer: Offer, packages: str) -> Update:
    release = offer.release
    first = release.signatures[0]
    return Update(
        name=release.component,
        version=release.version.text,
        url=download_url(release, packages),
        hash_sha256=release.sha256,
        signature=first.signature,
        key_id=first.key_id,
        size=release.size,
        signatures=tuple(SignatureEntry(item.key_id, item.signature) for item in release.signatures),
        action=offer.action,
        dependencies=tuple(Dependency(item.name, item.min_version.text) for item in release.requires),
        path=release.path,
        release_notes_url=release.meta.release_notes_url,
    )
