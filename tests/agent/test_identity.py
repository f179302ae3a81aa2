"""What tells a machine from a copy of it, on each system, and what of that reaches the server."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.cli.world import the_world
from agent.config import Config
from agent.endpoint import put_together
from agent.fingerprint import fingerprint
from agent.manifest import Manifest
from agent.paths import Paths
from agent.platform.identity import LinuxIdentity, MacIdentity, WindowsIdentity, gethostuuid, registry_text
from agent.platform.machine import Machine
from agent.request import check_request

UUID, OTHER_UUID = "4c4c4544-0042-3510-8052-b4c04f4e4d32", "4c4c4544-0042-3510-8052-b4c04f4e4d33"


@pytest.fixture
def linux(tmp_path: Path) -> Path:
    """Give what a Linux shows of itself."""
    return write(
        tmp_path,
        {
            "sys/class/dmi/id/product_uuid": f"{UUID}\n",
            "sys/class/dmi/id/board_serial": "To be filled by O.E.M.\n",
            "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
            "proc/sys/kernel/random/boot_id": f"{uuid.uuid4()}\n",
            "proc/version": "Linux version 6.1.0-18\n",
            "sys/class/net/eth0/address": "52:54:00:12:34:56\n",
            "etc/hostname": "till-7\n",
        },
    )


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def says(root: Path, *, as_root: bool = True) -> tuple[str, ...]:
    return LinuxIdentity(root, as_root=as_root).says()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("sys/class/dmi/id/product_uuid", f"{OTHER_UUID}\n"),
        ("sys/class/dmi/id/board_serial", "K7X2\n"),
        ("proc/device-tree/serial-number", "100000003d1d1c5e\0"),
        ("etc/machine-id", "fedcba9876543210fedcba9876543210\n"),
    ],
)
def test_a_copy_is_another_machine(linux: Path, path: str, text: str) -> None:
    """A virtual machine's UUID, a board's serial number, a new installation: each is enough by itself."""
    before = fingerprint("id", says(linux))
    assert fingerprint("id", says(write(linux, {path: text}))) != before


def test_reboots_kernels_networks_and_names_change_nothing(linux: Path) -> None:
    before = says(linux)
    changed = {
        "proc/sys/kernel/random/boot_id": f"{uuid.uuid4()}\n",
        "proc/version": "Linux version 6.12.3-1\n",
        "sys/class/net/eth0/address": "52:54:00:65:43:21\n",
        "sys/class/net/docker0/address": "02:42:ac:11:00:02\n",
        "etc/hostname": "till-8\n",
    }
    assert says(write(linux, changed)) == before
    assert before


def test_whoever_runs_an_endpoint_in_a_folder_says_the_same(linux: Path) -> None:
    """Only root may read what the firmware says, and root may run somebody's endpoint by hand."""
    assert says(linux, as_root=False) == ("etc/machine-id=0123456789abcdef0123456789abcdef",)


@pytest.mark.parametrize("text", ["", "\n", "uninitialized\n"])
def test_what_is_no_id_yet_is_not_said(tmp_path: Path, text: str) -> None:
    assert says(write(tmp_path, {"etc/machine-id": text})) == ()


def test_a_machine_that_says_nothing_has_no_fingerprint(tmp_path: Path) -> None:
    assert says(tmp_path) == ()
    assert fingerprint("id", ()) is None


def test_a_mac_is_known_by_its_hardware() -> None:
    one, other = (MacIdentity(lambda text=text: uuid.UUID(text).bytes).says() for text in (UUID, OTHER_UUID))
    assert one != other
    assert one == (f"host_uuid={uuid.UUID(UUID).hex}",)


def test_a_windows_is_known_by_its_hardware_and_its_installation() -> None:
    values = {"LastConfig": UUID, "MachineGuid": OTHER_UUID}
    assert WindowsIdentity(lambda _, name: values[name]).says() == (f"LastConfig={UUID}", f"MachineGuid={OTHER_UUID}")


@pytest.mark.parametrize(
    "identity", [MacIdentity(gethostuuid), WindowsIdentity(registry_text)], ids=["macos", "windows"]
)
def test_what_the_system_does_not_tell_keeps_nobody_from_checking(identity: MacIdentity | WindowsIdentity) -> None:
    """This is Linux, which has neither."""
    assert identity.says() == ()


def test_a_fingerprint_says_nothing_but_whether_an_id_still_is_one_machine() -> None:
    said = (f"product_uuid={UUID}",)
    one, other = fingerprint("id", said), fingerprint("another id", said)
    assert one is not None
    assert one == fingerprint("id", said)
    assert one != other, "the machine is not recognised under another id"
    assert UUID not in one


@pytest.fixture
def attributes(tmp_path: Path) -> Callable[[Config], dict[str, object] | None]:
    """Give what a check says for a configuration, on a machine that says something."""
    paths = Paths(tmp_path)
    paths.create()
    identity = SimpleNamespace(says=lambda: ("host_uuid=1",))
    nothing = SimpleNamespace()
    machine = Machine(nothing, nothing, nothing, identity=identity)  # type: ignore[arg-type] -- a check asks for none

    def asked(config: Config) -> dict[str, object] | None:
        return check_request(put_together(paths, config, the_world(), machine), Manifest()).attributes

    return asked


def test_a_check_says_the_machine_beside_what_is_configured(
    attributes: Callable[[Config], dict[str, object] | None],
) -> None:
    config = Config(device_id="9d3a0a52-5a4e-4f7e-9a36-0d4f8a3f7f7e", attributes={"rack": 7})
    said = attributes(config)
    assert said is not None
    assert said == {"rack": 7, "machine": said["machine"]}
    assert attributes(replace(config, attributes={"machine": ""})) == {"machine": ""}, "what is configured goes before"
    assert attributes(Config()) is None, "without an id there is nothing to be told apart"
    many = {f"n{n}": n for n in range(64)}
    assert attributes(replace(config, attributes=many)) == many, "the server takes no more than these"
