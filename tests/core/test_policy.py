"""``repo.toml`` and ``policy/channels.toml``: what is typed by hand is read strictly (L6, L30, L31)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from core.making import refusal
from hypothesis import given
from hypothesis import strategies as st

from repo_server.core.model import DEFAULT_COMPONENTS, Channel
from repo_server.core.policy import ChannelPolicy, Limits, TreeConfig, parse_channels_toml, parse_repo_toml
from repo_server.core.version import Version

ID = "0b1c2d3e-4f50-4a6b-8c7d-9e0f1a2b3c4d"


def test_an_empty_repo_toml_means_the_defaults() -> None:
    """L30."""
    assert parse_repo_toml(b"") == TreeConfig() == parse_repo_toml(b"# nothing yet\r\n")
    assert TreeConfig().components == DEFAULT_COMPONENTS == ("service", "ui", "probe", "updater")


def test_every_setting_of_repo_toml_is_read() -> None:
    """L6, L30."""
    config = parse_repo_toml(b"""
product = "commandit"
components = ["sensor", "ui"]
default_channel = "beta"
rescan_seconds = 5
stale_days = 3
floors = { sensor = "1.0.0-rc.1" }
limits = { max_file_bytes = 1, max_sidecar_bytes = 256, max_depth = 0, max_files = 7 }
""")
    assert config == TreeConfig(
        product="commandit",
        components=(*DEFAULT_COMPONENTS, "sensor"),
        default_channel=Channel.BETA,
        rescan_seconds=5,
        stale_days=3,
        floors={"sensor": Version("1.0.0-rc.1")},
        limits=Limits(1, 256, 0, 7),
    )


@pytest.mark.parametrize(
    "text",
    [
        'producct = "commandit"',
        "[limit]\nmax_depth = 3",
        "limits = { max_depht = 3 }",
        'product = "Command IT"',
        'product = "commandit\\n"',
        "product = 7",
        "components = []",
        'components = "sensor"',
        'components = ["Sensor"]',
        'components = ["sen-sor"]',
        'components = ["sensor\\n"]',
        f"components = {['c' + str(number) for number in range(257)]}",
        'default_channel = "nightly"',
        'default_channel = "Stable"',
        "rescan_seconds = 0",
        "rescan_seconds = 86401",
        "rescan_seconds = 1.5",
        "rescan_seconds = nan",
        "rescan_seconds = true",
        'rescan_seconds = "60"',
        "stale_days = 0",
        "stale_days = 36501",
        f"stale_days = {'9' * 400}",
        f"stale_days = {'9' * 5000}",
        'floors = { sensor = "1.0.0" }',
        'floors = { service = "1.0" }',
        "floors = { service = 1 }",
        'floors = "1.0.0"',
        "limits = { max_file_bytes = 0 }",
        f"limits = {{ max_file_bytes = {2**63} }}",
        "limits = { max_sidecar_bytes = 255 }",
        "limits = { max_sidecar_bytes = 16777217 }",
        "limits = { max_depth = -1 }",
        "limits = { max_depth = 17 }",
        "limits = { max_files = 0 }",
        "stale_days = 1\nstale_days = 2",
        "stale_days",
        "\ufeffstale_days = 1",
        f"x = {'[' * 20000}",
        "stale_days = 1\0",
    ],
)
def test_a_mistake_in_repo_toml_is_an_error_and_never_silently_a_default(text: str) -> None:
    """L30."""
    assert refusal(parse_repo_toml, text.encode()) == "invalid_policy"


@pytest.mark.parametrize("parse", [parse_repo_toml, parse_channels_toml])
@pytest.mark.parametrize("data", [b"\xff", b'default = "\xe9"', "default = 1".encode("utf-16")])
def test_what_is_not_utf8_is_refused(parse: Callable[[bytes], object], data: bytes) -> None:
    assert refusal(parse, data) == "invalid_policy"


def test_a_message_names_the_file_and_the_mistake() -> None:
    with pytest.raises(ValueError, match=r"^repo.toml: product 'X' is malformed; expected"):
        parse_repo_toml(b'product = "X"')
    with pytest.raises(ValueError, match=r"^repo.toml: there is no field stale_day; expected one of .*stale_days"):
        parse_repo_toml(b"stale_day = 1")


def test_channels_toml_assigns_channels_by_id() -> None:
    """L31, L53."""
    policy = parse_channels_toml(
        f"""
default = "beta"
organisations = {{ "ORG-1" = "alpha" }}
sites = {{ " Berlin " = "stable" }}
devices = {{ "win-{ID.upper()}" = "alpha" }}
""".encode()
    )
    assert policy == ChannelPolicy(
        Channel.BETA, {"org-1": Channel.ALPHA}, {"berlin": Channel.STABLE}, {ID: Channel.ALPHA}
    )
    assert parse_channels_toml(b"") == ChannelPolicy()


@pytest.mark.parametrize(
    "text",
    [
        'defualt = "beta"',
        'default = "nightly"',
        "default = true",
        'sites = ["berlin"]',
        'sites = { berlin = "gamma" }',
        "organisations = { berlin = 1 }",
        'sites = { berlin = "beta", BERLIN = "beta" }',
        'organisations = { "a" = "beta", " a" = "alpha" }',
        'devices = { "laptop-17" = "beta" }',
        f'devices = {{ "{ID}" = "beta", "win-{ID}" = "alpha" }}',
        'devices = { "00000000-0000-0000-0000-000000000000" = "beta" }',
        f"x = {'9' * 5000}",
        "[sites",
    ],
)
def test_a_mistake_in_channels_toml_is_an_error(text: str) -> None:
    """L31: two spellings of one id would leave it to chance which counts."""
    assert refusal(parse_channels_toml, text.encode()) == "invalid_policy"


@given(st.text(max_size=60))
def test_any_text_is_a_policy_or_refused(text: str) -> None:
    for parse in (parse_repo_toml, parse_channels_toml):
        assert refusal(parse, text.encode(errors="surrogatepass")) in {None, "invalid_policy"}
