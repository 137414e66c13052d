"""Damage to a store that SQLite does not see: damaged rows are named, left out, made again."""

import sqlite3
from contextlib import closing

import pytest
from fake_engine import FakeEngine, gather_all, make_plan, make_problems, written
from test_store import downgrade, refused

from pytest_tokenbudget.core.gather import gather, render
from pytest_tokenbudget.core.store import StoredPrompt, StoreError, TraceStore

COUNT = 6


@pytest.fixture
def path(tmp_path):
    return tmp_path / "traces.sqlite"


@pytest.fixture
def plan():
    return make_plan(samples=2)


@pytest.fixture
def filled(path, plan):
    """A closed store with two samples of some problems."""
    with closing(TraceStore(path, "one", "a")) as store:
        everything(store, plan, FakeEngine())
    return path


def everything(store, plan, engine):
    problems = make_problems(COUNT)
    prompts = render(store, plan, problems, lambda: engine)
    gather(store, plan, plan.wants(problems, prompts), lambda: engine)
    return load(store, plan)


def load(store, plan):
    problems = make_problems(COUNT)
    renders = plan.renders(problems)
    known = store.prompts(plan.model, list(renders.values()))
    prompts = {pid: known[render] for pid, render in renders.items() if render in known}
    return store.load(plan.names(problems, prompts), prompts, plan.cap)


def key_of(store, plan, problem_id, sample):
    problems = make_problems(COUNT)
    prompts = render(store, plan, problems, FakeEngine)
    names = plan.names(problems, prompts)
    return next(key for key, name in names.items() if name == (problem_id, sample))


def change(path, *statements):
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            assert db.execute(*statement).rowcount == 1
        db.commit()


def rows(path, sql):
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()


DAMAGE = {
    "model": "'other'",
    "output_ids": "x'02000000' || substr(output_ids, 5)",
    "offsets": "x'02000000' || substr(offsets, 5)",
    "text": "'A' || substr(text, 2)",
    "stop_reason": "iif(stop_reason = 'eos', 'length', 'eos')",
    "engine_reason": "'else'",
    "error": "'boom'",
    "cap": "cap + 1",
    "new_tokens": "new_tokens + 1",
    "seconds": "seconds + 1e-9",
    "created": "created - 1",
    "run": "'two'",
    "owner": "'b'",
    "counted": "1",
    "usage": "'{}'",
}


@pytest.mark.parametrize("column", DAMAGE)
def test_a_change_of_any_column_is_found_named_and_generated_again(filled, plan, column):
    with closing(TraceStore(filled, "look", "a")) as store:
        before = load(store, plan)
        key = key_of(store, plan, "p2", 1)
    change(filled, (f"UPDATE traces SET {column} = {DAMAGE[column]} WHERE key = ?", (key,)))
    damaged = rows(filled, f"SELECT * FROM traces WHERE key = '{key}'")
    with closing(TraceStore(filled, "judge", "a", check=True)) as store:
        left = load(store, plan)
        assert before.keys() - left.keys() == {("p2", 1)}
        assert all(left[name] == before[name] for name in left)
        report = store.damage_report()
        assert "the trace of p2 (sample 1)" in report
        assert "damaged and left out: the trace of p2 (sample 1). What" in report
        assert str(filled) in report
        assert store.damage_report() == "", "each row is reported once"
    assert rows(filled, f"SELECT * FROM traces WHERE key = '{key}'") == damaged, "only looked at"
    engine = FakeEngine()
    with closing(TraceStore(filled, "two", "a", check=True)) as store:
        assert everything(store, plan, engine) == before
        (line,) = [text for _, text in store.notes()]
        assert "the trace of p2 (sample 1)" in line
    assert [request.key for request in engine.seen] == [key]
    assert not engine.seen[0].prefix_ids, "nothing is gone on from"
    ((kind, literals),) = rows(filled, "SELECT kind, literals FROM damaged")
    assert kind == "traces"
    kept = rows(filled, f"SELECT {literals}")[0]
    assert [v.encode() if isinstance(v, str) else v for v in damaged[0]] == pytest.approx(kept), (
        "the damaged row is kept"
    )


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM traces WHERE key = ?",
        "DELETE FROM checksums WHERE key = ? AND kind = 'traces'",
        "UPDATE checksums SET checksum = checksum + 1 WHERE key = ?",
        "UPDATE checksums SET key = 'x' WHERE key = ?",
        "UPDATE traces SET key = 'x' WHERE key = ?",
        "UPDATE traces SET key = CAST(key AS BLOB) WHERE key = ?",
        "UPDATE traces SET text = CAST(text AS BLOB) WHERE key = ?",
        "UPDATE traces SET text = CAST(x'ff41' AS TEXT) WHERE key = ?",
        "UPDATE traces SET usage = CAST(x'c3' AS TEXT) WHERE key = ?",
        "UPDATE traces SET cap = 'many' WHERE key = ?",
    ],
)
def test_a_row_that_is_gone_or_unreadable_is_named(filled, plan, statement):
    with closing(TraceStore(filled, "look", "a")) as store:
        before = load(store, plan)
        key = key_of(store, plan, "p4", 0)
    change(filled, (statement, (key,)))
    with closing(TraceStore(filled, "judge", "a", check=True)) as store:
        assert before.keys() - load(store, plan).keys() == {("p4", 0)}
        assert (
            "left out: the trace of p4. What is damaged counts as missing" in store.damage_report()
        )
    with closing(TraceStore(filled, "two", "a", check=True)) as store:
        assert everything(store, plan, engine := FakeEngine()) == before
        assert len(engine.seen) == 1
    with closing(TraceStore(filled, "three", "a", check=True)) as store:
        assert everything(store, plan, None) == before
        assert store.damage_report() == ""


