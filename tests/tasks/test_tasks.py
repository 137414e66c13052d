"""Tasks: their problems, their files, their judges, and what a wrong name or line leads to."""

import hashlib
import json
import os
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tokenbudget.common.extensions import TASKS
from pytest_tokenbudget.stats.truncation import problems_needed
from pytest_tokenbudget.tasks import ruled
from pytest_tokenbudget.tasks.base import TaskError
from pytest_tokenbudget.tasks.gsm8k import REVISION, Gsm8kTask
from pytest_tokenbudget.tasks.jsonl import ANSWER_INSTRUCTION, JsonlTask, read_rows
from pytest_tokenbudget.tasks.problem import SOLVE_INSTRUCTION
from pytest_tokenbudget.tasks.registry import load_task
from pytest_tokenbudget.tasks.text_answers import normalise

GENERATED = ["word-problems", "recall", "multi-hop", "games"]


def write(path, *rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    return path


def row(question="How many?", answer="4", **more):
    return {"question": question, "answer": answer, **more}


# generated tasks


@pytest.mark.parametrize("name", GENERATED)
def test_generated_task(name):
    task = load_task(name)
    full = task.problems(None)
    assert task.name == name
    assert len(full) == task.size
    assert len({problem.id for problem in full}) == task.size
    longer = load_task(name).problems(task.size + 30)
    assert longer[: task.size] == full
    assert len({problem.id for problem in longer}) == task.size + 30
    assert load_task(name).problems(3) == full[:3] == task.problems(3)
    assert "/" in task.extractor


def test_the_default_task_can_promise_one_percent_and_keeps_its_first_problems():
    """Stores made while the task had 200 problems stay valid: the same problems, the same ids."""
    task = load_task("word-problems")
    assert task.size == 300 >= problems_needed(0.01, 0.95)
    first = "\n".join(problem.id for problem in task.problems(200))
    assert hashlib.sha256(first.encode()).hexdigest().startswith("df9deffebcc304df")


@pytest.mark.parametrize("name", GENERATED)
@pytest.mark.parametrize("limit", [0, -1])
def test_no_problems_are_refused(name, limit):
    with pytest.raises(TaskError, match="at least 1"):
        load_task(name).problems(limit)


def test_word_problems_are_judged_by_number():
    task = load_task("word-problems")
    problem = task.problems(1)[0]
    right = task.judge_text(problem, f"so\n#### {problem.answer}", False)
    assert right == (problem.answer, "hash", True)
    assert not task.judge_text(problem, f"#### {problem.answer}1", False).correct
    assert task.judge_text(problem, f"#### {problem.answer}", True).predicted is None


@pytest.mark.parametrize("name", ["recall", "multi-hop"])
def test_recall_is_judged_by_the_words_in_it(name):
    task = load_task(name)
    for problem in task.problems(20):
        text = f"I think it is {problem.answer.upper()}, yes."
        assert task.judge_text(problem, text, False).correct
        assert task.judge_text(problem, text, True).correct
        assert not task.judge_text(problem, f"It is x{problem.answer}s.", False).correct
        assert not task.judge_text(problem, "I do not know.", False).correct
        assert not task.judge_text(problem, f"It is {problem.answer}", True).correct


@pytest.mark.parametrize(
    ("text", "truncated", "right"),
    [
        ("The code is 234.", False, True),
        ("The code is 234", False, True),
        ("The code is 234", True, False),
        ("The code is 234.", True, False),
        ("The code is 234. So", True, True),
        ("The code is 1234.", False, False),
        ("The code is 1,234.", False, False),
        ("The code is 234.5.", False, False),
        ("The code is 234,500.", False, False),
    ],
)
def test_contained_numbers(text, truncated, right):
    assert ruled.judge_contains("234", text, truncated).correct is right


@pytest.mark.parametrize(
    ("text", "predicted", "right"),
    [
        ('{"choice": "north", "reason": "Best."}', "north", True),
        ('{"choice": " North "}', "north", True),
        ('```json\n{"choice": "up",\n "reason": "a } in \\" it {"}\n```', "up", True),
        ('I say {so}: {"choice": "up"}', "up", True),
        ('{"choice": "north"} no, {"choice": "up"}', "up", True),
        ('{"choice": "west"}', "west", False),
        ('{"choice": "north|up"}', "north|up", False),
        ('{"choice": 3}', None, False),
        ('{"option": "north"}', None, False),
        ('["north"]', None, False),
        ("{'choice': 'north'}", None, False),
        ('{"choice": "north"', None, False),
        ('{"choice": "north", "reason": "}', None, False),
        ('{"first": {"choice": "north"}', None, False),
        ('{"first": {"choice": "north"}, "reason": "', None, False),
        ("north", None, False),
        ("", None, False),
        ('{"a":' * 50_000, None, False),
        ('{"a":' * 50_000 + "1" + "}" * 50_000, None, False),
    ],
)
def test_choices(text, predicted, right):
    verdict = ruled.judge_choice("north|up", text, False)
    assert verdict == (predicted, "json" if predicted else None, right)
    assert ruled.judge_choice("north|up", text, True) == verdict


def test_games_are_judged_by_their_options():
    task = load_task("games")
    for problem in task.problems(36):
        for option in problem.metadata["options"]:
            reply = json.dumps({"choice": option, "reason": "r"})
            assert task.judge_text(problem, reply, False) == (option, "json", True)
            for end in range(len(reply)):
                assert not task.judge_text(problem, reply[:end], True).correct


# textual answers


@pytest.mark.parametrize(
    ("text", "branch", "right"),
    [
        ("It lies on the Seine.\n#### Paris", "hash", True),
        ("#### **paris.**\n", "hash", True),
        ("#### Paris\nI am sure.", "hash", True),
        ("#### Step 1\nThe answer is Paris", "answer_is", True),
        ("#### Rome", "hash", False),
        (r"\boxed{\text{Paris}}", "boxed", True),
        (r"\boxed{Rome}", "boxed", False),
        ("The answer is Paris. It lies on the Seine.", "answer_is", True),
        ("**Answer:** PARIS!", "answer_is", True),
        ("The answer is Rome. Not Paris.", "answer_is", False),
        (" \u201cParis\u201d. ", "text", True),
        ("Paris or Rome", "text", False),
    ],
)
def test_textual_answers(text, branch, right):
    verdict = ruled.judge_answer("Paris", text, False)
    assert (verdict.branch, verdict.correct) == (branch, right)
    assert (verdict.predicted == "Paris") is right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("#### Paris\n", True),
        ("#### Paris", False),
        ("The answer is Paris. It", True),
        ("The answer is Paris.", False),
        ("The answer is Paris\n", True),
        (r"\boxed{Paris}", True),
        (r"\boxed{Paris", False),
        ("Paris", False),
    ],
)
def test_textual_answers_of_truncated_text(text, right):
    assert ruled.judge_answer("Paris", text, True).correct is right


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("St. Petersburg", "st.  petersburg.", True),
        ("C#", "C", False),
        ("C++", "C#", False),
        ("-x", "x", False),
        ("!", "?", False),
        ("Stra\u00dfe", "STRASSE", True),
    ],
)
def test_normalised_text(a, b, same):
    assert (normalise(a) == normalise(b)) is same
    verdict = ruled.judge_answer(a, f"The answer is {b}", False)
    assert verdict.correct is same


