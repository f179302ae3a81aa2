"""Who gets what, case by case (design §3, L50 to L52, FR-SRV-001)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from core.making import (
    ARM,
    DEVICE_ID,
    EVERYBODY,
    HALTED,
    LINUX,
    MAC,
    NOBODY,
    NOW,
    PAUSED,
    TOMORROW,
    catalogue,
    device,
    release,
)

from repo_server.core.model import Platform, Release
from repo_server.core.offer import Code, Decision, decide
from repo_server.core.policy import TreeConfig
from repo_server.core.version import Version


@dataclass(frozen=True)
class Case:
    """A tree, a device, and what it is told."""

    says: str
    tree: list[Release]
    has: dict[str, str | None]
    offered: list[str]
    codes: dict[str, Code]
    channel: str = "stable"
    platform: Platform = LINUX
    floors: dict[str, str] = field(default_factory=dict)
    device_id: str | None = DEVICE_ID


def told(decision: Decision) -> list[str]:
    return [f"{offer.action} {offer.release.component} {offer.release.version}" for offer in decision.offers]


CASES = [
    Case(
        "a device on the newest release is up to date",
        [release("service", "1.0.0"), release("service", "1.1.0")],
        {"service": "1.1.0"},
        [],
        {"service": Code.UP_TO_DATE},
    ),
    Case(
        "the highest version by precedence is offered, not the longest or the last",
        [release("service", "1.9.0"), release("service", "1.10.0"), release("service", "1.10.0-rc.1")],
        {"service": "1.0.0"},
        ["update service 1.10.0"],
        {"service": Code.OFFERED},
    ),
    Case(
        "a component that the device wants and does not have is offered",
        [release("service", "1.0.0-rc.1")],
        {"service": None},
        ["update service 1.0.0-rc.1"],
        {"service": Code.OFFERED},
    ),
    Case(
        "a component that the device does not name is not offered",
        [release("service", "1.0.0"), release("ui", "1.0.0")],
        {"service": None},
        ["update service 1.0.0"],
        {"service": Code.OFFERED},
    ),
    Case(
        "a lower version is never offered to a device that is ahead",
        [release("service", "1.0.0")],
        {"service": "2.0.0"},
        [],
        {"service": Code.UP_TO_DATE},
    ),
    Case(
        "stable does not see beta",
        [release("service", "2.0.0", channel="beta"), release("service", "1.0.0")],
        {"service": "1.0.0"},
        [],
        {"service": Code.UP_TO_DATE},
    ),
    Case(
        "beta sees beta and stable, and the highest of both wins",
        [
            release("service", "2.0.0", channel="alpha"),
            release("service", "1.1.0"),
            release("service", "1.0.0", channel="beta"),
        ],
        {"service": None},
        ["update service 1.1.0"],
        {"service": Code.OFFERED},
        channel="beta",
    ),
    Case(
        "a channel that sees nothing says so",
        [release("service", "2.0.0", channel="alpha")],
        {"service": "1.0.0"},
        [],
        {"service": Code.CHANNEL_HAS_NONE},
    ),
    Case(
        "a release for another platform is none",
        [release("service", "2.0.0", platform=ARM), release("service", "2.0.0", platform=MAC)],
        {"service": "1.0.0"},
        [],
        {"service": Code.NO_RELEASE_FOR_PLATFORM},
    ),
    Case(
        "a component that the tree does not know is named",
        [release("service", "1.0.0")],
        {"sensor": None},
        [],
        {"sensor": Code.UNKNOWN_COMPONENT},
    ),
    Case(
        "nothing below the floor is offered",
        [release("service", "1.4.0"), release("service", "1.5.0-rc.1")],
        {"service": "1.0.0"},
        [],
        {"service": Code.BELOW_FLOOR},
        floors={"service": "1.5.0"},
    ),
    Case(
        "the floor itself is offered",
        [release("service", "1.5.0")],
        {"service": "1.0.0"},
        ["update service 1.5.0"],
        {"service": Code.OFFERED},
        floors={"service": "1.5.0"},
    ),
    Case(
        "a recalled release is not offered, the next lower one is",
        [release("service", "1.2.0", blocked="bad"), release("service", "1.1.0")],
        {"service": "1.0.0"},
        ["update service 1.1.0"],
        {"service": Code.OFFERED},
    ),
    Case(
        "a device below a recalled release stays and is told",
        [release("service", "1.2.0", blocked="bad")],
        {"service": "1.0.0"},
        [],
        {"service": Code.BLOCKED},
    ),
    Case(
        "a device on a recalled release goes back",
        [release("service", "1.2.0", blocked="bad"), release("service", "1.1.0"), release("service", "1.0.0")],
        {"service": "1.2.0"},
        ["rollback service 1.1.0"],
        {"service": Code.OFFERED},
    ),
    Case(
        "a device on a recalled release goes up where it can",
        [release("service", "1.3.0"), release("service", "1.2.0", blocked="bad"), release("service", "1.1.0")],
        {"service": "1.2.0"},
        ["update service 1.3.0"],
        {"service": Code.OFFERED},
    ),
    Case(
        "a recall reaches devices that would not see the release",
        [release("service", "1.2.0", channel="alpha", blocked="bad"), release("service", "1.1.0")],
        {"service": "1.2.0"},
        ["rollback service 1.1.0"],
        {"service": Code.OFFERED},
    ),
    Case(
        "a recall does not go below the floor",
        [release("service", "1.2.0", blocked="bad"), release("service", "1.1.0")],
        {"service": "1.2.0"},
        [],
        {"service": Code.BLOCKED},
        floors={"service": "1.2.0"},
    ),
    Case(
        "a recall does not go to another recalled release",
        [
            release("service", "1.2.0", blocked="bad"),
            release("service", "1.1.0", blocked="worse"),
            release("service", "1.0.0"),
        ],
        {"service": "1.2.0"},
        ["rollback service 1.0.0"],
        {"service": Code.OFFERED},
    ),
    Case(
        "a recall without anywhere to go is told",
        [release("service", "1.2.0", blocked="bad")],
        {"service": "1.2.0"},
        [],
        {"service": Code.BLOCKED},
    ),
    Case(
        "a recall on another platform is not ours",
        [
            release("service", "1.2.0", platform=ARM, blocked="bad"),
            release("service", "1.2.0"),
            release("service", "1.1.0"),
        ],
        {"service": "1.2.0"},
        [],
        {"service": Code.UP_TO_DATE},
    ),
    Case(
        "a recall goes back through the ramp only",
        [
            release("service", "1.2.0", blocked="bad"),
            release("service", "1.1.0", rollout=NOBODY),
            release("service", "1.0.0"),
        ],
        {"service": "1.2.0"},
        ["rollback service 1.0.0"],
        {"service": Code.OFFERED},
    ),
    Case(
        "a device outside the ramp gets the previous release",
        [release("service", "1.2.0", rollout=NOBODY), release("service", "1.1.0")],
        {"service": "1.0.0"},
        ["update service 1.1.0"],
        {"service": Code.OFFERED},
    ),
    Case(
        "a device outside the ramp on the previous release waits",
        [release("service", "1.2.0", rollout=NOBODY), release("service", "1.1.0")],
        {"service": "1.1.0"},
        [],
        {"service": Code.OUTSIDE_ROLLOUT},
    ),
    Case(
        "a ramp at its end is for everybody, also without an id",
        [release("service", "1.2.0", rollout=EVERYBODY)],
        {"service": "1.1.0"},
        ["update service 1.2.0"],
        {"service": Code.OFFERED},
        device_id=None,
    ),
    Case(
        "a device without an id waits for the end of the ramp",
        [release("service", "1.2.0", rollout=replace(EVERYBODY, from_share=0.99, duration_seconds=86400))],
        {"service": "1.1.0"},
        [],
        {"service": Code.OUTSIDE_ROLLOUT},
        device_id=None,
    ),
    Case(
        "a paused ramp admits nobody",
        [release("service", "1.2.0", rollout=PAUSED)],
        {"service": "1.1.0"},
        [],
        {"service": Code.ROLLOUT_PAUSED},
    ),
    Case(
        "a ramp that the server halted admits nobody",
        [release("service", "1.2.0", rollout=HALTED)],
        {"service": "1.1.0"},
        [],
        {"service": Code.ROLLOUT_PAUSED},
    ),
    Case(
        "a ramp that starts tomorrow says so",
        [release("service", "1.2.0", rollout=TOMORROW)],
        {"service": "1.1.0"},
        [],
        {"service": Code.ROLLOUT_NOT_STARTED},
    ),
    Case(
        "a requirement that the device meets is met",
        [release("ui", "2.0.0", "service >= 1.5.0")],
        {"ui": "1.0.0", "service": "1.5.0"},
        ["update ui 2.0.0"],
        {"ui": Code.OFFERED, "service": Code.NO_RELEASE_FOR_PLATFORM},
    ),
    Case(
        "a requirement that is offered with it comes first",
        [release("service", "2.0.0", "ui >= 2.0.0"), release("ui", "2.0.0")],
        {"service": "1.0.0", "ui": "1.0.0"},
        ["update ui 2.0.0", "update service 2.0.0"],
        {"service": Code.OFFERED, "ui": Code.OFFERED},
    ),
    Case(
        "an unmet requirement falls back to the next lower release",
        [release("ui", "2.0.0", "service >= 9.0.0"), release("ui", "1.5.0"), release("service", "1.0.0")],
        {"ui": "1.0.0", "service": "1.0.0"},
        ["update ui 1.5.0"],
        {"ui": Code.OFFERED, "service": Code.UP_TO_DATE},
    ),
    Case(
        "an unmet requirement without a lower release is told",
        [release("ui", "2.0.0", "probe >= 1.0.0"), release("probe", "1.0.0")],
        {"ui": "1.0.0"},
        [],
        {"ui": Code.REQUIRES_UNMET},
    ),
    Case(
        "what cannot be had takes along what requires it",
        [
            release("ui", "2.0.0", "service >= 2.0.0"),
            release("service", "2.0.0", "probe >= 2.0.0"),
            release("probe", "2.0.0", rollout=NOBODY),
        ],
        {"ui": "1.0.0", "service": "1.0.0", "probe": "1.0.0"},
        [],
        {"ui": Code.REQUIRES_UNMET, "service": Code.REQUIRES_UNMET, "probe": Code.OUTSIDE_ROLLOUT},
    ),
    Case(
        "a stepping stone has to be installed before",
        [release("service", "3.0.0", "service >= 2.0.0"), release("service", "2.0.0")],
        {"service": "1.0.0"},
        ["update service 2.0.0"],
        {"service": Code.OFFERED},
    ),
    Case(
        "a stepping stone that is there is enough",
        [release("service", "3.0.0", "service >= 2.0.0"), release("service", "2.0.0")],
        {"service": "2.0.0"},
        ["update service 3.0.0"],
        {"service": Code.OFFERED},
    ),
    Case(
        "releases that only want some version of each other are no circle for a device that has both",
        [release("ui", "1.1.0", "service >= 1.0.0"), release("service", "1.1.0", "ui >= 1.0.0")],
        {"ui": "1.0.0", "service": "1.0.0"},
        ["update service 1.1.0", "update ui 1.1.0"],
        {"ui": Code.OFFERED, "service": Code.OFFERED},
    ),
    Case(
        "releases that want each other's new version are a circle",
        [release("ui", "2.0.0", "service >= 2.0.0"), release("service", "2.0.0", "ui >= 2.0.0")],
        {"ui": "1.0.0", "service": "1.0.0"},
        [],
        {"ui": Code.REQUIRES_CYCLE, "service": Code.REQUIRES_CYCLE},
    ),
    Case(
        "a circle falls back to what is below it, and so does not take along what only needs that",
        [
            release("ui", "2.0.0", "service >= 2.0.0"),
            release("service", "2.0.0", "ui >= 2.0.0"),
            release("service", "1.5.0"),
            release("probe", "2.0.0", "service >= 1.5.0"),
        ],
        {"ui": "1.0.0", "service": "1.0.0", "probe": "1.0.0"},
        ["update service 1.5.0", "update probe 2.0.0"],
        {"ui": Code.REQUIRES_CYCLE, "service": Code.OFFERED, "probe": Code.OFFERED},
    ),
    Case(
        "going back takes along what requires more",
        [
            release("probe", "2.0.0", blocked="bad"),
            release("probe", "1.0.0"),
            release("ui", "2.0.0", "probe >= 2.0.0"),
            release("ui", "1.5.0"),
        ],
        {"ui": "1.0.0", "probe": "2.0.0"},
        ["update ui 1.5.0", "rollback probe 1.0.0"],
        {"ui": Code.OFFERED, "probe": Code.OFFERED},
    ),
    Case(
        "nothing is built on a recalled version that cannot be left",
        [release("probe", "2.0.0", blocked="bad"), release("ui", "2.0.0", "probe >= 2.0.0")],
        {"ui": "1.0.0", "probe": "2.0.0"},
        [],
        {"ui": Code.REQUIRES_UNMET, "probe": Code.BLOCKED},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says)
def test_a_device_is_told(case: Case) -> None:
    """L50 to L52."""
    config = TreeConfig(floors={name: Version(text) for name, text in case.floors.items()})
    decision = decide(catalogue(case.tree, config), device(case.has, case.channel, case.platform, case.device_id), NOW)
    assert told(decision) == case.offered
    assert {reason.component: reason.code for reason in decision.reasons} == case.codes


def test_the_cases_show_every_reason_code() -> None:
    """L52."""
    assert {code for case in CASES for code in case.codes.values()} == set(Code)