def test_a_damaged_trace_is_not_gone_on_from(filled):
    larger = make_plan(30, samples=2)
    change(filled, ("UPDATE traces SET text = 'x' WHERE rowid = 1",))
    with closing(TraceStore(filled, "two", "a")) as store:
        for (_, sample), trace in everything(store, larger, FakeEngine()).items():
            assert trace.output_ids == written(trace.prompt_ids, sample)[:30]
            assert trace.text == FakeEngine().decode(trace.output_ids)


def test_damage_that_happens_after_a_run_has_begun_is_not_gone_on_from(filled):
    plan, problems = make_plan(30), make_problems(COUNT)
    with closing(TraceStore(filled, "two", "a")) as store:
        store.want(plan.wants(problems, render(store, plan, problems, FakeEngine)))
        change(filled, ("UPDATE traces SET text = 'x' WHERE rowid = 1",))
        (key,) = rows(filled, "SELECT key FROM traces WHERE rowid = 1")[0]
        assert store.claim(99, 60).get(key, ()) == ()


@pytest.mark.parametrize("change_to", ["ids = x'00000000'", "render = 'x'", "model = 'x'", None])
def test_damaged_prompts_are_rendered_again(filled, plan, change_to):
    what = f"UPDATE prompts SET {change_to}" if change_to else "DELETE FROM prompts"
    change(filled, (f"{what} WHERE render = (SELECT render FROM prompts LIMIT 1)",))
    with closing(TraceStore(filled, "judge", "a")) as store:
        assert len(load(store, plan)) == 2 * (COUNT - 1)
        assert "the prompt " in store.damage_report()
    with closing(TraceStore(filled, "two", "a")) as store:
        assert len(everything(store, plan, engine := FakeEngine())) == 2 * COUNT
        assert engine.seen == [], "its traces are there"
        assert any("the prompt " in text for _, text in store.notes())
    kept = [kind for (kind,) in rows(filled, "SELECT kind FROM damaged")]
    assert kept == (["prompts"] if change_to == "ids = x'00000000'" else [])
    with closing(TraceStore(filled, "three", "a")) as store:
        assert len(everything(store, plan, None)) == 2 * COUNT


def test_damaged_notes_are_as_good_as_none(path):
    with closing(TraceStore(path, "one", "a")) as store:
        store.put_windows("m", {"w": {"tokens": 3}})
        store.put_server(("http://a/v1",), None, {"kind": "vllm"})
        store.put("file", 10, 99, "abc")
    change(
        path,
        ("UPDATE windows SET facts = '{\"tokens\": 7}'",),
        ('UPDATE servers SET facts = \'{"kind": "sglang"}\'',),
        ("UPDATE files SET sha256 = 'abd'",),
    )
    with closing(TraceStore(path, "two", "a")) as store:
        assert store.windows("m", ["w"]) == {}
        assert store.server(("http://a/v1",), None) is None
        assert store.get("file", 10, 99) is None
        assert len(store.damage) == 3
        store.put_windows("m", {"w": {"tokens": 3}})
        assert store.windows("m", ["w"]) == {"w": {"tokens": 3}}
    assert rows(path, "SELECT kind FROM damaged") == [("windows",)]


