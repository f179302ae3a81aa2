"""The sidecars' content: what is written is read back, what is malformed is refused with a code (L10 to L16)."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from core.making import START, digests, refusal
from hypothesis import given
from hypothesis import strategies as st

from repo_server.core.errors import SidecarInvalid
from repo_server.core.model import Channel, ReleaseSignature
from repo_server.core.sidecars import (
    format_channel,
    format_sha256,
    format_sig,
    parse_blocked,
    parse_channel,
    parse_meta,
    parse_rollout,
    parse_sha256,
    parse_sig,
)

NAME = "service-linux-amd64-1.2.3.tar.gz"
DIGEST = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
KEY = "4b6b2a5c3a7d4a1e0f6f0f6fd5c0a9c8b7a6958473625140f1e2d3c4b5a69788"


def sha256(data: bytes) -> str:
    return parse_sha256(data, NAME)


GOOD = {
    ".sha256": (sha256, format_sha256(DIGEST, NAME)),
    ".sig": (parse_sig, f"{KEY} TUVV\n".encode()),
    ".channel": (parse_channel, b"beta\n"),
    ".meta": (parse_meta, b'{"title": "Faster start"}'),
    ".rollout": (parse_rollout, b"{" + START + b"}"),
    ".blocked": (parse_blocked, b'{"reason": "loses settings"}'),
}

EVERY = pytest.mark.parametrize("kind", GOOD)


@EVERY
def test_each_good_sidecar_is_read(kind: str) -> None:
    parse, data = GOOD[kind]
    assert refusal(parse, data) is None


@EVERY
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda data: b"\xef\xbb\xbf" + data, id="UTF-8 with byte order mark"),
        pytest.param(lambda data: data.decode().encode("utf-16"), id="UTF-16"),
        pytest.param(lambda data: data.decode().encode("utf-16-le"), id="UTF-16 without mark"),
        pytest.param(lambda data: data.decode().encode("utf-16-be"), id="UTF-16 big endian without mark"),
        pytest.param(lambda data: b"\xfe\xff" + data.decode().encode("utf-16-be"), id="UTF-16 big endian"),
        pytest.param(lambda data: data.decode().encode("utf-32"), id="UTF-32"),
        pytest.param(lambda data: data + b"\xff", id="not UTF-8"),
        pytest.param(lambda data: data + b"\xed\xa0\x80", id="an encoded surrogate"),
        pytest.param(lambda data: data + b"\0", id="NUL at the end"),
        pytest.param(lambda data: b"\0" * len(data), id="zeros only, as after a power cut"),
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda _: b"\n", id="one empty line"),
        pytest.param(lambda data: data + data, id="twice"),
        pytest.param(lambda data: data[:-5], id="cut off"),
    ],
)
def test_no_spoilt_sidecar_is_ever_guessed(kind: str, spoil: Callable[[bytes], bytes]) -> None:
    """L10 to L15: an operator's words are read exactly or refused."""
    parse, data = GOOD[kind]
    with pytest.raises(SidecarInvalid) as caught:
        parse(spoil(data))
    assert caught.value.code in {f"malformed_{kind[1:]}", "unknown_channel", "sha256_other_file"}
    assert len(caught.value.message) < 500


@EVERY
def test_a_byte_order_mark_is_named_in_the_message(kind: str) -> None:
    parse, data = GOOD[kind]
    with pytest.raises(SidecarInvalid, match="byte order mark") as caught:
        parse(b"\xef\xbb\xbf" + data)
    assert caught.value.code == f"malformed_{kind[1:]}"


@EVERY
def test_zeros_after_a_power_cut_are_named_in_the_message(kind: str) -> None:
    parse, data = GOOD[kind]
    with pytest.raises(SidecarInvalid, match="NUL bytes; write the file again") as caught:
        parse(data + b"\0")
    assert caught.value.code == f"malformed_{kind[1:]}"


@pytest.mark.parametrize("kind", [".sha256", ".channel", ".sig"])
def test_windows_line_ends_are_refused(kind: str) -> None:
    parse, data = GOOD[kind]
    assert refusal(parse, data.replace(b"\n", b"\r\n")) == f"malformed_{kind[1:]}"


@EVERY
@given(data=st.binary(max_size=80))
def test_any_bytes_are_read_or_refused_with_a_code(kind: str, data: bytes) -> None:
    codes = {None, f"malformed_{kind[1:]}", "unknown_channel", "sha256_other_file"}
    parse, _ = GOOD[kind]
    assert refusal(parse, data) in codes


# .sha256


@given(digests)
def test_a_digest_is_read_as_it_is_written(digest: str) -> None:
    """L10."""
    assert sha256(format_sha256(digest, NAME)) == digest


