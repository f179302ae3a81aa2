"""What an operator does about a problem, by its code (L8). Pure."""

from __future__ import annotations

from repo_server.core.model import FileState, Problem

BY_CODE = {
    "no_sha256": "run `repotool sign` on the file, or wait until .sha256 has arrived",
    "no_signature": "run `repotool sign` on the file, or wait until .sig has arrived",
    "arriving": "wait; the file is still being written",
    "no_release_file": "copy the release file beside the sidecar, or remove the sidecar",
    "unrecognised_name": "rename the file, or move it out of the tree",
    "unknown_component": "add the component to repo.toml, or rename the file",
    "unknown_platform": "rename the file",
    "invalid_version": "rename the file to a SemVer version",
    "unsafe_name": "rename the file",
    "too_deep": "move the file and its sidecars up",
    "duplicate_release": "remove one of the two files with its sidecars",
    "file_too_large": "raise limits.max_file_bytes in repo.toml, or remove the file",
    "sidecar_too_large": "write the sidecar again",
    "not_a_regular_file": "replace the link or special file by the real file",
    "digest_mismatch": "copy the file again; if these bytes are to be released, `repotool sign` it",
    "bytes_changed": "bring the published bytes back, and publish the new ones under a new version",
    "sha256_other_file": "run sha256sum in the file's own folder, or `repotool sign` the file",
    "unknown_key": "sign the file with a release key of this tree",
    "bad_signature": "sign the file again with `repotool sign`",
    "unknown_channel": "write stable, beta or alpha into .channel",
    "requires_cycle": "break the circle in one of the .meta files",
    "mass_removal": "bring the files back, or confirm with `repotool doctor --accept-removal`",
    "invalid_policy": "correct the file as the message says",
    "no_root": "run `repotool init`, or copy metadata/ from the origin",
    "invalid_root": "bring back the root that was signed properly",
    "root_expired": "sign the next root with the root key",
    "too_many_files": "raise limits.max_files in repo.toml, or move files out of the tree",
    "unreadable_file": "give the server's user the right to read the file, or look at the disk",
    "unreadable_folder": "give the server's user the right to read the folder, or look at the disk",
    "tree_unreadable": "mount the disk, or give the server's user the right to read the tree",
    "damaged_ledger": "remove the lines that the message names from .published",
    "ledger_not_written": "let the server's user write the tree or the state folder, and look at the disk's space",
}


def what_to_do(problem: Problem) -> str:
    """Return the next step for a problem."""
    known = BY_CODE.get(problem.code)
    if known is not None:
        return known
    if problem.code.startswith("malformed_"):
        return "write the sidecar again as the message says"
    return "wait, or look at the message" if problem.state is FileState.PENDING else "see the message"