def test_an_index_that_is_damaged_is_built_again(filled, plan):
    with closing(TraceStore(filled, "look", "a")) as store:
        before = load(store, plan)
        key = key_of(store, plan, "p1", 0)
    content = filled.read_bytes()
    # The key stands in its row, in the index of keys and among the checksums.
    places = [i for i in range(len(content)) if content.startswith(key.encode(), i)]
    assert len(places) == 3
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1
        filled.write_bytes(flipped)
        with closing(TraceStore(filled, "judge", "a", check=True)) as store:
            left = load(store, plan)
            assert set(before) - set(left) <= {("p1", 0)}
            assert all(left[name] == before[name] for name in left)
            report = store.damage_report()
            assert "index of trace store" in report or "the trace of p1" in report


def test_damage_from_before_there_were_checksums_is_found(filled, plan):
    with closing(TraceStore(filled, "look", "a")) as store:
        key = key_of(store, plan, "p3", 0)
    downgrade(filled, 3)
    change(filled, ("UPDATE traces SET output_ids = x'0102' WHERE key = ?", (key,)))
    with closing(TraceStore(filled, "judge", "a")) as store:
        assert len(load(store, plan)) == 2 * COUNT - 1
        assert "the trace of p3" in store.damage_report()


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        (
            "CREATE TRIGGER tidy AFTER INSERT ON traces BEGIN"
            " UPDATE traces SET text = 'x' WHERE key = new.key; END",
            "a trigger 'tidy'",
        ),
        ("CREATE TRIGGER sqlitelike AFTER DELETE ON claims BEGIN SELECT 1; END", "a trigger"),
        ("CREATE VIEW answers AS SELECT text FROM traces", "a view 'answers'"),
        ("CREATE TABLE more (x)", "a table 'more'"),
        ("CREATE UNIQUE INDEX one ON traces (text, key)", "an index 'one'"),
        ("ALTER TABLE traces ADD COLUMN more GENERATED ALWAYS AS (1)", "definition of the table"),
        (
            "ALTER TABLE prompts ADD COLUMN more CHECK (more > 0)",
            "definition of the table 'prompts'",
        ),
        ("DROP TABLE checksums", "no table 'checksums'"),
        ("DROP INDEX traces_run", "no index 'traces_run'"),
    ],
)
@pytest.mark.parametrize("version", [3, 4])
def test_a_file_that_another_program_changed_is_refused(filled, statement, what, version):
    if version == 3:
        downgrade(filled, 3)
        if "checksums" in statement:
            pytest.skip("there are none yet")
    with closing(sqlite3.connect(filled)) as db:
        db.execute(statement)
    refused(filled, "was changed by another program", what)


@pytest.mark.parametrize(
    "name", [b"TABLE prompts", b"prompts", b"render TEXT", b"INDEX traces_run"]
)
def test_a_schema_that_is_no_text_is_refused(filled, name):
    content = filled.read_bytes()
    assert name in content
    filled.write_bytes(content.replace(name, b"\xce" + name[1:], 1))
    refused(filled)


def test_a_view_in_the_place_of_a_table_is_refused(filled):
    with closing(sqlite3.connect(filled)) as db:
        db.execute("ALTER TABLE traces RENAME TO real")
        db.execute("CREATE VIEW traces AS SELECT * FROM real")
    refused(filled, "was changed by another program")


def test_statistics_of_the_query_planner_are_no_damage(filled, plan):
    with closing(sqlite3.connect(filled)) as db:
        db.execute("ANALYZE")
    with closing(TraceStore(filled, "look", "a", check=True)) as store:
        assert len(load(store, plan)) == 2 * COUNT


def test_what_was_rendered_is_what_is_stored(filled):
    with closing(TraceStore(filled, "look", "a")) as store:
        store.put_prompts("m", {"r": StoredPrompt((1, 2), True)})
        assert store.prompts("m", ["r"]) == {"r": StoredPrompt((1, 2), True)}
        assert store.damage == []


def test_gathering_says_what_is_damaged_even_where_no_model_can_be_had(filled, plan):
    change(filled, ("UPDATE traces SET text = 'x' WHERE rowid = 1",))
    with closing(TraceStore(filled, "two", "a")) as store:
        with pytest.raises(StoreError):
            gather_nothing(store, plan)
        assert any("damaged" in text for _, text in store.notes())


def gather_nothing(store, plan):
    def none():
        raise StoreError("no model")

    problems = make_problems(COUNT)
    prompts = render(store, plan, problems, none)
    gather(store, plan, plan.wants(problems, prompts), none)


def test_a_run_of_a_store_without_damage_says_nothing(filled):
    with closing(TraceStore(filled, "two", "a", check=True)) as store:
        gather_all(store, FakeEngine(), COUNT)
        assert store.notes() == []
