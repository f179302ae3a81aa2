"""Codes are stable, documented and lead to the exit codes of design §11 (FR-LOG-001, TR-ERR-001)."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from agent.codes import Code, markdown_table
from agent.errors import local_failure

README = Path(__file__).resolve().parents[2] / "agent" / "README.md"


def test_the_table_in_the_readme_is_the_enum() -> None:
    """After a change: ``python -c "from agent.codes import markdown_table; print(markdown_table())"``."""
    assert markdown_table() in README.read_text()


def test_numbers_and_names_are_unique() -> None:
    assert len({code.value for code in Code}) == len(Code.__members__)


def test_each_code_says_what_it_means_and_what_to_do() -> None:
    for code in Code:
        assert code.meaning.endswith(".")
        assert code.action.endswith(".")


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [(Code.OK, 0), (Code.NETWORK, 1), (Code.CONFIG_UNSAFE, 3), (Code.DOWNGRADE_REFUSED, 3), (Code.BUSY, 4)],
)
def test_a_code_leads_to_its_exit_code(code: Code, exit_code: int) -> None:
    assert code.exit_code == exit_code


def test_what_says_nothing_about_a_release_is_transient() -> None:
    assert Code.NETWORK.is_transient
    assert Code.DISK_FULL.is_transient
    assert not Code.HEALTH_FAILED.is_transient
    assert not Code.HASH_MISMATCH.is_transient
    assert [code for code in Code if code.is_critical] == [Code.ROLLBACK_FAILED]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, Code.DISK_FULL),
        (errno.EDQUOT, Code.DISK_FULL),
        (errno.EACCES, Code.PERMISSION),
        (errno.EROFS, Code.PERMISSION),
        (errno.EIO, Code.IO),
    ],
)
def test_what_the_disk_says_has_a_code(number: int, code: Code) -> None:
    """EH-CLI-003."""
    assert local_failure(OSError(number, "no"), "write x").code is code


def test_what_the_disk_refuses_is_named() -> None:
    """``cannot clean up beside X`` alone leaves a person searching for the one file that is in the way."""
    message = local_failure(OSError(errno.EPERM, "no", "/x/data/locked\x1b"), "clean up beside /x").message
    assert "/x/data/locked\\x1b" in message
    assert local_failure(OSError(errno.EPERM, "no", "/x"), "write /x").message.count("/x") == 1


def test_a_failure_is_said_in_text_whatever_a_file_is_called() -> None:
    failure = local_failure(OSError(errno.EIO, "Input/output error"), f"copy {Path('/opt/a')}\udcff")
    assert failure.message.encode() == b"cannot copy /opt/a\\udcff: Input/output error"
