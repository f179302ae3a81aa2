"""What applies to a whole scan: the operator's files, the last good one of each, and the release keys (L22, L30)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from repo_server.core.errors import PolicyInvalid
from repo_server.core.keys import ReleaseKeys
from repo_server.core.model import Problem
from repo_server.core.policy import ChannelPolicy, TreeConfig, parse_channels_toml, parse_repo_toml
from repo_server.tree import roots
from repo_server.tree.treeio import TreeError, read_small

CONFIG = "repo.toml"
POLICY = "policy/channels.toml"
MAX_BYTES = 4 * 1024 * 1024
"""Bytes of an operator's file: an assignment for some 60,000 devices."""

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides about every file of a scan."""

    config: TreeConfig
    keys: ReleaseKeys
    fingerprint: str
    """Equal for equal release keys."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the operator's files and the roots came to."""

    rules: Rules | None
    """``None``: nothing may be offered, and the problems say why."""
    config: TreeConfig
    policy: ChannelPolicy
    problems: tuple[Problem, ...]

    @property
    def rules_for_files(self) -> tuple[object, ...]:
        """What decides about single files: while it stays the same, so do their outcomes."""
        keys = self.rules.fingerprint if self.rules is not None else None
        return keys, self.config.components, self.config.limits


@dataclass(slots=True)
class RuleBook:
    """Reads the rules of a tree; ``texts`` keeps the last good operator's files and is the caller's to store (L30)."""

    tree: Path
    pinned_root: bytes | None = None
    _roots: tuple[object, roots.RootReading] | None = field(default=None)

    def read(self, texts: dict[str, bytes], now: datetime) -> Reading:
        """Read everything; what is in the tree never raises (L22, L30, L31)."""
        problems: list[Problem] = []
        root = self._read_roots(now)
        problems += root.problems
        product = root.trusted.keys.product if root.trusted is not None else None

        def parse_config(data: bytes) -> TreeConfig:
            config = parse_repo_toml(data)
            if product is not None and config.product not in {None, product}:
                raise PolicyInvalid("invalid_policy", f"{CONFIG}: product is {config.product}, the root's is {product}")
            return config

        config = self._operator_file(CONFIG, parse_config, TreeConfig(), texts, problems, now)
        policy = self._operator_file(POLICY, parse_channels_toml, ChannelPolicy(), texts, problems, now)
        rules = None
        if root.trusted is not None and config is not None and policy is not None:
            rules = Rules(config, root.trusted.keys, root.trusted.fingerprint)
        return Reading(rules, config or TreeConfig(), policy or ChannelPolicy(), tuple(problems))

    def _read_roots(self, now: datetime) -> roots.RootReading:
        seen = roots.identities(self.tree)
        expired = self._roots is not None and _is_expired(self._roots[1], now)
        if self._roots is None or self._roots[0] != seen or expired:
            self._roots = (seen, roots.read(self.tree, now, self.pinned_root))
        return self._roots[1]

    def _operator_file(
        self,
        name: str,
        parse: Callable[[bytes], _Value],
        absent: _Value,
        texts: dict[str, bytes],
        problems: list[Problem],
        now: datetime,
    ) -> _Value | None:
        try:
            data, _ = read_small(self.tree, name, MAX_BYTES)
            value = parse(data)
        except FileNotFoundError:
            if name != CONFIG or name not in texts:
                texts.pop(name, None)
                return absent
            # Its floors must not go with it: whoever wants the defaults says so with an empty file.
            why = f"{name} is gone; bring it back, or make an empty one if the defaults are meant"
        except PolicyInvalid as error:
            why = error.message
        except (OSError, TreeError) as error:
            why = f"{name} cannot be read: {error}"
        else:
            texts[name] = data
            return value
        last = _last_good(texts.get(name), parse)
        kept = "the last good one stays in force" if last is not None else "nothing is offered until it is mended"
        problems.append(Problem(name, "invalid_policy", f"{why}; {kept}", now))
        return last


def _last_good(data: bytes | None, parse: Callable[[bytes], _Value]) -> _Value | None:
    if data is None:
        return None
    try:
        return parse(data)
    except PolicyInvalid:
        return None


def _is_expired(reading: roots.RootReading, now: datetime) -> bool:
    return reading.trusted is not None and reading.trusted.root.is_expired(now)