def test_numeric_answers_are_compared_as_numbers():
    assert ruled.judge_answer("1,000", "#### $1000.00", False) == ("1000", "hash", True)
    assert ruled.judge_answer("1/2", "The answer is 0.5", False).correct
    assert not ruled.judge_answer("5", "#### five", False).correct


@given(st.text(), st.text(min_size=1).filter(str.strip), st.booleans())
def test_any_text_can_be_judged(text, expected, truncated):
    ruled.judge_answer(expected, text, truncated)
    ruled.judge_contains(expected, text, truncated)
    ruled.judge_choice(expected, text, truncated)


@given(st.text(alphabet='{}"\\choie: ,north\n'))
def test_no_json_breaks_the_choice(text):
    whole = ruled.judge_choice("north", text + '{"choice": "north"}', False)
    assert whole.predicted in (None, "north")


# JSONL


def test_jsonl(tmp_path):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 2 + 2?"},
    ]
    path = write(
        tmp_path / "mine.jsonl",
        row("2 + 3?", "5"),
        "",
        row("Capital of France?", "Paris", category="cities", id="fr"),
        row("2 + 2?", 4, messages=messages, id=17, source="left aside"),
        row("Half of 3?", 1.5),
        row("A step?", "1 + 1 = 2\n#### 2"),
    )
    task = load_task(str(path))
    assert isinstance(task, JsonlTask)
    assert (task.name, task.size) == ("mine", 5)
    number, text, given_messages, decimal, solved = task.problems(None)
    assert number.id.startswith("jsonl-")
    assert [m["content"] for m in number.messages] == [SOLVE_INSTRUCTION, "2 + 3?"]
    assert (text.id, text.category) == ("fr", "cities")
    assert text.messages[0]["content"] == ANSWER_INSTRUCTION
    assert (given_messages.id, given_messages.answer) == ("17", "4")
    assert list(given_messages.messages) == messages
    assert (decimal.answer, solved.answer) == ("1.5", "2")
    assert task.problems(2) == (number, text)
    assert len(task.problems(100)) == 5
    assert task.judge_text(text, "#### Paris", False).correct
    assert task.judge_text(number, "#### 5.0", False).correct


