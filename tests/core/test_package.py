"""``package.toml``: what a package says of itself, and every way in which it can be wrong (L40 to L44, FR-CMP-005)."""

from __future__ import annotations

import pytest
from core.making import LINUX, refusal
from hypothesis import given
from hypothesis import strategies as st

from repo_server.core.model import ReleaseId, Requirement
from repo_server.core.package import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    Health,
    HealthKind,
    Hooks,
    PackageManifest,
    Service,
    ServiceKind,
    parse_package_toml,
)
from repo_server.core.version import Version

HEAD = 'component = "service"\nversion = "1.2.3"\nos = "linux"\narch = "amd64"\n'
ID = ReleaseId("service", Version("1.2.3"), LINUX)


def parse(text: str) -> PackageManifest:
    return parse_package_toml(text.encode())


def test_a_package_need_only_say_what_it_is() -> None:
    """L40."""
    assert MANIFEST_NAME == "package.toml"
    assert parse(HEAD) == PackageManifest(ID, "files")


def test_everything_that_a_package_says_is_read() -> None:
    """L40 to L44."""
    manifest = parse(
        HEAD
        + """
payload = "a/b"
preserve = ["etc/*.conf", "data/**"]
requires = [{ name = "probe", min_version = "1.0.0" }]
modes = { "bin/*" = "0755", "**" = "644" }
[service]
kind = "systemd"
name = "commandit@1.service"
stop_timeout_seconds = 5
[health]
kind = "command"
command = ["bin/check", "-v"]
timeout_seconds = 1.5
probation_seconds = 0
[hooks]
pre_install = ["hooks/pre"]
post_install = ["hooks/post", "x"]
timeout_seconds = 7
"""
    )
    assert manifest == PackageManifest(
        ID,
        "a/b",
        ("etc/*.conf", "data/**"),
        (Requirement("probe", Version("1.0.0")),),
        (("bin/*", 0o755), ("**", 0o644)),
        Service(ServiceKind.SYSTEMD, "commandit@1.service", (), 5.0),
        Health(HealthKind.COMMAND, ("bin/check", "-v"), None, None, 1.5, 0.0),
        Hooks(("hooks/pre",), ("hooks/post", "x"), 7.0),
    )


@pytest.mark.parametrize(
    ("table", "kind"),
    [
        ('kind = "process"\ncommand = ["bin/serve"]', ServiceKind.PROCESS),
        ('kind = "systemd"\nname = "a.service"', ServiceKind.SYSTEMD),
        ('kind = "launchd"\nname = "com.commandit.service"', ServiceKind.LAUNCHD),
        ('kind = "windows-service"\nname = "CommandIT"', ServiceKind.WINDOWS_SERVICE),
        ('kind = "none"', ServiceKind.NONE),
    ],
)
def test_every_kind_of_service_is_read(table: str, kind: ServiceKind) -> None:
    """L43."""
    assert parse(f"{HEAD}[service]\n{table}").service.kind is kind


@pytest.mark.parametrize(
    ("table", "kind"),
    [
        ('kind = "process"', HealthKind.PROCESS),
        ('kind = "command"\ncommand = ["x"]', HealthKind.COMMAND),
        ('kind = "http"\nurl = "http://127.0.0.1:8080/healthz"', HealthKind.HTTP),
        ('kind = "tcp"\nport = 65535', HealthKind.TCP),
    ],
)
def test_every_kind_of_health_check_is_read(table: str, kind: HealthKind) -> None:
    """L43."""
    assert parse(f"{HEAD}[health]\n{table}").health.kind is kind


@pytest.mark.parametrize(
    "table",
    [
        '[service]\nkind = "process"\ncommand = ["bin/serve", "../data", "/etc"]',
        '[service]\nkind = "process"\ncommand = ["python3", "bin/serve.py"]',
        '[health]\nkind = "command"\ncommand = ["/usr/bin/test", "-e", "../x"]',
        """[hooks]\npre_install = ['C:\\Windows\\System32\\sc.exe']\npost_install = ["/bin/sh", "hooks/post"]""",
    ],
)
def test_a_program_is_the_packages_the_systems_or_for_checks_and_hooks_the_endpoints(table: str) -> None:
    """L43, L44: what comes behind the program is its own business."""
    assert refusal(parse, HEAD + table) is None


