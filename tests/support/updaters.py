"""Packages of the component ``updater`` that cost nothing to build: a launcher that runs this repository's agent."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from support.components import Package
from support.machine import ROOT

LAUNCHER = """\
#!/bin/sh
# commandit-updater {version}
echo "{version} $*" >> '{ran}'
export COMMANDIT_PROGRAM="$0" PYTHONPATH='{root}:{root}/tools'
{behaviour}
exec '{python}' -m agent "$@"
"""
ON_TRIAL = 'case "$*" in *--trial*) {what} ;; esac'
HEALTH = 'kind = "process"\ntimeout_seconds = {timeout}'

CRASHES = ON_TRIAL.format(what="echo 'no such library' >&2; exit 70")
HANGS = ON_TRIAL.format(what="sleep 3600 & wait $!")
CHECKS_ITSELF_AND_DIES = ON_TRIAL.format(what='"$0" --root-dir "$2" selfcheck && kill -9 $$')
ENDS_AT_ONCE = ON_TRIAL.format(what="exit 0")
SAYS_IT_IS_FIT_AT_ONCE = ON_TRIAL.format(what='echo "fit $COMMANDIT_TRIAL" >&2; exit 0')
CANNOT_INITIALISE = 'case "$*" in *selfcheck*) echo "cannot initialise" >&2; exit 1 ;; esac'
HAS_ANOTHER_SECRET = "export COMMANDIT_AUTH_SECRET=outdated"
CANNOT_READ_ITS_STATE = 'case "$*" in *selfcheck*) set -- --root-dir /nowhere selfcheck ;; esac'


def updater(version: str, ran: Path, behaviour: str = "", timeout: float = 40) -> Package:
    """Return a package; each run of its program adds a line to ``ran``: version and arguments."""
    program = LAUNCHER.format(version=version, ran=ran, root=ROOT, python=sys.executable, behaviour=behaviour)
    return package_of(version, program, timeout)


def package_of(version: str, program: str | bytes, timeout: float = 40) -> Package:
    """Return a package with any program."""
    package = Package("updater", version, service='kind = "none"', health=HEALTH.format(timeout=timeout))
    return replace(package, files={"bin/commandit-updater": program})


def runs_of(ran: Path, version: str) -> list[str]:
    """Return what a version was run with, without the root folder."""
    lines = ran.read_text().splitlines() if ran.exists() else []
    words = (line.split() for line in lines)
    return [
        " ".join(word for at, word in enumerate(found[1:], 1) if "--root-dir" not in {word, found[at - 1]})
        for found in words
        if found[0] == version
    ]