def test_answers_that_are_texts_by_nature_are_compared_as_texts(tmp_path):
    path = write(
        tmp_path / "mine.jsonl",
        row("Which release came after 3.9?", "3.10", scorer="text"),
        row("Which agent?", "007", scorer="text"),
        row("3 + 0.1?", "3.10", scorer="number"),
        row("How much is 3.1?", "3.10"),
    )
    task = load_task(str(path))
    release, agent, *numbers = task.problems()
    assert release.messages[0]["content"] == ANSWER_INSTRUCTION
    assert task.judge_text(release, "It is\n#### 3.10\n", True).correct
    assert task.judge_text(release, "The answer is **3.10**.", False).correct
    assert not task.judge_text(release, "#### 3.1", False).correct
    assert not task.judge_text(release, "#### 3.100", False).correct
    assert not task.judge_text(release, "#### 3.1", True).correct
    assert task.judge_text(agent, r"\boxed{007}", False).correct
    assert not task.judge_text(agent, r"\boxed{7}", False).correct
    for number in numbers:
        assert number.messages[0]["content"] == SOLVE_INSTRUCTION
        assert task.judge_text(number, "#### 3.1", False).correct
    text = "So\n#### 3.1\nNo:\n#### 3.10\n"
    changes = [
        n for n in range(1, len(text) + 1) if task.judge_text(release, text[:n], True).correct
    ]
    assert changes
    assert all(
        any(first <= n <= last for first, last in task.verdict_changes(release, text))
        for n in changes
    )


def test_jsonl_ids_do_not_depend_on_place(tmp_path):
    rows = [row(f"{n}?", str(n)) for n in range(5)]
    ids = [p.id for p in load_task(str(write(tmp_path / "a.jsonl", *rows))).problems(None)]
    again = load_task(str(write(tmp_path / "b.jsonl", *reversed(rows)))).problems(None)
    assert [p.id for p in again] == ids[::-1]


