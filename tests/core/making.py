"""Values for the tests of the core: short builders for tables, strategies for properties."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from repo_server.core.catalogue import Catalogue
from repo_server.core.errors import FormatError
from repo_server.core.model import (
    Arch,
    Block,
    Channel,
    Device,
    Installed,
    Meta,
    Os,
    Platform,
    Release,
    ReleaseId,
    ReleaseSignature,
    Requirement,
    Rollout,
)
from repo_server.core.policy import ChannelPolicy, TreeConfig
from repo_server.core.version import Version

LINUX = Platform(Os.LINUX, Arch.AMD64)
ARM = Platform(Os.LINUX, Arch.ARM64)
MAC = Platform(Os.MACOS, Arch.ARM64)
NOW = datetime(2026, 11, 21, 18, tzinfo=UTC)
HOUR = timedelta(hours=1)
NOBODY = Rollout(NOW - HOUR, 0.0, 0.0)
EVERYBODY = Rollout(NOW - HOUR, 1.0, 1.0)
PAUSED = Rollout(NOW - HOUR, 1.0, 1.0, paused=True)
HALTED = replace(PAUSED, halted=True)
TOMORROW = Rollout(NOW + 24 * HOUR, 1.0, 1.0)
START = b'"start": "2026-11-21T18:00:00Z"'
DEVICE_ID = "0b1c2d3e-4f50-4a6b-8c7d-9e0f1a2b3c4d"
SIGNATURE = ReleaseSignature("ab" * 32, "MEUC")


def refusal(parse: Callable[..., object], *args: object) -> str | None:
    """Return the code with which outside data is refused, ``None`` if it is not; anything else raised is a bug."""
    try:
        parse(*args)
    except FormatError as error:
        return error.code
    return None


def needs(*texts: str) -> Meta:
    """Return what a ``.meta`` with requirements like ``"probe >= 1.0.0"`` says."""
    pairs = [text.split(" >= ") for text in texts]
    return Meta(requires=tuple(Requirement(name, Version(version)) for name, version in pairs))


def release(
    component: str,
    version: str,
    *requires: str,
    platform: Platform = LINUX,
    channel: Channel | str = Channel.STABLE,
    rollout: Rollout | None = None,
    blocked: str | None = None,
    folder: str = "",
    extension: str = ".tar.gz",
) -> Release:
    """Return a release; its path is the one that its name gives it."""
    identity = ReleaseId(component, Version(version), platform)
    return Release(
        id=identity,
        path=f"{folder}{identity}{extension}",
        size=3,
        sha256="2c" * 32,
        signatures=(SIGNATURE,),
        channel=Channel(channel),
        meta=needs(*requires),
        rollout=rollout,
        block=None if blocked is None else Block(blocked),
    )


def device(
    installed: dict[str, str | None],
    channel: Channel | str | None = Channel.STABLE,
    platform: Platform = LINUX,
    device_id: str | None = DEVICE_ID,
) -> Device:
    """Return a device that has components at versions; ``None``: it wants one and has none."""
    return Device(
        platform=platform,
        components=tuple(
            Installed(name, None if version is None else Version(version)) for name, version in installed.items()
        ),
        configured_channel=None if channel is None else Channel(channel),
        device_id=device_id,
    )


def catalogue(
    releases: Iterable[Release], config: TreeConfig | None = None, policy: ChannelPolicy | None = None
) -> Catalogue:
    """Return a catalogue of releases."""
    return Catalogue.of(releases, config, policy)


identifiers = st.one_of(
    st.integers(0, 12).map(str),
    st.integers(0, 10**12).map(str),
    st.from_regex(r"[0-9]{0,2}[a-zA-Z-][0-9a-zA-Z-]{0,4}", fullmatch=True),
)
prereleases = st.lists(identifiers, max_size=4).map(".".join)
cores = st.tuples(*[st.one_of(st.integers(0, 3), st.integers(0, 10**8))] * 3).map(
    lambda parts: ".".join(map(str, parts))
)
version_texts = st.builds(lambda core, pre: f"{core}-{pre}" if pre else core, cores, prereleases).filter(
    lambda text: len(text) <= 64
)
versions = version_texts.map(Version)

components = st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True)
platforms = st.builds(Platform, st.sampled_from(Os), st.sampled_from(Arch))
release_ids = st.builds(ReleaseId, components, versions, platforms)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
instants = st.integers(0, 200 * 365 * 86400).map(
    lambda seconds: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)
shares = st.floats(0, 1)
