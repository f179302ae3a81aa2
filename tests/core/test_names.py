"""What a name in the tree means (L1 to L4, L9)."""

from __future__ import annotations

import unicodedata

import pytest
from core.making import LINUX, components, platforms, refusal, versions
from hypothesis import assume, example, given
from hypothesis import strategies as st

from repo_server.core.model import DEFAULT_COMPONENTS, Arch, Os, Platform, ReleaseId
from repo_server.core.names import (
    EXTENSIONS,
    MAX_NAME_BYTES,
    RESERVED_AT_ROOT,
    ReleaseName,
    SidecarKind,
    SidecarName,
    TemporaryName,
    classify,
    is_temporary,
    parse_release_name,
    printable,
    split_sidecar,
    unsafe_name,
)
from repo_server.core.version import Version

NAME = "service-linux-amd64-1.2.3.tar.gz"


def test_a_release_name_says_component_platform_version_and_extension() -> None:
    """L4."""
    assert classify(NAME) == ReleaseName(ReleaseId("service", Version("1.2.3"), LINUX), ".tar.gz")


@given(components, platforms, versions, st.sampled_from(["", *EXTENSIONS]))
def test_every_release_name_is_read_as_it_is_written(
    component: str, platform: Platform, version: Version, extension: str
) -> None:
    """L4: but for versions that end like an extension, a sidecar or a temporary file, which the name then is."""
    name = ReleaseName(ReleaseId(component, version, platform), extension)
    assume(not str(version).endswith(EXTENSIONS))
    assume(not is_temporary(str(name)))
    assume(split_sidecar(str(name)) is None)
    assert classify(str(name), [component]) == name
    assert str(classify(str(name), [component])) == str(name)


@given(components, platforms, versions, st.sampled_from(["", *EXTENSIONS]), st.sampled_from(SidecarKind))
def test_every_sidecar_belongs_to_the_file_that_it_is_named_after(
    component: str, platform: Platform, version: Version, extension: str, kind: SidecarKind
) -> None:
    """L3."""
    name = str(ReleaseName(ReleaseId(component, version, platform), extension))
    assume(not is_temporary(name))
    assume(split_sidecar(name) is None)
    assert classify(name + kind, [component]) == SidecarName(name, kind)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_known_extension_at_the_end_is_always_the_extension(extension: str) -> None:
    """L4: ``1.2.3-rc.bin`` would be a version as well."""
    name = parse_release_name(f"service-linux-amd64-1.2.3-rc{extension}")
    assert (str(name.id.version), name.extension) == ("1.2.3-rc", extension)


@pytest.mark.parametrize("os", Os)
@pytest.mark.parametrize("arch", Arch)
def test_every_platform_can_be_named(os: Os, arch: Arch) -> None:
    assert parse_release_name(f"ui-{os}-{arch}-1.0.0").id.platform == Platform(os, arch)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("service.tar.gz", "unrecognised_name"),
        ("service-linux-amd64.tar.gz", "unrecognised_name"),
        ("service_linux_amd64_1.2.3.tar.gz", "unrecognised_name"),
        ("service-linux-amd64-.tar.gz", "unrecognised_name"),
        ("README", "unrecognised_name"),
        ("-linux-amd64-1.2.3", "unknown_component"),
        ("Service-linux-amd64-1.2.3.tar.gz", "unknown_component"),
        ("sensor-linux-amd64-1.2.3.tar.gz", "unknown_component"),
        ("commandit-service-linux-amd64-1.2.3.tar.gz", "unknown_component"),
        ("service-Linux-amd64-1.2.3.tar.gz", "unknown_platform"),
        ("service-linux-x86_64-1.2.3.tar.gz", "unknown_platform"),
        ("service-darwin-arm64-1.2.3.tar.gz", "unknown_platform"),
        ("service-linux-amd64-1.2.tar.gz", "invalid_version"),
        ("service-linux-amd64-v1.2.3.tar.gz", "invalid_version"),
        ("service-linux-amd64-1.2.3+build.tar.gz", "invalid_version"),
        ("service-linux-amd64-1.2.3.tar.gz.asc", "invalid_version"),
        ("service-linux-amd64-1.2.3.TAR.GZ", "invalid_version"),
        ("service-linux-amd64-1.2.3.tar", "invalid_version"),
        ("service-linux-amd64-1.2.3.tar.gz.sha256.sha256", "unrecognised_name"),
        ("service-linux-amd64-1.2.3-rc.sha256.sha256", "unrecognised_name"),
        ("ghost.sha256", "unrecognised_name"),
        ("service-linux-amd64-1.2.3.tar.gz\n", "unsafe_name"),
        ("service-linux-amd64-1.2.3\udcff.tar.gz", "unsafe_name"),
        ("service-linux-amd64-1.2.3\u202egz.rat", "unsafe_name"),
        ("service-linux-amd64-1.2.3-ä.tar.gz", "unsafe_name"),
        ("ѕervice-linux-amd64-1.2.3.tar.gz", "unsafe_name"),  # noqa: RUF001 -- the Cyrillic letter is the point
        ("../service-linux-amd64-1.2.3.tar.gz", "unsafe_name"),
        ("..\\service-linux-amd64-1.2.3.tar.gz", "unsafe_name"),
        ("service-linux-amd64-1.2.3-" + "a" * 180, "unsafe_name"),
        ("", "unsafe_name"),
        (".", "unsafe_name"),
        ("..", "unsafe_name"),
    ],
)
def test_a_name_that_means_nothing_is_refused_with_a_code(name: str, code: str) -> None:
    """L4, L5, L9."""
    assert refusal(parse_release_name, name) == code


