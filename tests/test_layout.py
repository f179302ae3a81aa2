"""The format document is true: its rules are tested, its samples are read by the real code, its lists are the same."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from repo_server.core import names
from repo_server.core.model import Channel, FileState, Os
from repo_server.core.names import EXTENSIONS, RESERVED_AT_ROOT, SidecarKind, TemporaryName, classify
from repo_server.core.offer import Code
from repo_server.core.package import HealthKind, ServiceKind, parse_package_toml
from repo_server.core.policy import Limits, parse_channels_toml, parse_repo_toml
from repo_server.core.problemcodes import ProblemCode
from repo_server.core.sidecars import (
    MAX_BYTES,
    parse_blocked,
    parse_channel,
    parse_meta,
    parse_rollout,
    parse_sha256,
    parse_sig,
)
from repo_server.core.statement import parse_statement
from repotool import advice

TESTS = Path(__file__).resolve().parent
TEXT = (TESTS.parent / "repo_layout.md").read_text()
RELEASE = "service-linux-amd64-1.2.3.tar.gz"


# The rules and their tests


def rules() -> dict[str, str]:
    """Return each numbered rule and its text, up to the next rule or heading."""
    parts = re.split(r"^- \*\*(L\d+)\*\* ", TEXT, flags=re.MULTILINE)
    return {number: text.partition("\n## ")[0] for number, text in zip(parts[1::2], parts[2::2], strict=True)}


def cited(text: str) -> Iterator[str]:
    """Yield the rules that a text cites: ``L7``, and with "L10 to L12" also what lies between."""
    yield from re.findall(r"\bL\d+\b", text)
    for first, last in re.findall(r"\bL(\d+) to L(\d+)\b", text):
        yield from (f"L{number}" for number in range(int(first), int(last)))


def test_every_rule_has_one_number() -> None:
    numbers = re.findall(r"^\s*[-*] \*\*(L\d+)\*\*", TEXT, flags=re.MULTILINE)
    assert len(numbers) > 30
    assert sorted(numbers) == sorted(set(numbers))
    assert sorted(numbers) == sorted(rules())


def test_every_rule_is_cited_by_a_test() -> None:
    found: set[str] = set()
    for path in TESTS.rglob("*.py"):
        if path != Path(__file__).resolve():
            found.update(cited(path.read_text()))
    uncited = sorted(set(rules()) - found, key=lambda rule: int(rule[1:]))
    assert not uncited, f"no file under tests/ cites {', '.join(uncited)}"


@pytest.mark.parametrize("folder", ["tests", "repo_server", "agent", "tools", "repo_layout.md"])
def test_nothing_cites_a_rule_that_does_not_exist(folder: str) -> None:
    base = TESTS.parent / folder
    files = [base] if base.is_file() else base.rglob("*.py")
    unknown = {
        f"{path.relative_to(TESTS.parent)} cites {rule}"
        for path in files
        for rule in cited(path.read_text())
        if rule not in rules()
    }
    assert unknown == set()


# The samples


@dataclass(frozen=True)
class Sample:
    """A fenced block of the document, and what it is said to be a sample of."""

    name: str
    data: bytes


def samples() -> list[Sample]:
    pattern = re.compile(r"^( *)<!-- sample: (.+?) -->\n\1```\w*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
    return [
        Sample(name, "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True)).encode())
        for indent, name, body in pattern.findall(TEXT)
    ]


def sha256_sample(data: bytes) -> None:
    assert parse_sha256(data, RELEASE) == hashlib.sha256(b"foo").hexdigest()


def sig_sample(data: bytes) -> None:
    (signature,) = parse_sig(data)
    assert signature.signature.startswith("MEUC")


def channel_sample(data: bytes) -> None:
    assert parse_channel(data) is Channel.BETA


def meta_sample(data: bytes) -> None:
    meta = parse_meta(data)
    assert [str(item) for item in meta.requires] == ["probe >= 1.2.0"]
    assert meta.title == "Faster start"
    assert meta.release_notes_url is not None
    assert meta.published_at is not None


def rollout_sample(data: bytes) -> None:
    rollout = parse_rollout(data)
    assert (rollout.from_share, rollout.to_share, rollout.duration_seconds) == (0.1, 1.0, 86400)
    assert rollout.seed == "1.2.3"
    assert rollout.halt is not None
    assert rollout.halt.silent_after_seconds == 7200


def blocked_sample(data: bytes) -> None:
    block = parse_blocked(data)
    assert (block.reason, block.by) == ("loses settings on upgrade", "ana")
    assert block.at is not None
    assert block.at.utcoffset() == timedelta()


def statement_sample(data: bytes) -> None:
    statement = parse_statement(data)
    assert statement.to_bytes() == data
    assert (str(statement.id), statement.size) == ("service-linux-amd64-1.2.3", 3)


def repo_sample(data: bytes) -> None:
    config = parse_repo_toml(data)
    assert config.product == "commandit"
    assert config.components[-1] == "sensor"
    assert str(config.floors["service"]) == "1.0.0"
    assert config.limits == Limits(), "the sample shows the defaults"


def channels_sample(data: bytes) -> None:
    policy = parse_channels_toml(data)
    assert set(policy.organisations.values()) == {Channel.BETA}
    assert policy.sites == {"berlin-lab": Channel.ALPHA}
    assert set(policy.devices.values()) == {Channel.STABLE}


def package_sample(data: bytes) -> None:
    manifest = parse_package_toml(data)
    assert str(manifest.id) == "service-linux-amd64-1.2.3"
    assert manifest.modes == (("bin/*", 0o755),)
    assert (manifest.service.kind, manifest.health.kind) == (ServiceKind.PROCESS, HealthKind.HTTP)
    assert manifest.hooks.pre_install == ("hooks/pre",)
    # Nothing in the sample stands there unread: each table and key of it is one of the parser's.
    assert set(tomllib.loads(data.decode())) >= {
        "payload",
        "preserve",
        "requires",
        "modes",
        "service",
        "health",
        "hooks",
    }


READERS: dict[str, Callable[[bytes], None]] = {
    f"{RELEASE}.sha256": sha256_sample,
    f"{RELEASE}.sig": sig_sample,
    f"{RELEASE}.channel": channel_sample,
    f"{RELEASE}.meta": meta_sample,
    f"{RELEASE}.rollout": rollout_sample,
    f"{RELEASE}.blocked": blocked_sample,
    "statement": statement_sample,
    "repo.toml": repo_sample,
    "policy/channels.toml": channels_sample,
    "package.toml": package_sample,
}


def test_every_kind_of_file_has_one_sample_and_every_sample_a_reader() -> None:
    assert sorted(sample.name for sample in samples()) == sorted(READERS)
    assert len(samples()) == TEXT.count("<!-- sample"), "a sample is a comment, then its block, equally indented"


@pytest.mark.parametrize("sample", samples(), ids=lambda sample: sample.name)
def test_the_sample_is_read_by_the_real_code(sample: Sample) -> None:
    READERS[sample.name](sample.data)


def test_every_file_in_the_drawing_is_one_that_the_code_knows() -> None:
    drawing = TEXT.partition("downloads/\n")[2].partition("```")[0]
    drawn = re.findall(r"^[│ ]*[├└]── (\S+)(?:  (\S+/))?", drawing, flags=re.MULTILINE)
    found = {name for pair in drawn for name in pair if name}
    top = {name.partition("/")[0] for name in found if not name.startswith((".", "service-", "2026"))}
    assert top == set(RESERVED_AT_ROOT)
    assert {name for name in found if name.startswith("service-")} == {
        RELEASE,
        *(RELEASE + kind for kind in SidecarKind),
    }
    for name in found:
        if name.startswith("service-"):
            classify(name)


# The lists


def listed(rule: str, start: str, end: str) -> list[str]:
    """Return the words in backquotes of a rule, between two phrases; a span may hold several words."""
    text = re.sub(r"\s+", " ", rules()[rule])
    assert start in text
    between = text.partition(start)[2].partition(end)[0]
    return [word for span in re.findall(r"`([^`]+)`", between) for word in span.split()]


def test_the_suffixes_of_sidecars_are_the_codes() -> None:
    """L3, and one rule with a section of its own for each."""
    assert listed("L3", "plus", ". Names") == [str(kind) for kind in SidecarKind]
    openings = [rules()[f"L{number}"].partition(" is ")[0] for number in range(10, 16)]
    assert openings == [f"`{kind}`" for kind in SidecarKind]


def test_the_extensions_are_the_codes_and_in_the_order_of_preference() -> None:
    """L4."""
    assert listed("L4", "ext one of", "or none") == list(EXTENSIONS)


def test_platforms_and_channels_are_the_codes() -> None:
    """L4, L12."""
    assert listed("L4", ", os", ", arch") == ["windows", "macos", "linux"] == sorted(Os, key=list(Os).index)
    assert listed("L12", "one word:", ". Absent") == list(Channel)


def test_the_temporary_names_are_ignored_by_the_code() -> None:
    """L3: each one that the document names."""
    for word in listed("L3", "copy and edit files (", ") are ignored"):
        name = word.replace("…", RELEASE) if "…" in word else word if word[0].isalpha() else RELEASE + word
        assert classify(name) == TemporaryName(), word


def test_the_reason_codes_are_the_codes() -> None:
    """L52."""
    assert listed("L52", "reason code:", "\n") == [str(code) for code in Code]


def test_the_reserved_names_are_the_codes() -> None:
    """L2."""
    assert [word.rstrip("/") for word in listed("L2", "At the root,", "are reserved")] == list(RESERVED_AT_ROOT)


def test_the_numbers_are_the_codes() -> None:
    """L1, L6, L9."""
    assert f"up to {Limits().max_depth} folders deep" in rules()["L1"]
    assert "sidecar size (64 KiB), depth (3)" in rules()["L6"]
    assert Limits().max_sidecar_bytes == MAX_BYTES == 64 * 1024
    assert f"at most {names.MAX_NAME_BYTES} bytes" in rules()["L9"]


def test_the_problem_codes_are_those_that_repotool_advises_on() -> None:
    """L8: one table for everybody; the codes of malformed sidecars follow the sidecars' names."""
    table = TEXT.partition("<!-- problem codes -->")[2].partition("\n- **L")[0]
    rows = [line.split("|") for line in table.splitlines() if line.lstrip().startswith("| `")]
    documented = {code: row[2].strip() for row in rows for code in re.findall(r"`([a-z0-9_]+)`", row[1])}
    malformed = {f"malformed_{kind.removeprefix('.')}" for kind in SidecarKind}
    assert set(documented) == set(advice.BY_CODE) | malformed
    assert set(documented) == {str(code) for code in ProblemCode}
    assert set(documented.values()) == set(FileState)


def test_every_documented_problem_code_is_one_that_the_scanner_gives() -> None:
    """L8."""
    modules = (TESTS.parent / "repo_server").rglob("*.py")
    source = "".join(path.read_text() for path in modules if path.name != "problemcodes.py")
    assert [code for code in advice.BY_CODE if f'"{code}"' not in source] == []
