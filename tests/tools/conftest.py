"""An operator, and one with a shop of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.operators import Operator, Shop


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    home = tmp_path / "home"
    home.mkdir()
    return Operator(home)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    home = tmp_path / "home"
    home.mkdir()
    shop = Shop(home)
    shop.run("init", shop.tree, "--keys", shop.keys, "--no-passphrase")
    shop.env["REPOTOOL_TREE"] = str(shop.tree)
    return shop
