"""What the tree offers and what it does not, for operators: releases, problems, another look (promise 3)."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator, Sequence

from repo_server.access.auth import Role
from repo_server.answers import download_url
from repo_server.core.errors import NameInvalid
from repo_server.core.model import Arch, Channel, FileState, Os, Problem, Release, ReleaseId
from repo_server.core.names import parse_release_name
from repo_server.core.problemcodes import ProblemCode
from repo_server.core.version import Version
from repo_server.routes.context import Context
from repo_server.tree.live import Snapshot
from repo_server.views import ConditionEntry, PackageEntry, PackagePage, ProblemEntry, ProblemPage, RescanAnswer
from repo_server.web.http import Call, method_not_allowed, not_ready, require_reading
from repo_server.web.query import Query, invalid, read_query
from repo_server.web.revalidation import answer_or_unchanged

PROBLEMS = "/v1/problems"
CATALOGUE = "/v1/packages"
RESCAN = "/v1/rescan"
FILTERS = ("component", "version", "channel", "os", "arch", "active")

_NAMESPACE = uuid.UUID("b9cf8a4e-6d0b-5c8e-9a53-0f3a1d2b7c64")


async def problems(context: Context, call: Call) -> None:
    """List files that are not offered with their reasons, a page at a time, and what is wrong with the server itself.

    ``?after=NEXT&limit=N``, and ``code`` and ``state`` as filters.
    """
    snapshot = _enter(context, call)
    query = read_query(call, ("after", "limit", "code", "state"))
    # Sorting tens of thousands of odd files takes long enough to make others wait.
    found, following = await asyncio.to_thread(_problem_page, snapshot.result.problems, query)
    conditions = context.conditions.look(context.clock())
    listed = ProblemPage(
        problems=tuple(_problem(item) for item in found if item.state is FileState.PROBLEM),
        pending=tuple(_problem(item) for item in found if item.state is FileState.PENDING),
        server=tuple(ConditionEntry(item.code, item.message, item.since) for item in conditions),
        next=following,
        catalogue=snapshot.generation,
    )
    await answer_or_unchanged(call, listed)


async def catalogue(context: Context, call: Call) -> None:
    """List releases, a page at a time: ``?after=NEXT&limit=N`` and filters."""
    snapshot = _enter(context, call)
    query = read_query(call, ("after", "limit", *FILTERS))
    # Ten thousand releases take long enough to make others wait.
    page = await asyncio.to_thread(_page, snapshot, query, context.packages_at(call))
    await answer_or_unchanged(call, page)


async def rescan(context: Context, call: Call) -> None:
    """Look at the whole tree soon; ``catalogue`` in the answer is the one before that look."""
    if call.method != "POST":
        raise method_not_allowed("POST")
    context.guard.operator(call, Role.OPERATE)
    read_query(call, ())
    context.rescan(None)
    await call.json(RescanAnswer(context.live.current.generation if context.live.ready else 0), 202)


def _enter(context: Context, call: Call) -> Snapshot:
    require_reading(call)
    context.guard.operator(call)
    if not context.live.ready:
        raise not_ready()
    return context.live.current


def _problem_page(problems: Sequence[Problem], query: Query) -> tuple[list[Problem], str | None]:
    """Return the problems of a page, by path, and the path after which the next begins.

    All problems of one path are on one page, which may be longer for that.
    """
    limit, after = query.limit(), query.text("after")
    code, state = query.member("code", ProblemCode), query.member("state", FileState)
    found = [
        item
        for item in sorted(problems, key=lambda item: item.path)
        if (after is None or item.path > after) and code in {None, item.code} and state in {None, item.state}
    ]
    if len(found) <= limit:
        return found, None
    last = found[limit - 1].path
    shown = [item for item in found if item.path <= last]
    return shown, last if len(found) > len(shown) else None


def _problem(problem: Problem) -> ProblemEntry:
    return ProblemEntry(problem.path, problem.code, problem.message, problem.since, problem.state)


def _page(snapshot: Snapshot, query: Query, packages: str) -> PackagePage:
    limit, after, wanted = query.limit(), query.text("after"), _wanted(query)
    behind = None if after is None else _order(_release_id(after))
    found = sorted((item for item in snapshot.catalogue if wanted(item)), key=lambda item: _order(item.id))
    rest = [item for item in found if behind is None or _order(item.id) > behind]
    shown = rest[:limit]
    following = str(shown[-1].id) if len(rest) > limit else None
    return PackagePage(tuple(_entry(item, packages) for item in shown), following, snapshot.generation)


def _order(release: ReleaseId) -> tuple[str, str, str, Version]:
    return release.component, release.platform.os, release.platform.arch, release.version


def _release_id(text: str) -> ReleaseId:
    component = text.partition("-")[0]
    try:
        # With an extension, for a version may end like one.
        return parse_release_name(f"{text}.tar.gz", (component,)).id
    except NameInvalid:
        raise invalid("after", f"{text!r:.80} is not what `next` of a page before was") from None


def _wanted(query: Query) -> Callable[[Release], bool]:
    """Return whether a release passes all filters that are given."""
    wanted = {
        "component": query.component("component"),
        "version": query.version("version"),
        "channel": query.member("channel", Channel),
        "os": query.member("os", Os),
        "arch": query.member("arch", Arch),
        "active": query.flag("active"),
    }
    given = {name: value for name, value in wanted.items() if value is not None}

    def facts(release: Release) -> Iterator[tuple[str, object]]:
        yield "component", release.component
        yield "version", release.version.text
        yield "channel", release.channel
        yield "os", release.platform.os
        yield "arch", release.platform.arch
        yield "active", release.block is None

    return lambda release: not given or all(given.get(name, value) == value for name, value in facts(release))


def _entry(release: Release, packages: str) -> PackageEntry:
    return PackageEntry(
        package_id=uuid.uuid5(_NAMESPACE, str(release.id)),
        component_name=release.component,
        version=release.version.text,
        release_channel=release.channel,
        target_os=release.platform.os,
        target_arch=release.platform.arch,
        download_url=download_url(release, packages),
        file_hash_sha256=release.sha256,
        signature_base64=release.signatures[0].signature if release.signatures else None,
        release_notes_url=release.meta.release_notes_url,
        dependencies={item.name: f">={item.min_version}" for item in release.requires},
        published_at=release.meta.published_at,
        is_active=release.block is None,
        path=release.path,
        size=release.size,
        title=release.meta.title,
        blocked_reason=None if release.block is None else release.block.reason,
        rollout=release.rollout is not None,
    )
