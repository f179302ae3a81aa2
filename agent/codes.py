"""Every way an operation can end, as one number each, in log, status and reports (FR-LOG-001, FR-STA-001, TR-ERR-001).

Numbers are stable: a code that goes out of use leaves its number unused. ``agent/README.md`` has the table.
"""

from __future__ import annotations

import enum
from typing import Self

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_REFUSED = 3
EXIT_BUSY = 4
EXIT_PARTLY = 5


class Code(enum.IntEnum):
    """A code: its number, its meaning, and what a person should do about it."""

    meaning: str
    action: str

    def __new__(cls, number: int, meaning: str, action: str) -> Self:
        """Attach the two sentences to the number."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.meaning = meaning
        member.action = action
        return member

    OK = 0, "It worked, or there was nothing to do.", "Nothing."

    CONFIG_INVALID = 10, "updater.conf is missing or malformed.", "Mend what the message names."
    CONFIG_UNSAFE = 11, "Others can write the configuration, or read its secret.", "Run the command in the message."
    ROOT_INVALID = (
        12,
        "The pinned root.json is missing, malformed or not signed by its own keys.",
        "Provision it again.",
    )

    NETWORK = 20, "No connection, or it broke off.", "Nothing: it is tried again. Check name, route and firewall."
    TIMEOUT = 21, "The other side was too slow.", "Nothing: it is tried again."
    TLS = 22, "The server's certificate is not trusted, or is not the pinned one.", "Check clock, CA and pinned_spki."
    HTTP_STATUS = 23, "The server answered with an error.", "See the server's message; it is tried again."
    RATE_LIMITED = 24, "The server asks to come back later.", "Nothing: its Retry-After is honoured."
    UNAUTHORIZED = 25, "The server does not accept the secret.", "Set auth_secret to a secret that is active."
    CAPTIVE_PORTAL = 26, "A web page came instead of an answer.", "Log in to this network, or check the server's URL."
    REDIRECT_REFUSED = (
        27,
        "The answer redirects to a host that is not configured.",
        "Add it to mirrors, or mend the URL.",
    )
    BAD_RESPONSE = 28, "The answer is not what the protocol says.", "Check the server's version and its URL."
    NO_SOURCE = 29, "No server and no mirror has the file.", "Check mirrors; see the server's problems."

    HASH_MISMATCH = 40, "The file's bytes are not the announced ones; it was discarded.", "Check mirrors and proxies."
    SIZE_MISMATCH = 41, "The file's size is not the announced one; it was discarded.", "Check mirrors and proxies."
    SIGNATURE_INVALID = 42, "Too few release keys signed this release.", "Sign it again, or provision the newer root."
    IDENTITY_MISMATCH = 43, "The package says that it is another release.", "Pack and sign it again."
    DOWNGRADE_REFUSED = 44, "The offered version is not higher than the installed one.", "Publish a higher version."
    BELOW_FLOOR = 45, "The offered version is below the lowest that may be installed.", "Publish a higher version."
    NOT_REQUESTED = 46, "The offer is for a component or platform that was not asked for.", "Check the server."
    OFFER_INVALID = 47, "The offer itself is malformed.", "Check the server's version."
    METADATA_EXPIRED = 48, "The signed metadata has expired.", "Check that the origin server runs, and the clock."

    PACKAGE_INVALID = 60, "package.toml is missing, not the first entry, or malformed.", "Pack it with repotool pack."
    UNPACK_FORBIDDEN = 61, "The archive has an entry that packages may not have.", "Pack it with repotool pack."
    ARCHIVE_DAMAGED = 62, "The archive is truncated, damaged or ambiguous.", "Pack and publish it again."
    BOMB = (
        63,
        "The archive unpacks to more than the limits allow.",
        "Check the package; raise the limits if it is right.",
    )

    DISK_FULL = 70, "There is not enough space.", "Free some space."
    PERMISSION = 71, "The system refused access to a file.", "Run as root; mend owner and mode."
    IO = 72, "The disk or file system failed.", "Check the disk and the system's log."
    STATE_DAMAGED = 73, "A state file was damaged; the previous copy or a safe default was used.", "Check the disk."

    STOP_FAILED = 80, "The component's program could not be stopped.", "Stop it by hand; see its log."
    START_FAILED = 81, "The component's program could not be started.", "See the component's log."
    HEALTH_FAILED = 82, "The component did not become healthy in time.", "See the component's log; publish a fix."
    HOOK_FAILED = 83, "A hook of the package failed or took too long.", "See the hook's output in the log."
    ROLLBACK_FAILED = 84, "CRITICAL: going back failed; the component is stopped.", "Repair it by hand, then reinstall."
    SEQUENCE_ROLLED_BACK = (
        85,
        "Another component of the sequence failed, so this one went back.",
        "See that one's code.",
    )

    BUSY = 90, "Another updater holds the lock.", "Wait for it."
    QUARANTINED = 91, "The release failed too often and is skipped.", "Publish a higher version."
    INTERRUPTED = 92, "The attempt was cut off (power, kill) and was undone or finished.", "Nothing."
    CANCELLED = 93, "The attempt was stopped before it changed anything.", "Nothing."
    NOT_SUPPORTED = 94, "This platform or package cannot do what was asked.", "See the message."
    SESSION_ACTIVE = 95, "The update waits, for a user works with the component.", "Nothing: the wait has an end."
    INTERNAL = 99, "A fault in the updater itself.", "Report it with updater.log."

    @property
    def is_transient(self) -> bool:
        """Whether it says nothing about the release, so that the attempt must not count towards quarantine."""
        return 20 <= self < 40 or self in _TRANSIENT  # noqa: PLR2004 -- the network's block of numbers

    @property
    def is_critical(self) -> bool:
        """Whether a person must come (EH-CLI-005)."""
        return self is Code.ROLLBACK_FAILED

    @property
    def exit_code(self) -> int:
        """The exit code of a command that ends with this code (design §11)."""
        return _EXITS.get(self, EXIT_FAILED)


_TRANSIENT = frozenset({Code.BUSY, Code.DISK_FULL, Code.INTERRUPTED, Code.CANCELLED})
_EXITS = {
    Code.OK: EXIT_DONE,
    Code.CONFIG_UNSAFE: EXIT_REFUSED,
    Code.PERMISSION: EXIT_REFUSED,
    Code.DOWNGRADE_REFUSED: EXIT_REFUSED,
    Code.BELOW_FLOOR: EXIT_REFUSED,
    Code.BUSY: EXIT_BUSY,
}


def markdown_table() -> str:
    """Return the table of ``agent/README.md``."""
    rows = [f"| {code.value} | `{code.name}` | {code.meaning} | {code.action} | {code.exit_code} |" for code in Code]
    return "\n".join(["| number | code | meaning | what to do | exit |", "|---|---|---|---|---|", *rows]) + "\n"