@pytest.mark.parametrize(
    ("component", "said", "session"),
    [("ui", "", True), ("service", "", False), ("ui", "session = false", False), ("service", "session = true", True)],
)
def test_the_ui_belongs_to_a_user_session_unless_its_package_says_otherwise(
    component: str, said: str, session: bool
) -> None:
    """L43, FR-CMP-007."""
    text = HEAD.replace('"service"', f'"{component}"')
    assert parse(f"{text}[service]\n{said}\n").service.session is session


def head(**changes: str) -> str:
    fields = {"component": "service", "version": "1.2.3", "os": "linux", "arch": "amd64"} | changes
    return "".join(f'{name} = "{value}"\n' for name, value in fields.items() if value != "-")


@pytest.mark.parametrize(
    "text",
    [
        "",
        *(head(**{name: "-"}) for name in ("component", "version", "os", "arch")),
        head(component="Service"),
        head(component="service\\n"),
        head(component=""),
        head(version="1.2"),
        head(version="1.2.3\\n"),
        head(version="1.2.3+x"),
        head(os="Linux"),
        head(arch="x86_64"),
        HEAD.replace('"1.2.3"', "1.2"),
        HEAD + 'unknown = "x"',
        HEAD + "[service]\nkindd = 1",
        HEAD + "[health]\nextra = 1",
        HEAD + "[hooks]\nextra = 1",
        HEAD + HEAD,
        HEAD + "component",
        HEAD + f"x = {'[' * 20000}",
        HEAD + f"[health]\nport = {'9' * 5000}",
        "\ufeff" + HEAD,
    ],
)
def test_a_package_that_does_not_say_what_it_is_is_refused(text: str) -> None:
    """L40."""
    assert refusal(parse, text) == "invalid_package"


@pytest.mark.parametrize(
    "path",
    ["", ".", "..", "/etc", "a/../b", "a//b", "a/", "./a", "a\\\\b", "C:", "C:/x", "a\\u0000b", "a\\nb", "a\\u202eb"],
)
@pytest.mark.parametrize("where", ['payload = "{}"', 'preserve = ["{}"]', 'modes = {{ "{}" = "0755" }}'])
def test_a_path_that_could_leave_the_package_is_refused(where: str, path: str) -> None:
    """L41, L42."""
    assert refusal(parse, HEAD + where.format(path)) == "invalid_package"


@pytest.mark.parametrize(
    "mode", ["", "4755", "04755", "1777", "755x", "0o755", "888", "07", "00755", "755\\n", "rwxr-xr-x"]
)
def test_modes_are_nine_permission_bits(mode: str) -> None:
    """L41, L42: no setuid, setgid or sticky."""
    assert refusal(parse, HEAD + f'modes = {{ "bin/*" = "{mode}" }}') == "invalid_package"


@pytest.mark.parametrize(
    "requires",
    [
        '[{ name = "probe" }]',
        '[{ name = "Probe", min_version = "1.0.0" }]',
        '[{ name = "probe", min_version = "1" }]',
        '[{ name = "probe", min_version = "1.0.0", max_version = "2.0.0" }]',
        '[{ name = "probe", min_version = "1.0.0" }, { name = "probe", min_version = "2.0.0" }]',
        '"probe"',
    ],
)
def test_malformed_requirements_are_refused(requires: str) -> None:
    """L13, L40."""
    assert refusal(parse, f"{HEAD}requires = {requires}") == "invalid_package"


