"""The release statement: eight lines, and nothing else is one (L20)."""

from __future__ import annotations

import pytest
from core.making import LINUX, digests, refusal, release_ids
from hypothesis import given
from hypothesis import strategies as st

from repo_server.core.model import ReleaseId
from repo_server.core.statement import Statement, check_product, parse_statement
from repo_server.core.version import Version

DIGEST = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
GOOD = f"""commandit-release-v1
product: commandit
component: service
version: 1.2.3
os: linux
arch: amd64
sha256: {DIGEST}
size: 3
"""

products = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)
statements = st.builds(Statement, products, release_ids, digests, st.integers(0, 10**19 - 1))


def test_a_statement_is_exactly_the_lines_of_the_format() -> None:
    """L20."""
    statement = Statement("commandit", ReleaseId("service", Version("1.2.3"), LINUX), DIGEST, 3)
    assert statement.to_bytes() == GOOD.encode()
    assert parse_statement(GOOD.encode()) == statement


@given(statements)
def test_every_statement_is_read_as_it_is_written(statement: Statement) -> None:
    """L20."""
    assert parse_statement(statement.to_bytes()) == statement


@given(statements, statements)
def test_different_releases_never_share_a_statement(left: Statement, right: Statement) -> None:
    """L20: a signature over one file under one name says nothing about any other."""
    assert (left.to_bytes() == right.to_bytes()) == (left == right)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("commandit-release-v1", "commandit-release-v2"),
        ("commandit-release-v1", "\ufeffcommandit-release-v1"),
        ("\n", "\r\n"),
        ("size: 3\n", "size: 3"),
        ("size: 3\n", "size: 3\n\n"),
        ("size: 3\n", "size: 3\nsize: 3\n"),
        ("size: 3", "size: 03"),
        ("size: 3", "size: -3"),
        ("size: 3", "size: 3.0"),
        ("size: 3", "size: 10000000000000000000"),
        ("size: 3", "size:3"),
        ("size: 3", "Size: 3"),
        ("size: 3", "size: \u0663"),
        ("os: linux\narch: amd64", "arch: amd64\nos: linux"),
        ("os: linux", "os: Linux"),
        ("os: linux", "os: beos"),
        ("arch: amd64", "arch: x86"),
        ("version: 1.2.3", "version: 1.2"),
        ("version: 1.2.3", "version: 1.2.3+x"),
        ("component: service", "component: Service"),
        ("component: service", "component: "),
        ("component: service", "component: service "),
        ("product: commandit", "product: Command IT"),
        ("product: commandit", "product: "),
        ("product: commandit", "product: \u0441ommandit"),
        (DIGEST, DIGEST.upper()),
        (DIGEST, DIGEST[:-1]),
        (GOOD, ""),
        (GOOD, "\n"),
        (GOOD, "commandit-release-v1\n"),
    ],
)
def test_a_statement_that_differs_anywhere_is_refused(old: str, new: str) -> None:
    """L20."""
    data = GOOD.replace(old, new).encode()
    assert data != GOOD.encode()
    assert refusal(parse_statement, data) == "malformed_statement"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_statement_or_refused(data: bytes) -> None:
    assert refusal(parse_statement, data) in {None, "malformed_statement"}


@given(statements, st.integers(0), st.integers(0, 255))
def test_a_changed_byte_never_reads_as_the_same_statement(statement: Statement, where: int, byte: int) -> None:
    data = bytearray(statement.to_bytes())
    data[where % len(data)] = byte
    if bytes(data) != statement.to_bytes() and refusal(parse_statement, bytes(data)) is None:
        assert parse_statement(bytes(data)) != statement


@pytest.mark.parametrize("product", ["commandit", "a", "0-x_y.z", "a" * 63])
def test_a_products_name_may_stand_in_a_statement(product: str) -> None:
    assert check_product(product) == product


@pytest.mark.parametrize("product", ["", "-a", "A", "a b", "a\n", "a" * 64, "ä"])
def test_a_products_name_that_would_break_a_statement_is_refused(product: str) -> None:
    assert refusal(check_product, product) == "malformed_statement"