def test_jsonl_tolerates_bom_and_windows_ends_and_odd_spaces(tmp_path):
    path = tmp_path / "w.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf"
        + '{"question": "a\u2028b", "answer": "1"}\r\n\r\n'.encode()
        + b'{"question": "c", "answer": "2"}'
    )
    assert [p.question for p in load_task(str(path)).problems(None)] == ["a\u2028b", "c"]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ('{"question": "a"', "not valid JSON"),
        ("not json", "not valid JSON"),
        ('{"question": "a", "answer": NaN}', "NaN"),
        ('{"question": "\\ud800", "answer": "1"}', "surrogate"),
        ("[" * 100_000, "not valid JSON"),
        ("[1]", "a list"),
        ("3", "a number"),
        ("null", "null"),
        ({}, '"question" is missing'),
        ({"answer": "1"}, '"question" is missing; there is only "answer"'),
        ({"question": "a"}, '"answer" is missing; there is only "question"'),
        (row(""), '"question" is empty'),
        (row("  "), '"question" is empty'),
        (row(3), '"question" must be a string, this is a number'),
        (row(answer=""), '"answer" is empty'),
        (row(answer=None), "null"),
        (row(answer=True), "true or false"),
        (row(answer=["1"]), "a list"),
        (row(answer="x ####  "), "nothing after its last ####"),
        (row(id=""), '"id" is empty'),
        (row(id=True), '"id" must be a string'),
        (row(id=1.5), '"id" must be a string'),
        (row(category=3), '"category" must be a string'),
        (row(scorer="words"), "\"scorer\" is 'words', allowed are number, text"),
        (row(scorer=3), '"scorer" is a number, allowed are number, text'),
        (row(answer="four", scorer="number"), "the answer 'four' is not a number"),
        (row(messages=[]), "empty"),
        (row(messages="hi"), "a string"),
        (row(messages=["hi"]), "message 1: an object is needed"),
        (row(messages=[{"role": "user"}]), '"content" is missing'),
        (row(messages=[{"content": "x"}]), '"role" is missing'),
        (row(messages=[{"role": "user", "content": 3}]), '"content" must be a string'),
        (row(messages=[{"role": "human", "content": "x"}]), "'human', allowed are system"),
        (row(messages=[{"role": "system", "content": "x"}]), "must end with a message of the user"),
    ],
)
def test_bad_lines_are_named(tmp_path, bad, said):
    path = write(tmp_path / "bad.jsonl", row(), "", bad)
    with pytest.raises(TaskError) as raised:
        load_task(str(path))
    message = str(raised.value)
    assert message.startswith(f"{path}, line 3: ")
    assert said in message


def test_wrong_encoding_is_named(tmp_path):
    path = tmp_path / "latin.jsonl"
    path.write_bytes('{"question": "caf\u00e9", "answer": "1"}'.encode("latin-1"))
    with pytest.raises(TaskError, match="line 1: not UTF-8"):
        load_task(str(path))


def test_duplicates_are_named(tmp_path):
    same = write(tmp_path / "same.jsonl", row("a", "1"), row("b", "1"), "", row("a", 1, id="x"))
    with pytest.raises(TaskError, match=r"same\.jsonl: lines 1 and 4 are the same problem"):
        load_task(str(same))
    ids = write(tmp_path / "ids.jsonl", row("a", "1", id="x"), row("b", "1", id="x"))
    with pytest.raises(TaskError, match=r"ids\.jsonl: lines 1 and 2 have the same id 'x'"):
        load_task(str(ids))


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_an_empty_file_is_an_error(tmp_path, content):
    path = tmp_path / "empty.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TaskError, match="no problem in it"):
        load_task(str(path))


# GSM8K


def test_gsm8k_reference_solutions_are_all_right(gsm8k_path):
    task = load_task(f"gsm8k={gsm8k_path}")
    assert isinstance(task, Gsm8kTask)
    problems = task.problems(None)
    assert len(problems) == task.size == 1319
    right = 0
    for problem, row in zip(problems, read_rows(gsm8k_path), strict=True):
        solution = row.solution
        verdict = task.judge_text(problem, solution, False)
        right += verdict.correct and verdict.branch == "hash"
        assert not task.judge_text(problem, solution, True).correct
        assert task.judge_text(problem, f"{solution}\n", True).correct
    assert right == 1319


def test_gsm8k_never_right_by_a_cut_number(gsm8k_path):
    task = load_task(f"gsm8k={gsm8k_path}")
    rows = read_rows(gsm8k_path)
    for problem, row in list(zip(task.problems(None), rows, strict=True))[::10]:
        solution = row.solution
        for end in range(solution.rindex("####"), len(solution) + 1):
            assert task.judge_text(problem, solution[:end], True).predicted is None


