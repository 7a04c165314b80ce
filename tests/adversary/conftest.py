"""One honest chain for all tests of this folder; each test works on a copy of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.committed_owner import honest_committed
from tests.dishonest_owner import Owner, honest, prepare


@pytest.fixture(scope="session")
def records_chain(tmp_path_factory: pytest.TempPathFactory) -> Owner:
    folder = tmp_path_factory.mktemp("records")
    prepare(folder)
    honest(folder)
    return Owner(folder)


@pytest.fixture(scope="session")
def class_chain(tmp_path_factory: pytest.TempPathFactory) -> Owner:
    folder = tmp_path_factory.mktemp("class")
    prepare(folder)
    honest(folder, "--forget-class", "5")
    return Owner(folder)


@pytest.fixture(scope="session")
def committed_chain(tmp_path_factory: pytest.TempPathFactory) -> Owner:
    folder = tmp_path_factory.mktemp("committed")
    honest_committed(folder)
    return Owner(folder)


@pytest.fixture
def committed(committed_chain: Owner, tmp_path: Path) -> Owner:
    return committed_chain.copy(tmp_path / "committed")


@pytest.fixture
def owner(records_chain: Owner, tmp_path: Path) -> Owner:
    return records_chain.copy(tmp_path / "chain")


@pytest.fixture
def class_owner(class_chain: Owner, tmp_path: Path) -> Owner:
    return class_chain.copy(tmp_path / "class")
