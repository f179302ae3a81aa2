"""``repotool pack``: reproducible archives, and a list of everything that may not be in one (L40, L41)."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import socket
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from support.operators import Operator, package_folder

NAME = "service-linux-amd64-1.2.3.tar.gz"


def pack(operator: Operator, folder: Path, out: Path, *more: str) -> bytes:
    facts = operator.facts("pack", folder, "-o", out, *more)
    return Path(operator.home / facts["path"]).read_bytes()


def test_gnu_tar_lists_and_unpacks_a_package_with_its_manifest_first(operator: Operator, tmp_path: Path) -> None:
    """L40."""
    folder = package_folder(tmp_path / "source")
    (folder / "files" / "empty").mkdir()
    pack(operator, folder, tmp_path)
    listed = subprocess.run(["tar", "-tzf", tmp_path / NAME], check=True, capture_output=True, text=True)
    assert listed.stdout.split() == [
        "package.toml", "files/", "files/bin/", "files/bin/serve", "files/empty/", "files/readme.txt",
    ]  # fmt: skip
    assert listed.stderr == ""
    (tmp_path / "out").mkdir()
    unpacked = subprocess.run(["tar", "-xzf", tmp_path / NAME, "-C", tmp_path / "out"], check=True, capture_output=True)
    assert unpacked.stderr == b""
    assert subprocess.run(["diff", "-r", folder, tmp_path / "out"], check=False).returncode == 0


def test_a_zip_is_read_by_unzip(operator: Operator, tmp_path: Path) -> None:
    pack(operator, package_folder(tmp_path / "source"), tmp_path, "--format", "zip")
    path = tmp_path / NAME.replace(".tar.gz", ".zip")
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist()[0] == "package.toml"
        assert archive.testzip() is None
    subprocess.run(["unzip", "-q", path, "-d", tmp_path / "out"], check=True)
    assert (tmp_path / "out/files/bin/serve").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_the_same_input_gives_the_same_bytes(operator: Operator, tmp_path: Path, kind: str) -> None:
    """Times, owners, umask, locale, time zone and the order on disk do not matter."""
    first, second = tmp_path / "a" / "source", tmp_path / "b" / "elsewhere"
    package_folder(first)
    for name in ("zebra", "Äpfel", "a b", "ape"):
        (first / "files" / name).write_text(name)
    old_umask = os.umask(0o077)
    try:
        for path in sorted(first.rglob("*"), reverse=True):
            target = second / path.relative_to(first)
            if path.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
                target.chmod(0o700 if path.stat().st_mode & 0o100 else 0o600)
                os.utime(target, (1_000_000_000, 1_000_000_000))
                if os.geteuid() == 0:
                    os.chown(target, 1234, 1234)
    finally:
        os.umask(old_umask)
    one = pack(operator, first, tmp_path / "one", "--format", kind)
    operator.env.update(LC_ALL="C", TZ="Asia/Tokyo", PYTHONHASHSEED="7")
    assert pack(operator, second, tmp_path / "two", "--format", kind) == one


def test_one_changed_byte_or_executable_bit_changes_the_archive(operator: Operator, tmp_path: Path) -> None:
    folder = package_folder(tmp_path / "source")
    one = pack(operator, folder, tmp_path / "one")
    (folder / "files" / "readme.txt").chmod(0o755)
    two = pack(operator, folder, tmp_path / "two")
    (folder / "files" / "readme.txt").write_text("read mi\n")
    three = pack(operator, folder, tmp_path / "three")
    assert len({one, two, three}) == 3


def test_the_gzip_header_carries_neither_time_nor_name(operator: Operator, tmp_path: Path) -> None:
    data = pack(operator, package_folder(tmp_path / "source"), tmp_path)
    assert data[3] == 0
    assert data[4:8] == b"\0\0\0\0"
    gzip.decompress(data)


def test_owners_are_nobody_in_particular_and_modes_come_from_the_manifest(operator: Operator, tmp_path: Path) -> None:
    """L42: the last match of [modes] counts."""
    folder = package_folder(
        tmp_path / "source", extra='[modes]\n"*" = "0644"\n"bin/*" = "0750"\n"**/secret" = "0600"\n'
    )
    (folder / "files" / "etc").mkdir()
    (folder / "files" / "etc" / "secret").write_text("s")
    pack(operator, folder, tmp_path)
    with tarfile.open(tmp_path / NAME) as tar:
        modes = {member.name: member.mode for member in tar if member.isreg()}
        assert {(member.uid, member.gid, member.uname, member.gname) for member in tar} == {(0, 0, "", "")}
    assert modes["files/bin/serve"] == 0o750
    assert modes["files/etc/secret"] == 0o600
    assert modes["files/readme.txt"] == modes["package.toml"] == 0o644


def spoil_link(folder: Path) -> str:
    (folder / "files" / "link").symlink_to("readme.txt")
    return "symbolic link"


def spoil_folder_link(folder: Path) -> str:
    (folder / "files" / "link").symlink_to("bin")
    return "symbolic link"


def spoil_fifo(folder: Path) -> str:
    os.mkfifo(folder / "files" / "pipe")
    return "a FIFO"


def spoil_socket(folder: Path) -> str:
    here = Path.cwd()
    os.chdir(folder / "files")
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("s")
    finally:
        os.chdir(here)
    return "a socket"


def spoil_case(folder: Path) -> str:
    (folder / "files" / "README.txt").write_text("")
    return "differ only in case"


def spoil_reserved(folder: Path) -> str:
    (folder / "files" / "aux.c").write_text("")
    return "Windows reserves"


def spoil_trailing_dot(folder: Path) -> str:
    (folder / "files" / "name.").write_text("")
    return "ends with a blank or dot"


def spoil_drive(folder: Path) -> str:
    (folder / "files" / "a:b").write_text("")
    return "drive letter"


def spoil_windows_character(folder: Path) -> str:
    text = (folder / "package.toml").read_text()
    (folder / "package.toml").write_text(text.replace('os = "linux"', 'os = "windows"'))
    (folder / "files" / "what?").write_text("")
    return "Windows does not allow"


def spoil_ratio(folder: Path) -> str:
    with (folder / "files" / "zeros").open("wb") as file:
        file.truncate(20 * 1024 * 1024)
    return "bomb"


def spoil_depth(folder: Path) -> str:
    (folder / "files" / "/".join("d" * 32)).mkdir(parents=True)
    return "deeper"


def spoil_bidi(folder: Path) -> str:
    (folder / "files" / "gpj\u202eexe").write_text("")
    return "text-direction"


def spoil_bytes(folder: Path) -> str:
    with open(os.fsencode(folder / "files") + b"/\xff", "wb"):  # noqa: PTH123 -- a name in bytes
        pass
    return "not UTF-8"


def spoil_payload(folder: Path) -> str:
    shutil.rmtree(folder / "files")
    return "no folder 'files'"


def spoil_command(folder: Path) -> str:
    (folder / "files" / "bin" / "serve").unlink()
    return "service.command"


def spoil_executable(folder: Path) -> str:
    (folder / "files" / "bin" / "serve").chmod(0o644)
    return "not executable"


def spoil_hook(folder: Path) -> str:
    with (folder / "package.toml").open("a") as file:
        file.write('[hooks]\npre_install = ["hooks/pre"]\n')
    return "hooks.pre_install"


def spoil_manifest(folder: Path) -> str:
    with (folder / "package.toml").open("a") as file:
        file.write('[helth]\nkind = "http"\n')
    return "helth"


def be_run_by(folder: Path, kind: str, command: str = "") -> None:
    text = (folder / "package.toml").read_text().partition("[service]")[0]
    (folder / "package.toml").write_text(f'{text}[service]\nkind = "{kind}"\nname = "acme"\n{command}\n')


def spoil_unit(folder: Path) -> str:
    be_run_by(folder, "systemd")
    (folder / "files" / "systemd").mkdir()
    (folder / "files" / "systemd" / "other.service").write_text(
        "[Service]\nExecStart=/opt/commandit/service/bin/serve\n"
    )
    return "files/systemd/acme.service, or service.command"


def spoil_unit_command(folder: Path) -> str:
    be_run_by(folder, "systemd", 'command = ["bin/other"]')
    return "service.command: there is no file 'files/bin/other'"


def spoil_launchd(folder: Path) -> str:
    be_run_by(folder, "launchd")
    return 'service.kind = "launchd" needs service.command'


def spoil_version(folder: Path) -> str:
    text = (folder / "package.toml").read_text()
    (folder / "package.toml").write_text(text.replace("1.2.3", "1.2"))
    return "SemVer"


SPOILERS = [value for name, value in sorted(globals().items()) if name.startswith("spoil_")]


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__)
def test_what_a_package_may_not_hold_is_refused(operator: Operator, tmp_path: Path, spoil: object) -> None:
    """L40, L41, L43, L44."""
    folder = package_folder(tmp_path / "source")
    assert callable(spoil)
    expected = spoil(folder)
    assert expected in operator.refused(1, "pack", folder, "-o", tmp_path / "out")
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize("command", ["", 'command = ["bin/serve"]', 'command = ["serve-of-the-system"]'])
def test_a_package_for_systemd_has_its_unit_or_a_command(operator: Operator, tmp_path: Path, command: str) -> None:
    """L43: a unit is made from the command where the package ships none."""
    folder = package_folder(tmp_path / "source")
    be_run_by(folder, "systemd", command)
    if not command:
        (folder / "files" / "systemd").mkdir()
        (folder / "files" / "systemd" / "acme.service").write_text(
            "[Service]\nExecStart=/opt/commandit/service/bin/serve\n"
        )
    pack(operator, folder, tmp_path)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device file")
def test_a_device_is_refused(operator: Operator, tmp_path: Path) -> None:
    """L41."""
    folder = package_folder(tmp_path / "source")
    try:
        os.mknod(folder / "files" / "null", 0o020666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("this container does not let root make device files")
    assert "a device" in operator.refused(1, "pack", folder, "-o", tmp_path / "out")


def test_everything_that_is_wrong_is_said_at_once(operator: Operator, tmp_path: Path) -> None:
    folder = package_folder(tmp_path / "source")
    expected = [spoil_link(folder), spoil_case(folder), spoil_reserved(folder), spoil_executable(folder)]
    message = operator.refused(1, "pack", folder, "-o", tmp_path / "out")
    assert all(text in message for text in expected)


def test_an_existing_archive_is_only_replaced_when_told_to(operator: Operator, tmp_path: Path) -> None:
    folder = package_folder(tmp_path / "source")
    before = pack(operator, folder, tmp_path)
    assert operator.facts("pack", folder, "-o", tmp_path)["unchanged"]
    (folder / "files" / "readme.txt").write_text("other\n")
    assert "--force" in operator.refused(3, "pack", folder, "-o", tmp_path)
    assert (tmp_path / NAME).read_bytes() == before
    operator.run("pack", folder, "-o", tmp_path / NAME, "--force")
    assert (tmp_path / NAME).read_bytes() != before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp")] == []


def test_the_archive_goes_nowhere_but_under_its_own_name(operator: Operator, tmp_path: Path) -> None:
    folder = package_folder(tmp_path / "source")
    assert NAME in operator.refused(2, "pack", folder, "-o", tmp_path / "service.tar.gz")
    assert "inside" in operator.refused(2, "pack", folder, "-o", folder / "files")
    done = operator.attempt("pack", ".", cwd=folder)
    assert done.returncode == 2


def test_dry_run_and_json_say_what_is_written(operator: Operator, tmp_path: Path) -> None:
    folder = package_folder(tmp_path / "source")
    facts = operator.facts("pack", folder, "-o", tmp_path / "out", "--dry-run")
    assert not (tmp_path / "out").exists()
    assert (facts["component"], facts["version"], facts["entries"]) == ("service", "1.2.3", 5)
    facts = operator.facts("pack", folder, "-o", tmp_path / "out")
    assert facts["sha256"] == hashlib.sha256(Path(facts["path"]).read_bytes()).hexdigest()


def test_a_folder_without_a_manifest_says_what_is_missing(operator: Operator, tmp_path: Path) -> None:
    assert "package.toml" in operator.refused(1, "pack", tmp_path)
    assert "not a folder" in operator.refused(1, "pack", tmp_path / "nothing")
