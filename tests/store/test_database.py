from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from engine import paths
from engine.errors import StorageError
from engine.store import Store, migrations, schema

ROOT = Path(__file__).parents[2]


def test_schema_and_migrations_agree(store):
    with store.read() as connection:
        made = inspect(connection)
        for table in schema.metadata.sorted_tables:
            assert {column["name"] for column in made.get_columns(table.name)} == set(table.columns.keys())


def test_migrations_run_once(open_store, recipe):
    first = open_store()
    first.create_job(recipe)
    second = open_store()
    assert len(second.jobs()) == 1
    with second.read() as connection:
        assert connection.scalar(text("SELECT count(*) FROM migrations")) == len(migrations.MIGRATIONS)


def test_many_open_a_new_database_at_once(open_store, url):
    program = "import sys; from engine.store import Store; s = Store(sys.argv[1] or None); print(len(s.jobs())); s.close()"
    command = [sys.executable, "-c", program, url or ""]
    others = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    problems: list[BaseException] = []

    def opener():
        try:
            open_store()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=opener) for _ in range(6)]
    [thread.start() for thread in threads]
    [thread.join(30) for thread in threads]
    for other in others:
        out, err = other.communicate(timeout=30)
        assert (other.returncode, out.strip()) == (0, b"0"), err.decode()
    assert not problems


def test_a_newer_database_is_left_alone(open_store):
    store = open_store()
    with store.write() as connection:
        connection.execute(text("INSERT INTO migrations VALUES ('m999_from_the_future', 0)"))
    with pytest.raises(StorageError, match=r"newer version.*m999_from_the_future.*Update Thinker"):
        open_store()


def test_writers_take_turns(open_store, recipe):
    stores = [open_store() for _ in range(4)]

    def write(store):
        for _ in range(15):
            store.create_job(recipe)

    threads = [threading.Thread(target=write, args=(store,)) for store in stores]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    assert len(stores[0].jobs()) == 60


def test_a_file_that_is_no_database():
    (paths.home() / "thinker.db").write_bytes(b"not a database at all" * 500)
    with pytest.raises(StorageError, match="damaged or no database"):
        Store()


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "nonsense", "sqlite://"])
def test_a_url_of_no_use(url):
    with pytest.raises(StorageError) as caught:
        Store(url)
    assert "secret" not in str(caught.value)


def test_a_server_that_is_away():
    with pytest.raises(StorageError, match="Check that PostgreSQL runs") as caught:
        Store("postgresql://u:topsecret@127.0.0.1:9/d")
    assert "topsecret" not in str(caught.value)


def test_the_environment_chooses(postgres_url, monkeypatch, recipe):
    monkeypatch.setenv("THINKER_DATABASE_URL", postgres_url)
    store = Store()
    store.create_job(recipe)
    assert store.postgres and not (paths.home() / "thinker.db").exists()
    store.close()


def test_sqlite_is_set_up(recipe):
    store = Store()
    with store.read() as connection:
        pragmas = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "foreign_keys", "busy_timeout")]
    assert pragmas == ["wal", 1, 30000]
    store.close()


@pytest.mark.parametrize("known", range(1, len(migrations.MIGRATIONS)))
def test_a_database_of_each_earlier_version_is_taken_along(known, url, monkeypatch, recipe):
    """Made by what there was then, with a run, a model and (from there on) a conversation in it."""
    everything = migrations.MIGRATIONS
    monkeypatch.setattr(migrations, "MIGRATIONS", everything[:known])
    old = Store(url)
    with old.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO jobs (id, owner, name, method, base_model, endpoint, recipe, state, created_at) VALUES "
            f"('0123456789ab', 'local', 'Old', 'sft', 'nano', 'local', '{recipe.to_json()}', 'paused', 5)"
        )
        connection.exec_driver_sql(
            "INSERT INTO models (id, owner, name, base_model, endpoint, sampler_path, weights_path, renderer, system_prompt, stop, "
            "created_at)"
            " VALUES ('m1', 'local', 'Old one', 'nano', 'local', 'tinker://a/sampler_weights/b', '', 'auto', '', '[]', 6)"
        )
        if known >= 2:
            connection.exec_driver_sql("INSERT INTO conversations VALUES ('c1', 'local', 'Hello', '{}', 7, 8)")
    old.close()
    monkeypatch.setattr(migrations, "MIGRATIONS", everything)
    store = Store(url)
    try:
        with store.read() as connection:
            made = inspect(connection)
            for table in schema.metadata.sorted_tables:
                assert {column["name"] for column in made.get_columns(table.name)} == set(table.columns.keys())
        assert [(job.name, job.recipe) for job in store.jobs()] == [("Old", recipe)]
        assert [(model.name, model.notes, model.parent) for model in store.models()] == [("Old one", "", "")]
        assert [chat.title for chat in store.conversations()] == (["Hello"] if known >= 2 else [])
        assert store.resume("0123456789ab").state == "queued"
    finally:
        store.close()