@pytest.mark.parametrize(
    "name", ["service-linux-amd64-1.2.3-rc.sha256", "service-linux-amd64-1.2.3-rc.tmp", NAME + ".channel"]
)
def test_a_version_cannot_make_a_release_look_like_a_sidecar_or_a_temporary_file(name: str) -> None:
    """L3: nothing would ever be looked for under such a name, so it must not be signed or published either."""
    assert refusal(parse_release_name, name) == "unrecognised_name"
    assert not isinstance(classify(name), ReleaseName)


def test_components_of_repo_toml_are_known_and_others_are_not() -> None:
    """L4, L30."""
    name = "sensor-linux-amd64-1.2.3"
    assert isinstance(classify(name, [*DEFAULT_COMPONENTS, "sensor"]), ReleaseName)
    assert refusal(classify, name, DEFAULT_COMPONENTS) == "unknown_component"
    assert refusal(classify, name + ".sig", DEFAULT_COMPONENTS) == "unknown_component"
    assert refusal(classify, "Bad-linux-amd64-1.2.3", ["Bad"]) == "unknown_component"


@pytest.mark.parametrize(
    "name",
    [
        f".{NAME}.Xa9zQ1",
        ".published",
        ".lock",
        ".tmp-00ff",
        f"{NAME}~",
        f"{NAME}.tmp",
        f"{NAME}.temp",
        f"{NAME}.part",
        f"{NAME}.partial",
        f"{NAME}.filepart",
        f"{NAME}.crdownload",
        f"{NAME}.download",
        f"{NAME}.swp",
        f"{NAME}.bak",
        f"{NAME}.PART",
        f"#{NAME}#",
        f"~${NAME}",
        "Thumbs.db",
        "THUMBS.DB",
        "desktop.ini",
        "lost+found",
        "System Volume Information",
        ".with\na line feed",
        f"{NAME}.tmp.sha256",
        ".hidden.sha256",
    ],
)
def test_temporary_names_of_tools_are_ignored(name: str) -> None:
    """L3: of cp, scp, rsync, WinSCP, browsers and editors, in any case; sidecars of such names as well."""
    assert classify(name) == TemporaryName()


@pytest.mark.parametrize("name", [NAME, f"{NAME}.sha256", "2026", "q4", "tmp", "part", "backup"])
def test_ordinary_names_are_not_ignored(name: str) -> None:
    assert not is_temporary(name)


def test_reserved_names_at_the_root_are_those_of_the_format() -> None:
    """L2."""
    assert set(RESERVED_AT_ROOT) == {"repo.toml", "metadata", "policy", "sets", "commands"}


def test_a_bare_suffix_is_not_a_sidecar() -> None:
    assert split_sidecar(".sha256") is None
    assert split_sidecar(NAME) is None
    assert split_sidecar("x.sig") == SidecarName("x", SidecarKind.SIG)


def test_a_name_may_have_two_hundred_bytes() -> None:
    """L9: room for a sidecar's suffix and a temporary name within 255."""
    assert unsafe_name("a" * MAX_NAME_BYTES) is None
    assert unsafe_name("a" * (MAX_NAME_BYTES + 1)) == "is longer than 200 bytes"


@given(st.text(max_size=220))
@example("\udc80")
@example("a\u2066b")
def test_a_safe_name_is_printable_ascii_and_one_file(name: str) -> None:
    """L9."""
    problem = unsafe_name(name)
    fine = name.isascii() and name.isprintable() and not set("/\\") & set(name)
    assert (problem is None) == (fine and name not in {"", ".", ".."} and len(name) <= MAX_NAME_BYTES)


@given(st.text(max_size=60))
def test_every_name_is_classified_or_refused_with_a_code(name: str) -> None:
    """One odd name never stops a scan (L9)."""
    codes = {None, "unsafe_name", "unrecognised_name", "unknown_component", "unknown_platform", "invalid_version"}
    assert refusal(classify, name) in codes


@given(st.binary(max_size=30), st.binary(max_size=30))
@example(b"\\xff", b"\xff")
@example(b"a\xff\xe2\x80\xae.tar", b"")
def test_escaped_paths_are_harmless_and_never_look_alike(left: bytes, right: bytes) -> None:
    """L9: names as the file system gives them, with what is not UTF-8 escaped."""
    shown = [printable(name.decode(errors="surrogateescape")) for name in (left, right)]
    for text in shown:
        assert text.isprintable()
        assert not any(unicodedata.category(char) in {"Cc", "Cf", "Cs"} for char in text)
        text.encode()
    assert (shown[0] == shown[1]) == (left == right)


def test_odd_bytes_and_text_direction_are_shown_as_escapes() -> None:
    """L9."""
    assert printable("a\udcff\u202eb\ud800\\c\n") == "a\\xff\\u202eb\\ud800\\\\c\\n"
    assert printable("2026/q4/é x") == "2026/q4/é x"
