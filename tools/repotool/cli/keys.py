"""``init``: keys and a tree."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import click

from repo_server.core.statement import check_product
from repotool import initialise, keyfiles
from repotool.cli import options, show
from repotool.initialise import InitOptions, KeyName
from repotool.keyfiles import KeyType


@click.command()
@click.argument("tree_folder", metavar="TREE", type=options.path_type, required=False)
@options.tree_option
@click.option("--keys", type=options.path_type, required=True, metavar="DIR", help="A new folder for the keys.")
@click.option(
    "--product", default="commandit", show_default=True, help="The product's name; it is part of what is signed."
)
@click.option(
    "--no-passphrase", is_flag=True, help="Leave root.pem and release.pem unprotected: for trying things out."
)
@click.option("--key-type", type=click.Choice([str(item) for item in KeyType]), default="ecdsa", show_default=True)
@click.option(
    "--expires-days",
    type=click.IntRange(1, 3650),
    default=365,
    show_default=True,
    help="How long root.json is valid; sign the next one before.",
)
@click.option(
    "--release-public",
    "more",
    type=options.path_type,
    multiple=True,
    metavar="PEM",
    help="One more release key, whose private half is elsewhere (an HSM, another person); repeatable.",
)
@click.option(
    "--threshold", type=click.IntRange(1), default=1, show_default=True, help="How many release keys must sign."
)
@options.json_option
@options.dry_run_option
def init(  # noqa: PLR0913 -- one parameter per option
    *,
    tree_folder: Path | None,
    tree: Path | None,
    keys: Path,
    product: str,
    no_passphrase: bool,
    key_type: str,
    expires_days: int,
    more: tuple[Path, ...],
    threshold: int,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Make keys, a TUF root and a tree that is ready to use.

    DIR gets root.pem, release.pem (both with a passphrase) and online.pem, and root.json for the agents; TREE gets
    repo.toml, policy/channels.toml and metadata/1.root.json. Nothing that exists is overwritten. An interrupted run is
    finished by running it again.
    """
    folder = tree_folder or tree
    if folder is None:
        raise click.UsageError("which folder becomes the tree? give TREE")
    check_product(product)
    state = initialise.examine(folder, keys)
    now = options.now()
    expires = now + timedelta(days=expires_days)
    if dry_run:
        files = initialise.planned_files(folder, keys)
        if as_json:
            show.json({"dry_run": True, "tree": str(folder), "files": [str(path) for path in files]})
        for path in () if as_json else files:
            show.say(f"would write {path}")
        return
    fresh = state is initialise.InitState.FRESH
    passphrase = None if no_passphrase else options.new_passphrase() if fresh else options.passphrase_for(keys)
    extra = tuple(keyfiles.load_public(path) for path in more)
    wanted = InitOptions(product, KeyType(key_type), now, expires, passphrase, extra, threshold)
    made = initialise.initialise(folder, keys, wanted, options.passphrase_for)
    if as_json:
        show.json(
            {
                "dry_run": False,
                "tree": str(folder),
                "product": product,
                "root_json": str(keys / initialise.ROOT_JSON),
                "expires": expires.replace(microsecond=0),
                "key_ids": {name.removesuffix(".pem"): key_id for name, key_id in made.key_ids.items()},
                "files": [str(path) for path in made.files],
            }
        )
        return
    _explain(folder, keys, product, protected=passphrase is not None)
    show.say(f"root.json is valid until {expires:%Y-%m-%d}; the next one must be signed before.")


def _explain(tree: Path, keys: Path, product: str, *, protected: bool) -> None:
    how = "has a passphrase" if protected else "has NO passphrase: for trying out only"
    show.say(f"{tree} is a downloads tree of {product}. The keys, readable by you only (0600):")
    show.say(f"  {keys / KeyName.ROOT}     {how}. Signs the next root.json. Keep it offline.")
    show.say(f"  {keys / KeyName.RELEASE}  {how}. Signs releases. Keep it off the server.")
    show.say(
        f"  {keys / KeyName.ONLINE}   has no passphrase, because the server signs with it unattended; its file mode is "
        "its only protection.\n"
        "             It cannot release anything. Move it to the origin server, owned by the server's user."
    )
    show.say(f"  {keys / initialise.ROOT_JSON}    is public: agents are installed with it.")


COMMANDS = (init,)
