"""The previous agent watches the new one before anything points to it (FR-SUP-001 to FR-SUP-003).

The component ``updater`` is a folder with ``bin/commandit-updater``. The new folder stays where it was staged until
``commit``: so what starts at boot, and recovers, is the last committed agent. On trial the new program is run from
there, by its predecessor, as the daemon that it will be; whatever it does wrong, the sequence goes back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.codes import Code
from agent.errors import AgentError, NetworkFailure, PackageRefused
from agent.logs import Log
from agent.paths import Paths
from agent.ports import Finished, Programs
from agent.trial import TRIAL_VARIABLE, last_words
from repo_server.core.model import UPDATER, Os
from repo_server.core.package import PackageManifest, ServiceKind

SHORTEST_PROBATION = 1.0
"""Seconds that the new daemon must stay at least, whatever its package says."""
NO_EXCHANGE = (
    "the volume of {volume} cannot exchange two folders in one call, and the agent does not replace itself where a "
    "power cut could leave none; have the new build install itself: commandit-updater install"
)
_PROGRAM = "commandit-updater"


def program_in(folder: Path, system: Os) -> Path:
    """Return where the agent's program is in an install folder of ``updater``."""
    return folder / "bin" / (f"{_PROGRAM}.exe" if system is Os.WINDOWS else _PROGRAM)


def is_installed(paths: Paths, program: Path | None) -> bool:
    """Whether a program of the agent is the installed component, and not one that was handed over or staged."""
    return program is not None and program.is_relative_to(paths.install(UPDATER))


def check_form(package: PackageManifest, folder: Path) -> None:
    """Refuse a package that cannot be the agent; raise ``PackageRefused``."""
    program = program_in(folder, package.id.platform.os)
    if not (program.is_file() and os.access(program, os.X_OK)):
        raise PackageRefused(
            Code.PACKAGE_INVALID,
            f"{package.id} has no executable {program.relative_to(folder).as_posix()}; make it with make agent-package",
        )
    if package.service.kind is not ServiceKind.NONE:
        raise PackageRefused(
            Code.PACKAGE_INVALID,
            f"{package.id} names a service of kind {package.service.kind}; the agent registers itself: leave it out",
        )


@dataclass(frozen=True, slots=True)
class Watch:
    """Runs a new agent on trial."""

    paths: Paths
    programs: Programs
    log: Log
    overrides: Mapping[str, str]
    """What overrides the configuration for this agent, as environment variables, so that it does for the new one."""
    new_word: Callable[[], str]
    """A word that nobody knows before, for each trial."""
    monotonic: Callable[[], float]

    def check(self, folder: Path, package: PackageManifest, reach: Callable[[], object] | None) -> None:
        """Return when the new agent has shown that it works; raise ``AgentError(HEALTH_FAILED)``.

        ``reach`` asks the server as this agent does, and raises ``NetworkFailure``: what neither of them can reach is
        not the new one's fault.
        """
        wrong = self._wrong(folder, package)
        if wrong is not None and reach is not None:
            try:
                reach()
            except NetworkFailure as error:
                self.log.warning(
                    "the server cannot be reached by this agent either; the new one is checked without it",
                    code=error.code, error=error.message,
                )  # fmt: skip
                wrong = self._wrong(folder, package, "--offline")
        if wrong is not None:
            raise AgentError(Code.HEALTH_FAILED, f"the new agent {package.id.version} is not fit: {wrong}")

    def _wrong(self, folder: Path, package: PackageManifest, *more: str) -> str | None:
        program, health = program_in(folder, package.id.platform.os), package.health
        stay = max(health.probation_seconds, SHORTEST_PROBATION)
        command = [str(program), "--root-dir", str(self.paths.root_dir), "run", "--trial", f"{stay:g}", *more]
        limit, word, began = health.timeout_seconds + stay, self.new_word(), self.monotonic()
        try:
            finished = self.programs.run(command, self.paths.state, {**self.overrides, TRIAL_VARIABLE: word}, limit)
        except OSError as error:
            return f"{program} cannot be started: {error.strerror or error}"
        self.log.info("a new agent was on trial", exit_code=finished.exit_code, output=finished.output)
        wrong = _in_words(finished, limit, last_words(word))
        if wrong is None and self.monotonic() - began < stay:
            return f"it ended before the {stay:g} s were over that it has to stay"
        return wrong


def _in_words(finished: Finished, limit: float, expected: str) -> str | None:
    lines = [line.strip() for line in finished.output.splitlines() if line.strip()]
    if finished.exit_code == 0 and lines[-1:] == [expected]:
        return None
    if finished.exit_code is None:
        how = f"it hung: no end within {limit:g} s"
    elif finished.exit_code == 0:
        how = "it ended without saying that it is fit, as an agent does at the end of its trial"
    else:
        how = f"it ended with {finished.exit_code}"
    said = "; ".join([line for line in lines if "error" in line.lower()][-3:] or lines[-3:])[-400:]
    return f"{how}{': ' + said if said else ''}"
