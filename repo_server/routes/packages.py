"""``/v1/packages/{path}``, ``/tree/{path}`` and ``/metadata/{name}``: the tree's files, and only those (FR-SRV-002)."""

from __future__ import annotations

import re

from repo_server.answers import PACKAGES
from repo_server.core.model import Release
from repo_server.core.names import split_sidecar
from repo_server.routes.context import Context
from repo_server.web.files import FileChanged, FileGone
from repo_server.web.handover import hand_over
from repo_server.web.http import Call, Headers, HttpError, not_ready, require_reading

TREE = "/tree/"
METADATA = "/metadata/"

_METADATA_NAME = re.compile(r"(?:(?:[1-9][0-9]{0,9}\.)?[a-z0-9][a-z0-9_-]{0,63})\.json")
_NOSNIFF = (b"x-content-type-options", b"nosniff")
_BINARY = (b"content-type", b"application/octet-stream")
_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_JSON = (b"content-type", b"application/json")
_FOR_EVER = (b"cache-control", b"private, max-age=31536000, immutable")
_FOR_EVERYBODY = (b"cache-control", b"public, max-age=31536000, immutable")
_ASK_AGAIN = (b"cache-control", b"no-cache")


async def packages(context: Context, call: Call) -> None:
    """Send a release file to an agent."""
    require_reading(call)
    context.guard.agent(call)
    context.traffic.share(call)
    await _send_release(context, call, _release(context, call.scope["path"].removeprefix(PACKAGES)))


async def tree(context: Context, call: Call) -> None:
    """Send what a plain mirror serves: release files that are offered, and their sidecars."""
    require_reading(call)
    context.guard.tree_reader(call)
    context.traffic.share(call)
    path = call.scope["path"].removeprefix(TREE)
    sidecar = split_sidecar(path)
    if sidecar is None:
        keep = _FOR_EVERYBODY if context.guard.public_tree else _FOR_EVER
        await _send_release(context, call, _release(context, path), keep)
        return
    _release(context, sidecar.of)
    await _send_plain(context, call, path, [_TEXT, _NOSNIFF, _ASK_AGAIN])


async def metadata(context: Context, call: Call) -> None:
    """Send TUF metadata (design §4)."""
    require_reading(call)
    context.guard.tree_reader(call)
    context.traffic.share(call)
    name = call.scope["path"].removeprefix(METADATA)
    if not _METADATA_NAME.fullmatch(name):
        raise _not_found()
    versioned = name[0].isdigit()
    await _send_plain(context, call, f"metadata/{name}", [_JSON, _NOSNIFF, _FOR_EVER if versioned else _ASK_AGAIN])


def _release(context: Context, path: str) -> Release:
    """Find the release at exactly this path. Nothing of the request ever reaches the file system otherwise."""
    if not context.live.ready:
        raise not_ready()
    release = context.live.current.catalogue.at(path)
    if release is None:
        raise _not_found()
    if release.block is not None:
        raise HttpError(404, "blocked", f"{release.id} is recalled and not served: {release.block.reason}")
    return release


async def _send_release(context: Context, call: Call, release: Release, keep: tuple[bytes, bytes] = _FOR_EVER) -> None:
    call.told = {
        "name": release.component, "version": release.version.text, "os": release.id.platform.os,
        "arch": release.id.platform.arch, "channel": release.channel,
    }  # fmt: skip
    expected = context.live.current.result.identities.get(release.path)
    if expected is None:
        raise _not_found()
    try:
        file = await context.sender.open(context.root, release.path, expected)
    except FileGone as error:
        # The tree changed since it was looked at: look again, and send nothing that was not verified (L25).
        context.rescan(release.path)
        if isinstance(error, FileChanged):
            raise HttpError(409, "changed", f"{release.path} was changed and is being checked again") from None
        raise _not_found() from None
    name = release.filename.replace("\\", "\\\\").replace('"', '\\"')
    headers: Headers = [
        _BINARY,
        _NOSNIFF,
        keep,
        (b"content-disposition", f'attachment; filename="{name}"'.encode()),
    ]
    etag = f'"{release.sha256}"'
    if context.x_accel is None:
        await context.sender.answer(call, file, etag, headers)
    else:
        await hand_over(call, context.x_accel, release.path, file, etag, headers)


async def _send_plain(context: Context, call: Call, path: str, headers: Headers) -> None:
    """Send a small file that is replaced whole whenever it changes, so its identity is its ETag."""
    try:
        file = await context.sender.open(context.root, path, None)
    except FileGone:
        raise _not_found() from None
    identity = file.identity
    etag = f'"{identity.ino:x}-{identity.size:x}-{identity.mtime_ns:x}"'
    await context.sender.answer(call, file, etag, headers)


def _not_found() -> HttpError:
    return HttpError(404, "not_found", "there is no such file here")
