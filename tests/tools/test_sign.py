"""``repotool statement`` and ``sign``: what openssl and sha256sum agree with (L10, L11, L20, L21)."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from support.operators import Operator, Shop, snapshot

from repo_server.core.sidecars import parse_sig
from repo_server.core.statement import parse_statement


def beside(path: Path, kind: str) -> Path:
    return path.with_name(path.name + kind)


def key_ids(path: Path) -> list[str]:
    return [line.key_id for line in parse_sig(beside(path, ".sig").read_bytes())]


def openssl_key(folder: Path, name: str, *options: str) -> tuple[Path, Path]:
    """Make a key pair with openssl, as an HSM would."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    subprocess.run(["openssl", "genpkey", *options, "-out", private], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    return private, public


def test_sha256sum_checks_what_sign_wrote(shop: Shop) -> None:
    """L10."""
    archive = shop.package()
    shop.run("sign", archive, "--key", shop.key)
    done = subprocess.run(
        ["sha256sum", "-c", f"{archive.name}.sha256"], cwd=archive.parent, check=True, capture_output=True
    )
    assert done.stdout == f"{archive.name}: OK\n".encode()


def test_the_statement_is_the_eight_lines(shop: Shop) -> None:
    """L20."""
    archive = shop.package()
    printed = shop.attempt("statement", archive).stdout
    statement = parse_statement(printed)
    assert statement.to_bytes() == printed
    assert (statement.product, str(statement.id), statement.size) == (
        "commandit", "service-linux-amd64-1.2.3", archive.stat().st_size,
    )  # fmt: skip
    assert shop.facts("statement", archive)["statement"].encode() == printed


def test_openssl_verifies_what_sign_wrote(shop: Shop, tmp_path: Path) -> None:
    """L20, L21: no tool of ours is needed to check a release."""
    archive = shop.package()
    shop.run("sign", archive, "--key", shop.key)
    (tmp_path / "sig").write_bytes(base64.b64decode(parse_sig(beside(archive, ".sig").read_bytes())[0].signature))
    subprocess.run(["openssl", "pkey", "-in", shop.key, "-pubout", "-out", tmp_path / "pub"], check=True)
    subprocess.run(
        ["openssl", "dgst", "-sha256", "-verify", tmp_path / "pub", "-signature", tmp_path / "sig"],
        input=shop.attempt("statement", archive).stdout, check=True, capture_output=True,
    )  # fmt: skip


