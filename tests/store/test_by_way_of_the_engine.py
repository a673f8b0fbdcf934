"""What the Engine asks of a database, asked of PostgreSQL: every list, and every look for a thing that is somebody else's."""

from __future__ import annotations

import pytest

from engine import Engine, paths
from engine.errors import EngineError, StorageError
from tests import test_owners


@pytest.fixture(autouse=True)
def on_postgres(postgres_url: str, nothing_starts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINKER_DATABASE_URL", postgres_url)


def test_every_list_and_every_thing() -> None:
    """Each public method once: by the owner with their own things, then by a stranger with the owner's ids."""
    with Engine() as engine, Engine("stranger") as stranger:
        assert engine.store.postgres and not (paths.home() / "thinker.db").exists()
        theirs, own = test_owners.make_things(engine), test_owners.make_things(stranger)
        asked = 0
        for name in test_owners.nothing_needed():
            found = test_owners.call(stranger, name, {}, own)
            assert not test_owners.leaks(found, theirs), name
            asked += 1
        for name, parameter in test_owners.every("id"):
            foreign = theirs.ids.get(f"{name}.{parameter}", theirs.ids.get(parameter))
            with pytest.raises(EngineError) as caught:
                test_owners.call(stranger, name, {parameter: foreign}, own)
            assert not isinstance(caught.value, StorageError), (name, parameter, caught.value)
            asked += 1
        assert asked > 80