@pytest.mark.parametrize(
    "table",
    [
        '[service]\nkind = "process"',
        '[service]\nkind = "process"\ncommand = []',
        '[service]\nkind = "process"\ncommand = [""]',
        '[service]\nkind = "process"\ncommand = "bin/serve"',
        '[service]\nkind = "systemd"',
        '[service]\nkind = "systemd"\nname = ""',
        '[service]\nkind = "systemd"\nname = "a.service\\n"',
        '[service]\nkind = "systemd"\nname = "--now"',
        '[service]\nkind = "systemd"\nname = "a b"',
        '[service]\nkind = "systemd"\nname = "a/b"',
        '[service]\nkind = "launchd"\ncommand = ["x"]',
        '[service]\nkind = "windows-service"',
        '[service]\nkind = "cron"',
        '[service]\nkind = "none"\nstop_timeout_seconds = -1',
        "[service]\nstop_timeout_seconds = 3601",
        "[service]\nstop_timeout_seconds = nan",
        '[health]\nkind = "command"',
        '[health]\nkind = "http"',
        '[health]\nkind = "http"\nurl = "file:///etc/passwd"',
        '[health]\nkind = "http"\nurl = "http://127.0.0.1/\\n"',
        '[health]\nkind = "http"\nurl = "http://127.0.0.1/ x"',
        '[health]\nkind = "http"\nurl = "http://127.0.0.1:http/"',
        '[health]\nkind = "http"\nurl = "http://127.0.0.1:65536/"',
        '[health]\nkind = "http"\nurl = "http://127.0.0.1:0/"',
        '[health]\nkind = "http"\nurl = "http://[::1/"',
        '[health]\nkind = "http"\nurl = "http://:80/"',
        '[health]\nkind = "http"\nurl = "http:///healthz"',
        '[health]\nkind = "http"\nurl = "http://two..dots/"',
        f'[health]\nkind = "http"\nurl = "http://{"a" * 64}/"',
        '[health]\nkind = "http"\nurl = "http://127.0.0.1/ü"',
        '[health]\nkind = "command"\ncommand = ["bin/check\\u0000"]',
        '[service]\nkind = "process"\ncommand = ["bin/serve", "a\\u0000b"]',
        '[hooks]\npre_install = ["hooks/pre\\u0000"]',
        '[service]\nkind = "process"\ncommand = ["../serve"]',
        '[service]\nkind = "process"\ncommand = ["bin/../../serve"]',
        '[service]\nkind = "process"\ncommand = ["./serve"]',
        '[service]\nkind = "process"\ncommand = ["/usr/bin/serve"]',
        """[service]\nkind = "process"\ncommand = ['C:\\serve.exe']""",
        """[service]\nkind = "process"\ncommand = ['bin\\serve.exe']""",
        '[health]\nkind = "command"\ncommand = ["../check"]',
        '[health]\nkind = "command"\ncommand = ["/opt/../check"]',
        '[hooks]\npre_install = ["../pre"]',
        """[hooks]\npost_install = ['C:\\a\\..\\post.exe']""",
        '[health]\nkind = "tcp"',
        '[health]\nkind = "tcp"\nport = 0',
        '[health]\nkind = "tcp"\nport = 65536',
        '[health]\nkind = "tcp"\nport = "80"',
        '[health]\nkind = "ping"',
        "[health]\ntimeout_seconds = 0",
        "[health]\ntimeout_seconds = nan",
        "[health]\ntimeout_seconds = inf",
        "[health]\nprobation_seconds = -0.1",
        "[health]\nprobation_seconds = 3601",
        "[hooks]\ntimeout_seconds = 0",
        '[hooks]\npre_install = "x"',
        f"[hooks]\npre_install = {['x'] * 257}",
        "[service]\nkind = true",
    ],
)
def test_a_service_check_or_hook_that_contradicts_itself_is_refused(table: str) -> None:
    """L43, L44."""
    assert refusal(parse, HEAD + table) == "invalid_package"


def test_what_an_earlier_version_admitted_stays_readable() -> None:
    """L43: it is installed, and has to be stopped; every other rule holds."""
    table = """
    [service]
    kind = "process"
    command = ["/usr/bin/serve"]
    [health]
    kind = "http"
    url = "http://two..dots/"
    [hooks]
    pre_install = ["../pre"]
    """
    assert refusal(parse, HEAD + table) == "invalid_package"
    package = parse_package_toml((HEAD + table).encode(), admitted=True)
    assert package.service.command == ("/usr/bin/serve",)
    assert refusal(lambda text: parse_package_toml(text, admitted=True), b"") == "invalid_package"


def test_a_manifest_that_is_too_large_or_not_utf8_is_refused() -> None:
    """L40."""
    filler = b"#" * MAX_MANIFEST_BYTES
    assert refusal(parse_package_toml, HEAD.encode() + filler) == "invalid_package"
    assert refusal(parse_package_toml, (HEAD.encode() + filler)[:MAX_MANIFEST_BYTES]) is None
    with pytest.raises(ValueError, match=r"not UTF-8 at byte 1$"):
        parse_package_toml(b"#\xff")


@given(st.text(max_size=60))
def test_any_text_is_a_manifest_or_refused(text: str) -> None:
    assert refusal(parse_package_toml, (HEAD + text).encode(errors="surrogatepass")) in {None, "invalid_package"}
