"""The table of problem codes has every code that names and sidecars are refused with (L8)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from repo_server.core.errors import FormatError
from repo_server.core.names import SidecarKind, parse_release_name
from repo_server.core.policy import parse_channels_toml, parse_repo_toml
from repo_server.core.problemcodes import ProblemCode
from repo_server.core.sidecars import (
    parse_blocked,
    parse_channel,
    parse_meta,
    parse_rollout,
    parse_sha256,
    parse_sig,
)


@pytest.mark.parametrize(
    ("parse", "code"),
    [
        (lambda: parse_release_name("holiday.jpg"), ProblemCode.UNRECOGNISED_NAME),
        (lambda: parse_release_name("x-linux-amd64-1.0.0.zip"), ProblemCode.UNKNOWN_COMPONENT),
        (lambda: parse_release_name("ui-beos-amd64-1.0.0.zip"), ProblemCode.UNKNOWN_PLATFORM),
        (lambda: parse_release_name("ui-linux-amd64-1.zip"), ProblemCode.INVALID_VERSION),
        (lambda: parse_release_name("ui\n-linux-amd64-1.0.0.zip"), ProblemCode.UNSAFE_NAME),
        (lambda: parse_sha256(b"x", "a"), ProblemCode.MALFORMED_SHA256),
        (lambda: parse_sha256(b"0" * 64 + b"  b\n", "a"), ProblemCode.SHA256_OTHER_FILE),
        (lambda: parse_sig(b"x"), ProblemCode.MALFORMED_SIG),
        (lambda: parse_channel(b""), ProblemCode.MALFORMED_CHANNEL),
        (lambda: parse_channel(b"gamma"), ProblemCode.UNKNOWN_CHANNEL),
        (lambda: parse_meta(b"x"), ProblemCode.MALFORMED_META),
        (lambda: parse_rollout(b"x"), ProblemCode.MALFORMED_ROLLOUT),
        (lambda: parse_blocked(b"x"), ProblemCode.MALFORMED_BLOCKED),
        (lambda: parse_repo_toml(b"x"), ProblemCode.INVALID_POLICY),
        (lambda: parse_channels_toml(b"x"), ProblemCode.INVALID_POLICY),
    ],
)
def test_what_is_refused_has_a_code_of_the_table(parse: Callable[[], object], code: ProblemCode) -> None:
    with pytest.raises(FormatError) as caught:
        parse()
    assert caught.value.code == code


def test_every_sidecar_can_be_malformed() -> None:
    malformed = {f"malformed_{kind.removeprefix('.')}" for kind in SidecarKind}
    assert malformed == {code for code in ProblemCode if code.startswith("malformed_")}