def test_gsm8k_problems(gsm8k_path):
    first = load_task(f"gsm8k={gsm8k_path}").problems(1)[0]
    assert first.answer == "18"
    assert first.category == "2-step"
    assert first.id.startswith("gsm8k-")
    assert [m["role"] for m in first.messages] == ["system", "user"]
    assert first.messages[0]["content"] == SOLVE_INSTRUCTION


@pytest.mark.parametrize(
    ("answer", "said"),
    [("18", "has no ####"), ("so #### many", "'many' after #### is not a number")],
)
def test_gsm8k_needs_numbers(tmp_path, answer, said):
    path = write(tmp_path / "g.jsonl", row(answer="#### 1"), row("b", answer))
    with pytest.raises(TaskError, match="line 2") as raised:
        load_task(f"gsm8k={path}")
    assert said in str(raised.value)


def test_gsm8k_is_read_at_one_commit(gsm8k_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    rows = [json.loads(line) for line in gsm8k_path.read_text().splitlines()[:3]]
    asked = {}

    def load(*names, **options):
        asked.update(names=names, **options)
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert [problem.answer for problem in Gsm8kTask().problems(None)] == [
        row["answer"].rpartition("#### ")[2] for row in rows
    ]
    assert re.fullmatch("[0-9a-f]{40}", asked["revision"])
    assert asked["names"] == ("openai/gsm8k", "main")


def test_gsm8k_offline_says_what_to_do(tmp_path):
    pytest.importorskip("datasets")
    code = (
        "from pytest_tokenbudget.tasks.registry import load_task\n"
        "from pytest_tokenbudget.tasks.base import TaskError\n"
        "try:\n    load_task('gsm8k')\nexcept TaskError as error:\n    print(error)\n"
    )
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **offline},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert f"openai/gsm8k (revision {REVISION}) cannot be loaded" in result.stdout
    assert "--task gsm8k=PATH.jsonl" in result.stdout


# names


@pytest.mark.parametrize(
    ("spec", "near"),
    [
        ("word-problem", "word-problems"),
        ("gsm8", "gsm8k"),
        ("multihop", "multi-hop"),
        ("GAMES", "games"),
    ],
)
def test_unknown_task_names_the_nearest_and_all(spec, near):
    with pytest.raises(TaskError) as raised:
        load_task(spec)
    message = str(raised.value)
    assert f"did you mean {near}" in message
    assert all(name in message for name in TASKS.names)


@pytest.mark.parametrize("spec", ["", "zzz", "=", "zzz=x"])
def test_unknown_task_without_a_near_one(spec):
    with pytest.raises(TaskError, match="Allowed are word-problems") as raised:
        load_task(spec)
    assert "did you mean" not in str(raised.value)


def test_paths_that_are_no_files_are_refused(tmp_path):
    write(tmp_path / "problems.jsonl", row())
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "table.csv").write_text("a,b")
    with pytest.raises(TaskError, match=r"did you mean .*problems\.jsonl"):
        load_task(str(tmp_path / "problem.jsonl"))
    with pytest.raises(TaskError, match="there is no file"):
        load_task(f"gsm8k={tmp_path / 'none' / 'x.jsonl'}")
    with pytest.raises(TaskError, match="is a directory"):
        load_task(str(tmp_path / "folder.jsonl"))
    with pytest.raises(TaskError, match=r"ends in \.jsonl"):
        load_task(str(tmp_path / "table.csv"))
    with pytest.raises(TaskError, match="needs a file"):
        load_task("gsm8k=")
    with pytest.raises(TaskError, match="takes no file"):
        load_task(f"recall={tmp_path / 'problems.jsonl'}")


def test_loading_names_imports_nothing_heavy():
    code = (
        "import sys; from pytest_tokenbudget.tasks.registry import load_task; load_task('games');"
        "print(sorted({'torch', 'datasets', 'numpy', 'pandas'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "[]"