EXTERNAL = {
    "ecdsa raw": (["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], "openssl dgst -sha256 -sign {}"),
    "ecdsa base64": (
        ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        "sh -c 'openssl dgst -sha256 -sign {} | openssl base64'",
    ),
    "rsa pss": (
        ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        "openssl dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 -sign {}",
    ),
    "ed25519": (
        ["-algorithm", "ED25519"],
        "sh -c 'f=$(mktemp) && cat >$f && openssl pkeyutl -sign -rawin -inkey {} -in $f; rm $f'",
    ),
}


@pytest.mark.parametrize("how", sorted(EXTERNAL))
def test_a_signature_made_by_openssl_publishes_a_release(operator: Operator, tmp_path: Path, how: str) -> None:
    """L21, NFR-SEC-002, NFR-SEC-004: the private key is never seen by repotool."""
    options, command = EXTERNAL[how]
    private, public = openssl_key(tmp_path, "hsm", *options)
    shop = Shop(operator.home)
    shop.run("init", shop.tree, "--keys", shop.keys, "--no-passphrase", "--release-public", public)
    archive = shop.package()
    arguments = ("--tree", shop.tree, "--external", command.format(private), "--public-key", public)
    shop.run("sign", archive, *arguments)
    assert shop.facts("publish", archive, "--tree", shop.tree)["files"][0]["action"] == "publish"
    assert shop.facts("ls", "--tree", shop.tree)["releases"][0]["key_ids"] == key_ids(archive)


def test_an_external_command_that_signs_something_else_is_refused(shop: Shop, tmp_path: Path) -> None:
    archive = shop.package()
    subprocess.run(["openssl", "pkey", "-in", shop.key, "-pubout", "-out", tmp_path / "pub"], check=True)
    for command, code, text in (
        (f"sh -c 'echo other | openssl dgst -sha256 -sign {shop.key}'", 3, "not a signature of the statement"),
        ("sh -c 'echo no token in the slot >&2; exit 7'", 1, "no token in the slot"),
        ("no-such-program-anywhere", 1, "cannot be started"),
        ("sh -c 'no end of the quotation", 2, "expected a command as a shell takes it"),
        (" ", 2, "expected a command as a shell takes it"),
    ):
        message = shop.refused(code, "sign", archive, "--external", command, "--public-key", tmp_path / "pub")
        assert text in message
    assert not beside(archive, ".sig").exists()
    assert not beside(archive, ".sha256").exists()


def test_a_second_key_adds_its_line_and_the_same_key_replaces_its_own(operator: Operator, tmp_path: Path) -> None:
    """L11, L21."""
    private, public = openssl_key(tmp_path, "second", "-algorithm", "ED25519")
    shop = Shop(operator.home)
    shop.run("init", shop.tree, "--keys", shop.keys, "--no-passphrase", "--release-public", public, "--threshold", "2")
    shop.env["REPOTOOL_TREE"] = str(shop.tree)
    archive = shop.package()
    shop.run("sign", archive, "--key", shop.key)
    assert "1 of 2" in shop.refused(3, "publish", archive)
    shop.run("sign", archive, "--key", private)
    both = key_ids(archive)
    assert len(set(both)) == 2
    shop.run("sign", archive, "--key", shop.key)
    assert sorted(key_ids(archive)) == sorted(both)
    shop.run("publish", archive)
    # A line by a known key over other bytes goes, also where no .sha256 says that the bytes are others.
    other = shop.package("1.2.4")
    beside(other, ".sig").write_bytes(beside(archive, ".sig").read_bytes())
    shop.run("sign", other, "--key", shop.key)
    assert len(key_ids(other)) == 1


def test_signatures_over_other_bytes_do_not_stay(shop: Shop, tmp_path: Path) -> None:
    """L21: a line that does not verify any more only confuses."""
    private, public = openssl_key(tmp_path, "second", "-algorithm", "ED25519")
    archive = shop.package()
    shop.env.pop("REPOTOOL_TREE")
    shop.run("sign", archive, "--key", private, "--product", "commandit")
    assert public.exists()
    before = key_ids(archive)
    shop.run("sign", archive, "--key", shop.key)
    assert key_ids(archive)[:1] == before
    archive.unlink()
    folder = shop.home / "sources" / "service-1.2.3"
    (folder / "files" / "readme.txt").write_text("other\n")
    shop.run("pack", folder, "-o", archive.parent)
    shop.run("sign", archive, "--key", shop.key)
    assert len(key_ids(archive)) == 1
    assert key_ids(archive) != before


def test_a_package_is_never_signed_under_another_name(shop: Shop) -> None:
    """L40."""
    archive = shop.package("1.2.3")
    wrong = archive.with_name("service-linux-amd64-9.9.9.tar.gz")
    archive.rename(wrong)
    assert "package.toml" in shop.refused(3, "sign", wrong, "--key", shop.key)
    assert not beside(wrong, ".sig").exists()
    garbage = archive.with_name("ui-linux-amd64-1.0.0.tar.gz")
    garbage.write_bytes(b"not an archive")
    assert "repotool pack" in shop.refused(3, "sign", garbage, "--key", shop.key)


def test_a_key_that_is_no_release_key_is_refused(shop: Shop) -> None:
    """L21: root and online keys release nothing."""
    archive = shop.package()
    for name in ("root.pem", "online.pem"):
        assert "not a release key" in shop.refused(3, "sign", archive, "--key", shop.keys / name)
    assert not beside(archive, ".sig").exists()


def test_the_passphrase_must_be_right(operator: Operator) -> None:
    shop = Shop(operator.home)
    shop.run("init", shop.tree, "--keys", shop.keys, REPOTOOL_PASSPHRASE="right")
    archive = shop.package()
    assert "wrong passphrase" in shop.refused(1, "sign", archive, "--key", shop.key, REPOTOOL_PASSPHRASE="wrong")
    assert "REPOTOOL_PASSPHRASE" in shop.refused(2, "sign", archive, "--key", shop.key)
    shop.run("sign", archive, "--key", shop.key, REPOTOOL_PASSPHRASE="right")


def test_a_key_that_others_can_read_is_used_with_a_warning(shop: Shop) -> None:
    """NFR-SEC-004."""
    archive = shop.package()
    shop.key.chmod(0o644)
    done = shop.attempt("sign", archive, "--key", shop.key)
    assert done.returncode == 0
    assert b"chmod 600" in done.stderr


def test_dry_run_signs_nothing(shop: Shop) -> None:
    archive = shop.package()
    before = snapshot(archive.parent)
    facts = shop.facts("sign", archive, "--key", shop.key, "--dry-run")
    assert facts["files"][0]["key_ids"] == [facts["key_id"]]
    assert snapshot(archive.parent) == before


def test_the_product_is_asked_for_where_nothing_says_it(operator: Operator, tmp_path: Path) -> None:
    path = tmp_path / "service-linux-amd64-1.0.0.bin"
    path.write_bytes(b"x")
    assert "--product" in operator.refused(2, "statement", path)
    assert "product: acme\n" in operator.run("statement", path, "--product", "acme")


KINDS = {
    "ecdsa": (["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1"], ["dgst", "-sha256", "-sign"]),
    "rsa": (
        ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        ["dgst", "-sha256", "-sigopt", "rsa_padding_mode:pss", "-sign"],
    ),
    "ed25519": (["-algorithm", "ED25519"], ["pkeyutl", "-sign", "-rawin", "-inkey"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_release_signed_with_openssl_and_sha256sum_is_published(tmp_path: Path, kind: str) -> None:
    """The worked example of README.md."""
    made, how = KINDS[kind]
    private, public = openssl_key(tmp_path, "hsm", *made)
    shop = Shop(tmp_path, {"REPOTOOL_TREE": str(tmp_path / "tree")})
    shop.run("init", shop.tree, "--keys", shop.keys, "--no-passphrase", "--release-public", public)
    archive = shop.package()
    statement = tmp_path / "statement"
    statement.write_bytes(shop.attempt("statement", archive, "--product", "commandit").stdout)
    key_id = shop.attempt("keyid", public).stdout.decode().strip()
    assert shop.facts("keyid", public)["key_id"] == key_id
    file = ["-in", statement] if kind == "ed25519" else [statement]
    signature = subprocess.run(["openssl", *how, private, *file], check=True, capture_output=True).stdout
    beside(archive, ".sig").write_text(f"{key_id} {base64.b64encode(signature).decode()}\n")
    digest = subprocess.run(["sha256sum", archive.name], cwd=archive.parent, check=True, capture_output=True)
    beside(archive, ".sha256").write_bytes(digest.stdout)
    shop.run("publish", archive)
    assert (shop.tree / archive.name).exists()
