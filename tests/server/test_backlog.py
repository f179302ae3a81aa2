"""Check-ins that wait for the database: the newest of each device, in order, in bounded memory (design §7)."""

from __future__ import annotations

import tracemalloc
import uuid
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.server import check_body

from repo_server.core.channels import AssignedChannel
from repo_server.core.model import Channel
from repo_server.core.wire import CheckRequest
from repo_server.store import backlog
from repo_server.store.backlog import Backlog, CheckIn
from repo_server.store.counters import Counters

START = datetime(2026, 1, 1, tzinfo=UTC)
CHANNEL = AssignedChannel(Channel.BETA, "site")


REQUEST = msgspec.convert(check_body(), CheckRequest)


def check_in(second: int, previous_ids: tuple[str, ...] = (), attributes: dict[str, object] | None = None) -> CheckIn:
    request = REQUEST if attributes is None else msgspec.structs.replace(REQUEST, attributes=attributes)
    return CheckIn(previous_ids, request, CHANNEL, START + timedelta(seconds=second))


@pytest.fixture
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "AS_OBJECTS", 3)
    monkeypatch.setattr(backlog, "MOST", 6)


@pytest.mark.usefixtures("_few")
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.sampled_from("abcdefgh"), st.sampled_from([(), ("x",), ("y",)])),
            st.integers(1, 4),
        ),
        max_size=40,
    )
)
def test_the_newest_of_each_device_waits_whatever_is_taken_and_given_back(
    steps: list[tuple[str, tuple[str, ...]] | int],
) -> None:
    counters = Counters()
    waiting, model = Backlog(counters), dict[str, CheckIn]()
    dropped = 0
    for second, step in enumerate(steps):
        if isinstance(step, int):
            batch = waiting.take(step)
            assert batch == {name: model[name] for name in list(model)[:step]}
            waiting.give_back(batch)
        else:
            item = check_in(second, step[1])
            waiting.put(step[0], item)
            known = model.get(step[0])
            if known is not None and not step[1]:
                item = check_in(second, known.previous_ids)
            model[step[0]] = item
        while len(model) > 6:
            del model[next(iter(model))]
            dropped += 1
        assert len(waiting) == len(model)
    assert waiting.take(99) == model
    assert counters.check_ins_dropped == dropped


def test_what_comes_while_a_batch_is_tried_is_newer_than_what_is_given_back() -> None:
    waiting = Backlog(Counters())
    for number, name in enumerate("abc"):
        waiting.put(name, check_in(number))
    batch = waiting.take(2)
    waiting.put("a", check_in(9))
    waiting.give_back(batch)
    assert list(waiting.take(9).items()) == [("b", check_in(1)), ("c", check_in(2)), ("a", check_in(9))]


def test_what_devices_say_at_length_fills_no_memory_while_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty-four KiB of empty lists take a megabyte as objects, and a hundred thousand devices may wait."""
    monkeypatch.setattr(backlog, "AS_OBJECTS", 10)
    monkeypatch.setattr(backlog, "MOST_BYTES", 4_000_000)
    counters = Counters()
    waiting = Backlog(counters)
    large = check_in(0, attributes={"a": [[] for _ in range(20_000)]})
    for number in range(backlog.AS_OBJECTS):
        waiting.put(str(number), check_in(number))
    tracemalloc.start()
    try:
        for _ in range(200):
            waiting.put(str(uuid.uuid4()), large)
        assert tracemalloc.get_traced_memory()[0] < backlog.MOST_BYTES + 2_000_000
    finally:
        tracemalloc.stop()
    assert counters.check_ins_dropped > backlog.AS_OBJECTS
    while waiting.take(1000):
        pass
    assert (len(waiting), waiting._bytes) == (0, 0)


def test_what_cannot_be_written_again_is_counted_and_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "AS_OBJECTS", 0)
    deep: object = []
    for _ in range(100_000):
        deep = [deep]
    counters = Counters()
    waiting = Backlog(counters)
    waiting.put("a", check_in(0, attributes={"deep": deep}))
    waiting.put("b", check_in(1))
    assert (len(waiting), counters.check_ins_dropped) == (1, 1)
