"""What is carried out of an answer, what is left out, and why (promise 3, FR-UPD-007)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent.codes import Code
from agent.journal import Failure, Item
from agent.plan import make_plan
from agent.quarantine import MAX_ATTEMPTS, Quarantine
from repo_server.core.version import Version
from repo_server.core.wire import Action, Dependency, Update


def update(name: str, version: str = "1.1.0", **requires: str) -> Update:
    needed = tuple(Dependency(component, text) for component, text in requires.items())
    return Update(name, version, "", "ab" * 32, "", "", 1, (), Action.UPDATE, needed, "")


def attempt(name: str, version: str = "1.1.0") -> Item:
    return Item(name, version, "1.0.0", Action.UPDATE, "ab" * 32, "", None)


HAVE = {"service": Version("1.0.0"), "ui": Version("1.0.0"), "probe": Version("1.0.0")}


def failed_often(name: str) -> Quarantine:
    quarantine = Quarantine()
    for number in range(MAX_ATTEMPTS):
        quarantine = quarantine.counting((attempt(name),), str(number), Code.HEALTH_FAILED)
    return quarantine


def test_everything_is_done_in_the_servers_order() -> None:
    plan = make_plan([update("ui"), update("service")], HAVE, Quarantine(), HAVE)
    assert [one.name for one in plan.updates] == ["ui", "service"]
    assert plan.skipped == ()


def test_the_updater_is_last_whatever_the_server_says() -> None:
    """FR-SUP-001."""
    plan = make_plan([update("updater"), update("service"), update("ui")], HAVE, Quarantine(), {*HAVE, "updater"})
    assert [one.name for one in plan.updates] == ["service", "ui", "updater"]
    assert plan.later == ()


def test_what_requires_the_new_updater_waits_until_that_is_at_work() -> None:
    offers = [update("updater"), update("service", updater="1.1.0"), update("ui", service="1.1.0"), update("probe")]
    plan = make_plan(offers, HAVE, Quarantine(), {*HAVE, "updater"})
    assert [one.name for one in plan.updates] == ["probe", "updater"]
    assert [one.name for one in plan.later] == ["service", "ui"]
    assert plan.skipped == ()


def test_what_requires_an_updater_that_is_quarantined_is_left_out() -> None:
    offers = [update("updater"), update("service", updater="1.1.0"), update("ui")]
    plan = make_plan(offers, HAVE, failed_often("updater"), {*HAVE, "updater"})
    assert [one.name for one in plan.updates] == ["ui"]
    assert (plan.later, [one.update.name for one in plan.skipped]) == ((), ["updater", "service"])


def test_a_release_that_this_machine_cannot_install_takes_along_what_needs_it_and_nothing_else() -> None:
    offers = [update("updater"), update("service", updater="1.1.0"), update("probe")]
    have = {**HAVE, "updater": Version("1.0.0")}
    plan = make_plan(offers, have, Quarantine(), have, unable={"updater": "it cannot"})
    assert [one.name for one in plan.updates] == ["probe"]
    assert [(one.update.name, one.code) for one in plan.skipped] == [
        ("updater", Code.NOT_SUPPORTED),
        ("service", Code.NOT_SUPPORTED),
    ]


def test_a_quarantined_release_takes_along_what_needs_it_and_nothing_else() -> None:
    offers = [update("service"), update("ui", service="1.1.0"), update("probe", service="1.0.0")]
    plan = make_plan(offers, HAVE, failed_often("service"), HAVE)
    assert [one.name for one in plan.updates] == ["probe"]
    assert [(one.update.name, one.code) for one in plan.skipped] == [
        ("service", Code.QUARANTINED),
        ("ui", Code.QUARANTINED),
    ]


def test_a_chain_of_requirements_is_left_out_to_its_end() -> None:
    offers = [update("service"), update("ui", service="1.1.0"), update("probe", ui="1.1.0")]
    assert make_plan(offers, HAVE, failed_often("service"), HAVE).updates == ()


def test_other_bytes_under_the_same_version_are_another_release() -> None:
    tried = failed_often("service").skips("service", "1.1.0", "cd" * 32)
    assert tried is None


def test_a_component_that_could_not_be_taken_back_is_left_alone() -> None:
    """FR-RBK-002."""
    held = Quarantine().holding((Failure("service", Code.HEALTH_FAILED, "no"),))
    plan = make_plan([update("service", "9.0.0")], HAVE, held, HAVE)
    assert [one.code for one in plan.skipped] == [Code.ROLLBACK_FAILED]


def test_a_stepping_stone_is_about_what_is_installed() -> None:
    """L13: a release that requires its own component."""
    assert make_plan([update("service", "2.0.0", service="1.0.0")], HAVE, Quarantine(), HAVE).skipped == ()
    assert make_plan([update("service", "2.0.0", service="1.5.0")], HAVE, Quarantine(), HAVE).updates == ()


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"name": "../../etc"}, Code.NOT_REQUESTED),
        ({"name": "sensor"}, Code.NOT_REQUESTED),
        ({"hash_sha256": "*/../../*"}, Code.OFFER_INVALID),
        ({"hash_sha256": "AB" * 32}, Code.OFFER_INVALID),
        ({"version": "../1.0.0"}, Code.OFFER_INVALID),
        ({"dependencies": (Dependency("ui", "latest"),)}, Code.OFFER_INVALID),
    ],
)
def test_a_malformed_offer_never_becomes_a_path(wrong: dict[str, Any], code: Code) -> None:
    offer = msgspec.structs.replace(update("service"), **wrong)
    plan = make_plan([offer, update("ui")], HAVE, Quarantine(), HAVE)
    assert [one.name for one in plan.updates] == ["ui"]
    assert [one.code for one in plan.skipped] == [code]


def test_a_second_offer_for_a_component_is_left_out() -> None:
    plan = make_plan([update("service"), update("service", "1.2.0")], HAVE, Quarantine(), HAVE)
    assert [one.version for one in plan.updates] == ["1.1.0"]


def test_an_attempt_counts_once_however_often_it_is_noted() -> None:
    quarantine = Quarantine()
    for _ in range(5):
        quarantine = quarantine.counting((attempt("service"),), "one")
    assert quarantine.skips("service", "1.1.0", "ab" * 32) is None
    assert quarantine.excusing((attempt("service"),), "one") == Quarantine()


def test_success_forgets_what_went_wrong_with_a_component() -> None:
    assert failed_often("service").succeeded(frozenset({"service"})) == Quarantine()
