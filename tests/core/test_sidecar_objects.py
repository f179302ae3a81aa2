"""Sidecars that are JSON: .meta, .rollout and .blocked (L13, L14, L15)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from core.making import START, instants, refusal, shares
from hypothesis import example, given
from hypothesis import strategies as st

from repo_server.core.model import Block, Halt, Meta, Requirement, Rollout
from repo_server.core.sidecars import (
    format_blocked,
    format_rollout,
    parse_blocked,
    parse_meta,
    parse_rollout,
)
from repo_server.core.version import Version

# .meta


def test_meta_says_notes_and_requirements_and_may_say_more() -> None:
    """L13, L16."""
    meta = parse_meta(
        b'{"title": "T", "release_notes_url": "https://x/1", "published_at": "2026-11-21T17:00:00+01:00", "more": {},'
        b' "requires": [{"name": "probe", "min_version": "1.2.0", "why": "API"}]}'
    )
    assert meta == Meta(
        requires=(Requirement("probe", Version("1.2.0")),),
        release_notes_url="https://x/1",
        title="T",
        published_at=datetime(2026, 11, 21, 16, tzinfo=UTC),
    )
    assert str(meta.requires[0]) == "probe >= 1.2.0"
    assert parse_meta(b"{}") == Meta()


@given(
    st.builds(
        Meta,
        requires=st.lists(
            st.builds(Requirement, st.sampled_from(["service", "ui", "probe"]), st.just(Version("1.0.0-rc.1"))),
            unique_by=lambda item: item.name,
        ).map(tuple),
        release_notes_url=st.none() | st.from_regex(r"\Ahttps?://[!-~]{1,40}\Z"),
        title=st.none() | st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40),
        published_at=st.none() | instants,
    )
)
def test_meta_is_read_back_from_json(meta: Meta) -> None:
    """L13."""
    data = {
        "requires": [{"name": item.name, "min_version": str(item.min_version)} for item in meta.requires],
        "release_notes_url": meta.release_notes_url,
        "title": meta.title,
        "published_at": meta.published_at and meta.published_at.isoformat(),
    }
    assert parse_meta(json.dumps(data, ensure_ascii=False).encode()) == meta


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "null",
        "{",
        "{}{}",
        "{'title': 'x'}",
        '{"title": 7}',
        '{"title": "x",}',
        '{"title": "\\ud800"}',
        '{"title": "%s"}' % ("x" * 1025),
        '{"release_notes_url": "javascript:alert(1)"}',
        '{"release_notes_url": "https://x/\\n"}',
        '{"release_notes_url": "https://x y"}',
        '{"release_notes_url": "https://%s"}' % ("x" * 2048),
        '{"published_at": "2026-11-21T17:00:00"}',
        '{"published_at": "yesterday"}',
        '{"published_at": 1767225600}',
        '{"requires": {"probe": "1.0.0"}}',
        '{"requires": [{"name": "probe"}]}',
        '{"requires": [{"name": "Probe", "min_version": "1.0.0"}]}',
        '{"requires": [{"name": "probe\\n", "min_version": "1.0.0"}]}',
        '{"requires": [{"name": "probe", "min_version": "1.0"}]}',
        '{"requires": [{"name": "probe", "min_version": ">=1.0.0"}]}',
        '{"requires": [{"name": "probe", "min_version": "1.0.0"}, {"name": "probe", "min_version": "2.0.0"}]}',
        json.dumps({"requires": [{"name": f"c{number}", "min_version": "1.0.0"} for number in range(65)]}),
        '{"title": "a\\u0000b"}',
        '{"deep": %s}' % ("[" * 30000 + "]" * 30000),
        '{"x": NaN}',
        '{"x": Infinity}',
    ],
)
def test_malformed_meta_is_refused(text: str) -> None:
    """L13."""
    assert refusal(parse_meta, text.encode()) == "malformed_meta"


@pytest.mark.parametrize("number", ["9" * 5000, "1e999", "-" + "9" * 400])
def test_absurd_numbers_in_unknown_fields_do_no_harm(number: str) -> None:
    """L16."""
    assert parse_meta(b'{"x": %s}' % number.encode()) == Meta()


# .rollout

halts = st.builds(Halt, shares, st.integers(1, 10**6), st.integers(60, 10**6))

ramps = st.builds(
    lambda start, bounds, *rest: Rollout(start, min(bounds), max(bounds), *rest),
    instants,
    st.tuples(shares, shares),
    st.integers(0, 366 * 86400),
    st.booleans(),
    st.none() | st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=20),
    st.none() | halts,
    st.booleans(),
)


@given(ramps)
def test_a_rollout_is_read_as_it_is_written(rollout: Rollout) -> None:
    """L14."""
    assert parse_rollout(format_rollout(rollout)) == rollout


def test_a_rollout_needs_a_start_only() -> None:
    """L14: without more it is for everybody from then on."""
    rollout = parse_rollout(b"{" + START + b', "x": 1, "halt": {}}')
    assert rollout == Rollout(datetime(2026, 11, 21, 18, tzinfo=UTC), halt=Halt())


def test_a_halt_says_that_the_server_paused_the_ramp() -> None:
    """L14."""
    assert parse_rollout(b"{" + START + b', "paused": true, "halted": {"failures": 0.2, "by": "server"}}').halted


@pytest.mark.parametrize(
    "more",
    [
        '"from": 0.5, "to": 0.1',
        '"to": 1.1',
        '"to": -0.1',
        '"to": 1e400',
        '"to": NaN',
        '"to": true',
        '"to": "1"',
        '"from": null',
        '"duration_seconds": -1',
        '"duration_seconds": 1.5',
        '"duration_seconds": 31622401',
        '"duration_seconds": ' + "9" * 5000,
        '"paused": 1',
        '"paused": "no"',
        '"seed": ""',
        '"seed": "\\ud800"',
        '"seed": "%s"' % ("x" * 201),
        '"halt": {"failures": 2}',
        '"halt": {"min_devices": 0}',
        '"halt": {"silent_after_seconds": 1}',
        '"halted": true',
        '"start": "2026-11-21T18:00:00"',
        '"start": "2026-11-21T24:00:00Z"',
        '"start": null',
        '"deep": ' + "[" * 30000,
    ],
)
def test_a_malformed_rollout_is_refused(more: str) -> None:
    """L14, L16."""
    assert refusal(parse_rollout, b"{" + START + b", " + more.encode() + b"}") == "malformed_rollout"


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_a_time_that_does_not_exist_in_utc_is_refused(time: str) -> None:
    """L8, L16: it is a time in its zone, and could neither be compared nor kept in the scanner's cache."""
    assert refusal(parse_rollout, f'{{"start": "{time}"}}'.encode()) == "malformed_rollout"
    assert refusal(parse_meta, f'{{"published_at": "{time}"}}'.encode()) == "malformed_meta"
    assert refusal(parse_blocked, f'{{"reason": "x", "at": "{time}"}}'.encode()) == "malformed_blocked"


