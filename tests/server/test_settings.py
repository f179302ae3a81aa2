"""Settings: flag > environment > file > default, and every mistake is named with its source (design §11)."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from repo_server.cli import main
from repo_server.settings import (
    Settings,
    SettingsInvalid,
    Unsafe,
    check_exposure,
    options,
    read_settings,
    unknown_variables,
)

NEEDED = {"tree": "/t", "state": "/s"}


def write(folder: Path, text: str) -> str:
    path = folder / "server.toml"
    path.write_text(text)
    return str(path)


def test_defaults_are_those_of_the_design() -> None:
    settings = read_settings(NEEDED, {})
    assert (settings.host, settings.port, settings.next_check_seconds) == ("127.0.0.1", 8470, 14400)
    assert settings.tree == Path("/t")


def test_a_flag_beats_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    config = write(tmp_path, 'host = "file"\nport = 1\nnext_check_seconds = 60\n')
    environment = {"REPO_SERVER_CONFIG": config, "REPO_SERVER_HOST": "environment", "REPO_SERVER_PORT": "2"}
    settings = read_settings({**NEEDED, "port": "3"}, environment)
    assert (settings.host, settings.port, settings.next_check_seconds) == ("environment", 3, 60)


@pytest.mark.parametrize("option", options(), ids=lambda option: option.name)
def test_every_setting_can_come_from_everywhere(option: object, tmp_path: Path) -> None:
    name = option.name  # type: ignore[attr-defined]
    value = example(option)
    together = {"tls_cert": "tls_key", "tls_key": "tls_cert"}
    others = {**NEEDED, **({together[name]: "/other"} if name in together else {})}
    others.pop(name, None)
    literal = "true" if value is True else repr(value).replace("'", '"')
    in_environment = ",".join(value) if isinstance(value, list) else str(value).lower()
    from_file = read_settings({**others, "config": write(tmp_path, f"{name} = {literal}\n")}, {})
    from_environment = read_settings(others, {f"REPO_SERVER_{name.upper()}": in_environment})
    from_flag = read_settings({**others, name: value}, {})
    expected = Path(value) if isinstance(getattr(from_flag, name), Path) else value
    expected = tuple(value) if isinstance(value, list) else expected
    assert [getattr(found, name) for found in (from_file, from_environment, from_flag)] == [expected] * 3


def example(option: object) -> object:
    """Return a value for a setting that is not its default."""
    name, default = option.name, option.default  # type: ignore[attr-defined]
    values = {
        "workers": 1, "log_level": "debug", "proxy_header": "forwarded", "base_url": "https://u.example",
        "package_base_url": "https://cdn.example/tree", "x_accel": "/release-files/",
        "redis_url": "redis://r:1", "trusted_proxy": ["10.0.0.0/8", "192.0.2.1"],
    }  # fmt: skip
    if option.flag:  # type: ignore[attr-defined]
        return True
    if name.startswith("limit_"):
        return "7/1m"
    return values.get(name, default + 1 if isinstance(default, int) else "/somewhere")


def test_every_setting_is_an_option_of_serve() -> None:
    text = CliRunner().invoke(main, ["serve", "--help"]).output
    assert [option.name for option in options() if f"--{option.name.replace('_', '-')}" not in text] == []


def test_relative_paths_in_a_file_mean_its_own_folder(tmp_path: Path) -> None:
    config = write(tmp_path, 'tree = "downloads"\nstate = "/absolute"\n')
    settings = read_settings({"config": config}, {})
    assert (settings.tree, settings.state) == (tmp_path / "downloads", Path("/absolute"))


@pytest.mark.parametrize(
    ("flags", "environment", "file", "expected"),
    [
        ({}, {}, None, "--tree is missing"),
        ({"tree": "/t"}, {}, None, "--state is missing"),
        ({**NEEDED, "port": "http"}, {}, None, "--port from the command line"),
        ({**NEEDED, "port": "65536"}, {}, None, "--port from the command line"),
        (NEEDED, {"REPO_SERVER_PORT": "tcp://10.0.0.1:80"}, None, "--port from the environment"),
        (NEEDED, {"REPO_SERVER_POLL": "maybe"}, None, "--poll from the environment"),
        (NEEDED, {}, "prot = 1", "unknown key 'prot'"),
        (NEEDED, {}, 'port = "x"', "server.toml"),
        ({}, {}, "tree = 5\nstate = []", "--tree from"),
        (NEEDED, {}, "secrets = 5", "--secrets from"),
        (NEEDED, {}, "port = ", "is not TOML"),
        (NEEDED, {}, 'config = "other.toml"', "unknown key 'config'"),
        ({**NEEDED, "config": "/nowhere.toml"}, {}, None, "cannot read --config /nowhere.toml"),
        ({**NEEDED, "tls_cert": "/c"}, {}, None, "belong together"),
        ({**NEEDED, "workers": "257"}, {}, None, "--workers"),
        ({**NEEDED, "workers": "0"}, {}, None, "--workers"),
        ({**NEEDED, "base_url": "ftp://x"}, {}, None, "--base-url"),
        ({**NEEDED, "base_url": "https://x/\r\nevil"}, {}, None, "--base-url"),
        ({**NEEDED, "no_database": True, "database_url": "postgresql://x"}, {}, None, "contradict"),
        ({**NEEDED, "log_level": "loud"}, {}, None, "--log-level"),
        ({**NEEDED, "limit_device": "10 per minute"}, {}, None, "--limit-device"),
        ({**NEEDED, "limit_secret": "0/1s"}, {}, None, "--limit-secret"),
        ({**NEEDED, "trusted_proxy": ("10.0.0.1", "10.0.0.0/33")}, {}, None, "--trusted-proxy"),
        ({**NEEDED, "redis_url": "http://x"}, {}, None, "--redis-url"),
        ({**NEEDED, "redis_url": "redis://host:port"}, {}, None, "--redis-url"),
        ({**NEEDED, "redis_url": "redis+unix://"}, {}, None, "--redis-url"),
        ({**NEEDED, "database_url": " "}, {}, None, "--database-url is empty"),
        ({**NEEDED, "tree": ""}, {}, None, "--tree from the command line: expected a path, found ''"),
        ({**NEEDED, "workers": "257"}, {}, None, "expected a whole number, at most 256"),
        ({**NEEDED, "port": "http"}, {}, None, "expected a whole number, found text"),
        ({**NEEDED, "host": ""}, {}, None, "it is empty"),
        ({**NEEDED, "log_level": "loud"}, {}, None, "'loud' is not one of debug, error, info, warning"),
        (NEEDED, {"REPO_SERVER_TRUSTED_PROXY": "10.0.0.1,proxy.example"}, None, "--trusted-proxy"),
    ],
)
def test_a_mistake_is_named_with_its_source(
    flags: dict[str, object], environment: dict[str, str], file: str | None, expected: str, tmp_path: Path
) -> None:
    given = dict(flags) if file is None else {**flags, "config": write(tmp_path, file)}
    with pytest.raises(SettingsInvalid, match=expected.replace("(", r"\(")):
        read_settings(given, environment)


def test_variables_that_set_nothing_are_named() -> None:
    environment = {"REPO_SERVER_PROT": "1", "REPO_SERVER_PORT": "1", "REPO_SERVER_CONFIG": "x", "OTHER": "1"}
    assert unknown_variables(environment) == ("REPO_SERVER_PROT",)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_without_secrets_loopback_is_fine(host: str) -> None:
    check_exposure(Settings(tree=Path(), state=Path(), host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "updates.example.com"])  # noqa: S104 -- refused
def test_without_secrets_other_addresses_are_refused(host: str) -> None:
    with pytest.raises(Unsafe, match="--secrets"):
        check_exposure(Settings(tree=Path(), state=Path(), host=host))
    check_exposure(Settings(tree=Path(), state=Path(), host=host, insecure_no_auth=True))
    check_exposure(Settings(tree=Path(), state=Path(), host=host, secrets=Path("/secrets")))
