"""``pack``, ``statement``, ``keyid``, ``sign``: before a release goes into a tree."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from repo_server.tree import treeio
from repotool import pack as packing
from repotool import signing
from repotool.archive import ArchiveFormat
from repotool.cli import options, show
from repotool.digests import Digest, digest
from repotool.errors import Usage
from repotool.keyfiles import load_public, load_signer, open_to_others
from repotool.product import Product, find_product
from repotool.signing import ExternalSigner, FileSigner, ReleaseSigner
from repotool.source import read_source


@click.command()
@click.argument("folder", metavar="DIR", type=options.path_type)
@click.option(
    "-o",
    "--out",
    type=options.path_type,
    default=Path(),
    metavar="OUT",
    help="A folder, or the archive under its name.",
)
@click.option(
    "--format", "kind", type=click.Choice([str(item) for item in ArchiveFormat]), default="tar.gz", show_default=True
)
@click.option(
    "--force", is_flag=True, help="Replace an archive that has other bytes; never do that once it is published."
)
@options.tree_option
@options.json_option
@options.dry_run_option
def pack(folder: Path, out: Path, kind: str, force: bool, tree: Path | None, as_json: bool, dry_run: bool) -> None:  # noqa: ARG001 -- every verb takes --tree
    """Make an archive from a folder with package.toml and the payload.

    Its name is <component>-<os>-<arch>-<version>.tar.gz, as package.toml says. The same names, contents and executable
    bits give the same bytes, whatever the times, owners, umask and order on disk.
    """
    source = read_source(folder)
    path = packing.archive_path(source, out, ArchiveFormat(kind))
    facts = {
        "dry_run": dry_run,
        "path": str(path),
        "component": source.manifest.id.component,
        "version": str(source.manifest.id.version),
        "os": source.manifest.id.platform.os,
        "arch": source.manifest.id.platform.arch,
        "entries": len(source.entries),
    }
    if dry_run:
        show.json(facts) if as_json else show.say(f"would write {path} with {len(source.entries)} files and folders")
        return
    total = sum(entry.size for entry in source.entries)
    with show.progress(f"packing {path.name}", total) as report:
        made = packing.pack(source, path, ArchiveFormat(kind), force=force, progress=report)
    if as_json:
        show.json({**facts, "sha256": made.digest.sha256, "size": made.digest.size, "unchanged": made.unchanged})
    else:
        show.say(f"{made.path}{' (was there already)' if made.unchanged else ''}")


@click.command()
@click.argument("file", type=options.path_type)
@click.option("--product", metavar="NAME", help="The product, where no tree says it.")
@options.tree_option
@options.json_option
def statement(file: Path, product: str | None, tree: Path | None, as_json: bool) -> None:
    """Print what a release key signs for FILE, so that openssl or an HSM can sign it.

    A line of FILE.sig is `KEYID SIGNATURE`: what `repotool keyid key.pub` prints, and the signature of exactly these
    bytes in base64. tools/repotool/README.md has a worked example with openssl and sha256sum alone.
    """
    name = signing.any_release_name(file.name)
    of = find_product(product, None if tree is None else options.the_tree(tree), None, file, options.now())
    said = signing.statement_of(name, of.name, _digest(file))
    if as_json:
        show.json(
            {
                "path": str(file),
                "product": said.product,
                "sha256": said.sha256,
                "size": said.size,
                "statement": said.to_bytes().decode(),
            }
        )
    else:
        click.echo(said.to_bytes(), nl=False)


@click.command()
@click.argument("pem", metavar="PEM", type=options.path_type)
@options.tree_option
@options.json_option
def keyid(pem: Path, tree: Path | None, as_json: bool) -> None:  # noqa: ARG001 -- every verb takes --tree
    """Print the key id of a public key in PEM, as .sig and root.json name it."""
    key = load_public(pem)
    if as_json:
        show.json({"path": str(pem), "key_id": key.keyid, "scheme": key.scheme})
    else:
        click.echo(key.keyid)


def signer_options(command: options._Command) -> options._Command:
    """Add the options that say which key signs."""
    key = click.option(
        "--key",
        type=options.path_type,
        metavar="PEM",
        help="The release key; its passphrase is asked for, or taken from REPOTOOL_PASSPHRASE.",
    )
    external = click.option(
        "--external",
        metavar="CMD",
        help="A command that gets the statement on stdin and prints the signature, raw or in base64.",
    )
    public = click.option(
        "--public-key", type=options.path_type, metavar="PEM", help="The public key that belongs to --external."
    )
    return key(external(public(command)))


def signer_of(key: Path | None, external: str | None, public_key: Path | None) -> ReleaseSigner | None:
    """Return the signer that the options name, if any; raise ``Usage``."""
    if external is not None:
        if key is not None or public_key is None:
            raise Usage("--external needs --public-key and stands instead of --key")
        return ExternalSigner(external, load_public(public_key))
    if public_key is not None:
        raise Usage("--public-key belongs to --external")
    if key is None:
        return None
    if key.exists() and open_to_others(key):
        click.echo(f"repotool: warning: others can read {key}; run `chmod 600 {key}`", err=True)
    return FileSigner(load_signer(key, options.passphrase_for))


@click.command()
@click.argument("files", type=options.path_type, nargs=-1, required=True, metavar="FILE...")
@signer_options
@click.option(
    "--product", metavar="NAME", help="The product, where neither a tree nor root.json beside the key says it."
)
@options.tree_option
@options.json_option
@options.dry_run_option
def sign(
    files: tuple[Path, ...],
    key: Path | None,
    external: str | None,
    public_key: Path | None,
    product: str | None,
    tree: Path | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Write FILE.sig and FILE.sha256.

    A package is only signed under the name that its package.toml says. Signatures by other keys stay if they belong
    to these bytes.
    """
    signer = signer_of(key, external, public_key)
    if signer is None:
        raise Usage("which key signs? say --key PEM, or --external CMD with --public-key PEM")
    opened, now = None if tree is None else options.the_tree(tree), options.now()
    products = [find_product(product, opened, key, file, now) for file in files]
    facts = []
    with ExitStack() as locks:
        if not dry_run:
            _lock(locks, files, products)
        for file, of in zip(files, products, strict=True):
            facts.append(_sign_one(file, of, signer, dry_run=dry_run))
            if not as_json:
                show.say(f"{'would sign' if dry_run else 'signed'} {file} with key {signer.key.keyid}")
    if as_json:
        show.json({"dry_run": dry_run, "key_id": signer.key.keyid, "files": facts})