def test_what_sha256sum_writes_is_what_is_read(tmp_path: Path) -> None:
    """L10, with the real program, in both of its modes."""
    (tmp_path / NAME).write_bytes(b"foo")
    for mode in ("--text", "--binary"):
        line = subprocess.run(["sha256sum", mode, NAME], cwd=tmp_path, check=True, capture_output=True).stdout
        assert sha256(line) == hashlib.sha256(b"foo").hexdigest() == DIGEST


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (f"{DIGEST}  {NAME}".encode(), None),
        (f"{DIGEST.upper()} *{NAME}\n".encode(), None),
        (f"{DIGEST} {NAME}\n".encode(), "malformed_sha256"),
        (f"{DIGEST}\n".encode(), "malformed_sha256"),
        (f"{DIGEST}\t {NAME}\n".encode(), "malformed_sha256"),
        (f"{DIGEST[:-1]}  {NAME}\n".encode(), "malformed_sha256"),
        (f"{DIGEST}0  {NAME}\n".encode(), "malformed_sha256"),
        (f" {DIGEST}  {NAME}\n".encode(), "malformed_sha256"),
        (f"SHA256 ({NAME}) = {DIGEST}\n".encode(), "malformed_sha256"),
        (f"\\{DIGEST}  {NAME}\n".encode(), "malformed_sha256"),
        (f"{DIGEST}  {NAME}\n\n".encode(), "malformed_sha256"),
        (f"{DIGEST}  {NAME}\n{DIGEST}  other\n".encode(), "malformed_sha256"),
        ("٠" * 64 + f"  {NAME}\n", "malformed_sha256"),  # noqa: RUF001 -- digits, but not hexadecimal ones
        (f"{DIGEST}  other.tar.gz\n".encode(), "sha256_other_file"),
        (f"{DIGEST}  ./{NAME}\n".encode(), "sha256_other_file"),
        (f"{DIGEST}  2026/{NAME}\n".encode(), "sha256_other_file"),
        (f"{DIGEST}  {NAME} \n".encode(), "sha256_other_file"),
        (f"{DIGEST}   {NAME}\n".encode(), "sha256_other_file"),
        (f"{DIGEST}  {NAME}\u2028\n".encode(), "sha256_other_file"),
    ],
)
def test_only_the_line_of_sha256sum_for_this_file_counts(data: bytes | str, code: str | None) -> None:
    """L10."""
    assert refusal(sha256, data if isinstance(data, bytes) else data.encode()) == code


# .sig

signatures = st.builds(
    ReleaseSignature, digests, st.binary(min_size=1, max_size=90).map(lambda raw: base64.b64encode(raw).decode())
)


@given(st.lists(signatures, min_size=1, max_size=5, unique_by=lambda item: item.key_id).map(tuple))
def test_signatures_are_read_as_they_are_written_and_in_their_order(some: tuple[ReleaseSignature, ...]) -> None:
    """L11."""
    assert parse_sig(format_sig(some)) == some
    assert parse_sig(format_sig(some).removesuffix(b"\n")) == some


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f"{KEY} ",
        f"{KEY}  TUVV",
        f"{KEY} TUVV ",
        f"{KEY}\tTUVV",
        f"{KEY.upper()} TUVV",
        f"{KEY[:-1]} TUVV",
        f"{KEY} TUV",
        f"{KEY} TU-_",
        f"{KEY} TUVV TUVV",
        f"{KEY} TUVV=",
        f"{KEY} TUVV\nTUVV",
        f"{KEY} TR==",
        f"{KEY} TÜVV",
        f"{KEY} TUVV\n\n",
        f"\n{KEY} TUVV\n",
        f"{KEY} TUVV\n{KEY} TUVX\n",
        f"# release key\n{KEY} TUVV\n",
        "-----BEGIN PGP SIGNATURE-----",
    ],
)
def test_a_malformed_signature_line_is_refused(text: str) -> None:
    """L11: one line per key, canonical base64, nothing else."""
    assert refusal(parse_sig, text.encode()) == "malformed_sig"


# .channel


@pytest.mark.parametrize("channel", Channel)
def test_a_channel_is_read_as_it_is_written(channel: Channel) -> None:
    """L12."""
    assert parse_channel(format_channel(channel)) is channel
    assert parse_channel(channel.encode()) is channel


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"nightly\n", "unknown_channel"),
        (b"Stable\n", "unknown_channel"),
        (b"stable \n", "unknown_channel"),
        (b" stable\n", "unknown_channel"),
        (b"stable beta\n", "unknown_channel"),
        (b"\xc2\xa0stable\n", "unknown_channel"),
        (b"stable\x0b\n", "unknown_channel"),
        (b"stable\nbeta\n", "malformed_channel"),
        (b"stable\n\n", "malformed_channel"),
        (b"\nstable", "malformed_channel"),
        (b"stable\r\n", "malformed_channel"),
    ],
)
def test_anything_but_one_known_word_is_a_problem_and_not_stable(data: bytes, code: str) -> None:
    """L12."""
    assert refusal(parse_channel, data) == code