def test_a_rollout_without_a_start_is_refused() -> None:
    assert refusal(parse_rollout, b'{"from": 0.1}') == "malformed_rollout"


# .blocked


@given(
    st.builds(
        Block,
        st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=40),
        st.none() | st.just("ana"),
        st.none() | instants,
    )
)
def test_a_recall_is_read_as_it_is_written(block: Block) -> None:
    """L15."""
    assert parse_blocked(format_blocked(block)) == block


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n",
        "{}",
        '{"reason": ""}',
        '{"reason": 1}',
        '{"reason": "\\u0000"}',
        '{"by": "ana"}',
        '"because"',
        '{"reason": "x", "at": "today"}',
    ],
)
def test_a_recall_without_a_reason_is_refused(text: str) -> None:
    """L15: the release is not offered either, which is the scanner's part."""
    assert refusal(parse_blocked, text.encode()) == "malformed_blocked"


@example(timedelta(hours=14))
@given(st.integers(-23 * 60, 23 * 60).map(lambda minutes: timedelta(minutes=minutes)))
def test_times_of_any_zone_are_the_same_instant(offset: timedelta) -> None:
    """L16: RFC 3339 with a time zone."""
    sign, minutes = "-" if offset < timedelta() else "+", abs(int(offset.total_seconds())) // 60
    text = f"2026-11-21T18:00:00{sign}{minutes // 60:02}:{minutes % 60:02}"
    block = parse_blocked(json.dumps({"reason": "r", "at": text}).encode())
    assert block.at == datetime(2026, 11, 21, 18, tzinfo=UTC) - offset