def _lock(locks: ExitStack, files: Sequence[Path], products: Sequence[Product]) -> None:
    """Take the lock of every tree in which a file lies (L17)."""
    roots = {
        product.tree.root.resolve()
        for file, product in zip(files, products, strict=True)
        if product.tree is not None and file.resolve().is_relative_to(product.tree.root.resolve())
    }
    for root in sorted(roots):
        locks.enter_context(treeio.tree_lock(root))


def _sign_one(file: Path, product: Product, signer: ReleaseSigner, *, dry_run: bool) -> dict[str, object]:
    name = signing.any_release_name(file.name)
    if product.keys is not None:
        signing.check_key(signer.key, product.keys)
    found = _digest(file)
    signing.check_identity(file, name)
    statement = signing.statement_of(name, product.name, found)
    signatures = signing.merged(signing.standing_signatures(file, found), statement, signer, product.keys)
    if not dry_run:
        signing.write_signatures(file, found, signatures)
    return {
        "path": str(file),
        "sha256": found.sha256,
        "size": found.size,
        "key_ids": [item.key_id for item in signatures],
    }


def _digest(file: Path) -> Digest:
    with show.progress(f"reading {file.name}", file.stat().st_size if file.exists() else 0) as report:
        return digest(file, report)


COMMANDS = (pack, statement, keyid, sign)
