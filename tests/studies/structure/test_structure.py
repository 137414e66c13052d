import json
import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from growth import grows_linearly
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import load, record, write
from studies import NumberTask, make_problem, trace_of

from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.core.trace import ThinkingFormat
from pytest_tokenbudget.report.json_files import RunInfo
from pytest_tokenbudget.studies.structure.analysis import analyse_structure
from pytest_tokenbudget.studies.structure.report import (
    structure_lines,
    structure_sentences,
    write_structure,
)
from pytest_tokenbudget.studies.structure.segments import (
    SegmentKind,
    find_loop,
    segment,
    trace_structure,
)
from pytest_tokenbudget.studies.structure.statistics import PartState, along, compare, fit
from pytest_tokenbudget.texts.sentences import sentences

SAMPLE = Path(__file__).parents[3] / "fixtures" / "data" / "structure_sample.jsonl"
KINDS = ("setup", "computation", "verification", "answer")


def kinds_of(text, complete=True):
    return [(s.kind.value, text[s.start : s.end].strip()) for s in segment(text, complete)]


def words_of(text, complete=True):
    return [kind for kind, _ in kinds_of(text, complete)]


# Sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mr. Lee pays $3.50. He has 2.", ["Mr. Lee pays $3.50.", "He has 2."]),
        ("1. Add 2. Then stop.\n2. Go on", ["1. Add 2.", "Then stop.", "2. Go on"]),
        ("Until 12 p.m. Kim slept. At 1 p.m. The end", None),
        ("\\[ a. B\n = 7 \\] So 7.", ["\\[ a. B\n = 7 \\]", "So 7."]),
        ("So $$x. Y$$ holds. Yes", ["So", "$$x. Y$$", "holds.", "Yes"]),
        ("x\n= 5\ny", ["x\n= 5", "y"]),
        ("**Step 1**\nTom has 3.", ["**Step 1**", "Tom has 3."]),
        ("A fee, e.g. Tax. J. Lee pays.", ["A fee, e.g. Tax.", "J. Lee pays."]),
        ("the value of X. Then go", ["the value of X.", "Then go"]),
        ("It is 5! Is it? (Yes.) No", ["It is 5!", "Is it?", "(Yes.)", "No"]),
        ("```\na. B\n```\nEnd", ["```\na. B\n```", "End"]),
        ("$$ never closed. But fine.", ["$$ never closed.", "But fine."]),
    ],
)  # fmt: skip
def test_sentences_end_where_they_end(text, expected):
    found = [text[a:b].strip() for a, b in sentences(text)]
    if expected is None:
        expected = ["Until 12 p.m. Kim slept.", "At 1 p.m.", "The end"]
    assert found == expected


@given(st.text(alphabet="aB.1 \n#$\\[]=*`-!\u3002", max_size=80))
@settings(max_examples=200, deadline=None)
def test_units_touch_and_are_all_of_the_text(text):
    spans = sentences(text)
    assert "".join(text[a:b] for a, b in spans) == text
    assert all(b > a for a, b in spans)


@pytest.mark.parametrize(
    "piece",
    ["\\[", "$$ ", "1. ", "Mr. ", ".", "\\begin{a}", "```\n", "so so ", "let a ", "#### ", "x = ",
     "(" , "5 ", "check ", "<<", "**", "a.b ", " \n"],
)  # fmt: skip
@pytest.mark.slow
def test_time_is_linear_in_the_length(piece):
    assert grows_linearly(segment, piece, 20_000)


@pytest.mark.slow
def test_time_is_linear_in_the_length_of_an_open_formula():
    assert grows_linearly(segment, "\\[", 20_000)


# Rules


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Also, the market is near. 2 + 2 = 4", "setup"),
        ("He writes a check of 5 dollars every month.", "setup"),
        ("Let x be the number of hens.", "setup"),
        ("The price is X - X*25% = $19.50.", "setup"),
        ("3 * 4 = 12", "computation"),
        ("He has $2 because 8 times .25 equals 2.", "computation"),
        ("So each one gets 5.", "computation"),
        ("Check: 12 / 4 = 3.", "verification"),
        ("Let me double-check this.", "verification"),
        ("To verify, add them again.", "verification"),
        ("#### 42", "answer"),
        ("**#### $1,234**", "answer"),
        ("The answer is 42.", "answer"),
        ("\\boxed{42}", "answer"),
        ("#### 1. First step", "computation"),
        ("Sure!", "other"),
    ],
)
def test_first_sentence_of(text, kind):
    assert words_of(text)[0] == kind


def test_words_are_whole_words():
    assert words_of("Tom sold 3 sofas. Also 4 chairs came.") == ["setup", "setup"]
    assert words_of("So 3 sofas came. So 4 came.")[0] == "computation"
    assert words_of("The checkers cost 5. 1 + 1 = 2") == ["setup", "computation"]


def test_a_verification_reaches_to_the_end_of_its_line_or_section():
    line = "3 + 4 = 7\nCheck: 7 - 4 = 3. It fits.\n7 + 1 = 8"
    assert words_of(line) == ["computation", "verification", "verification", "computation"]
    section = "3 + 4 = 7\n### Verification\n7 - 4 = 3\n\n7 - 3 = 4\n### Next\n1 + 1 = 2\n#### 2"
    assert words_of(section)[1:4] == ["verification"] * 3
    assert words_of(section)[-2:] == ["computation", "answer"]


def test_the_repeated_result_before_the_declaration_is_answer():
    text = "3 + 4 = 7\nTom has 7 hens.\n#### 7"
    assert words_of(text) == ["computation", "answer", "answer"]
    # Only where it repeats; and a text that was cut does not say that it ends there.
    assert words_of("3 + 4 = 7\nTom has 9 cows.\n#### 7")[1] == "setup"
    assert words_of("3 + 4 = 7\nTom has 7 hens.")[1] == "answer"
    assert words_of("3 + 4 = 7\nTom has 7 hens.", complete=False)[1] == "setup"


def test_equations_are_counted_where_they_stand():
    found = segment("Tom has 2.\n2 + 3 = 5\nCheck: 5 - 3 = 1.\n#### 5")
    assert [(s.kind.value, s.operations, s.right, s.wrong) for s in found] == [
        ("setup", 0, 0, 0),
        ("computation", 1, 1, 0),
        ("verification", 1, 0, 1),
        ("answer", 0, 0, 0),
    ]


# Quality on the hand-checked sample


def sample(half):
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines[1:]) if row["half"] == half]


def confusion(half, source):
    """Hand-checked kind and the rules' kind, that of most of its characters, for each segment."""
    table = Counter()
    for row in sample(half):
        if row["source"] != source:
            continue
        found = segment(row["text"], row["draw"] != "truncated")
        for start, end, kind in row["segments"]:
            shares = Counter()
            for s in found:
                shares[s.kind.value] += max(0, min(end, s.end) - max(start, s.start))
            table[kind, shares.most_common(1)[0][0]] += 1
    return table


def quality(table, kind):
    hit = table[kind, kind]
    said = sum(n for (_, rules), n in table.items() if rules == kind)
    true = sum(n for (hand, _), n in table.items() if hand == kind)
    return hit, said, true


# Right, said by the rules, and so by hand: what docs/structure.md shows.
MEASURED = {
    ("nano-reasoner", "held-out"): {
        "setup": (15, 16, 15),
        "computation": (49, 49, 50),
        "verification": (21, 21, 21),
        "answer": (10, 10, 10),
    },
    ("gsm8k", "held-out"): {
        "setup": (26, 28, 29),
        "computation": (139, 142, 141),
        "verification": (0, 0, 0),
        "answer": (51, 51, 51),
    },
}


@pytest.mark.parametrize(("source", "half"), MEASURED)
def test_precision_and_recall_are_at_least_as_documented(source, half):
    table = confusion(half, source)
    for kind, (hit, said, true) in MEASURED[source, half].items():
        now_hit, now_said, now_true = quality(table, kind)
        assert now_true == true
        assert now_hit >= hit
        assert now_said - now_hit <= said - hit


def test_the_sample_is_what_the_page_says():
    page = (SAMPLE.parent.parent.parent / "docs" / "structure.md").read_text(encoding="utf-8")
    for (source, half), kinds in MEASURED.items():
        for kind, (hit, said, true) in kinds.items():
            cells = (
                f"| {kind} | {hit} of {said} | {hit} of {true} |" if true else f"| {kind} | 0 of"
            )
            assert cells in page, (source, half, kind)
    counts = Counter(
        row["source"] for half in ("development", "held-out") for row in sample(half)
        for _ in row["segments"]
    )  # fmt: skip
    assert counts["nano-reasoner"] >= 100
    assert counts["gsm8k"] >= 100
    first = json.loads(SAMPLE.read_text(encoding="utf-8").splitlines()[0])
    assert "MIT" in first["notice"]
    assert "Copyright" in (SAMPLE.parent / "README.md").read_text(encoding="utf-8")


def test_hand_checked_segments_do_not_overlap_and_leave_only_white_space():
    for row in sample("development") + sample("held-out"):
        place = 0
        for start, end, kind in row["segments"]:
            assert not row["text"][place:start].strip()
            assert kind in (*KINDS, "other")
            place = end
        assert not row["text"][place:].strip()


# Tokens


def pieces_of(text, rng):
    pieces, place = [], 0
    while place < len(text):
        size = rng.randint(0, 5)
        pieces.append(text[place : place + size])
        place += size
    return [*pieces, ""]


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_every_token_belongs_to_exactly_one_segment(seed):
    rng = random.Random(seed)
    row = rng.choice(sample("development"))
    trace = trace_of("p", pieces_of(row["text"], rng), 10_000)
    found = trace_structure(trace.text, trace.offsets, trace.output_ids, ended=True)
    assert sum(found.tokens) == len(trace.output_ids)
    assert "".join(trace.text[s.start : s.end] for s in found.segments) == trace.text
    starts = [0, *trace.offsets][:-1]
    for s, tokens in zip(found.segments, found.tokens, strict=True):
        within = sum(
            s.start <= a < s.end for a, b in zip(starts, trace.offsets, strict=True) if b > a
        )
        # Those without text are the only ones whose place is not their first character.
        assert within <= tokens
    for s, begun, done in zip(found.segments, found.begun, found.done, strict=True):
        body = trace.text[s.start : s.end]
        assert trace.offsets[begun - 1] > s.start
        assert trace.offsets[done - 1] >= s.start + len(body.rstrip())
        assert done == 1 or trace.offsets[done - 2] < s.start + len(body.rstrip())


ANSWER = ["Tom has 2.\n", "2 + 3", " = 5\n", "Check: ", "5 - 3 = 2.\n", "#### ", "5", ""]


def structure_of(pieces, ended=True, **more):
    trace = trace_of("p", pieces, 10_000)
    return trace_structure(trace.text, trace.offsets, trace.output_ids, ended, **more)


def test_what_fits_within_a_budget():
    found = structure_of(ANSWER)
    assert [fit(found, SegmentKind.COMPUTATION, b) for b in (1, 2, 3)] == [
        PartState.CUT_OFF,
        PartState.BEGUN,
        PartState.COMPLETE,
    ]
    assert [fit(found, SegmentKind.VERIFICATION, b) for b in (3, 4, 5)] == [
        PartState.CUT_OFF,
        PartState.BEGUN,
        PartState.COMPLETE,
    ]
    without = structure_of([*ANSWER[:3], *ANSWER[5:]])
    assert fit(without, SegmentKind.VERIFICATION, 100) is PartState.NONE
    capped = structure_of(ANSWER[:3], ended=False)
    assert fit(capped, SegmentKind.VERIFICATION, 3) is PartState.UNKNOWN
    assert fit(capped, SegmentKind.COMPUTATION, 3) is PartState.BEGUN
    assert found.steps == 1
    assert [found.tokens_of(k) for k in SegmentKind] == [1, 2, 2, 3, 0]


def test_thinking_is_segmented_on_its_own():
    thought = "<think>2 + 3 = 5. The answer is 5.</think>"
    pieces = [thought[:20], thought[20:], *ANSWER]
    found = structure_of(pieces, thinking_end=len(thought), tags=("<think>", "</think>"))
    assert [s.kind.value for s in found.segments[: found.thinking]] == [
        "other",
        "computation",
        "answer",
        "other",
    ]
    assert len(found.indices(SegmentKind.ANSWER)) == 1
    assert found.begun_at(SegmentKind.ANSWER) == 8
    assert sum(found.tokens) == 10


# Loops


def test_loops_are_found_with_their_start():
    rng = random.Random(3)
    head = [rng.randrange(1000) for _ in range(50)]
    body = [2001, 2002, 2003, 2004, 2005, 2006, 2007]
    found = find_loop([*head, *body * 6, 2001, 9], ended=True)
    assert found is not None
    assert (found.start, found.period, found.tokens, found.to_the_end) == (50, 7, 43, True)
    inside = find_loop([*head, *body * 6, *head])
    assert inside is not None
    assert not inside.to_the_end
    assert find_loop([5] * 40) == (0, 1, 40, True)
    assert find_loop(head * 2) is None
    assert find_loop([-1] * 100) is None
    assert find_loop([*head, *body[:4] * 3]) is None  # 12 tokens are too few to call it one


@given(st.lists(st.integers(0, 3), max_size=60))
@settings(max_examples=200, deadline=None)
def test_a_loop_is_what_it_says(ids):
    found = find_loop(ids)
    if found is None:
        return
    part = ids[found.start : found.start + found.tokens]
    assert len(part) == found.tokens
    assert part[found.period :] == part[: -found.period]
    assert found.tokens >= 3 * found.period


# With and without verification


def brute_mantel_haenszel(cells):
    top = sum((x1 * n0 - x0 * n1) / (n1 + n0) for n1, x1, n0, x0 in cells)
    return top / sum(n1 * n0 / (n1 + n0) for n1, _, n0, _ in cells)


def table_to_arrays(cells):
    correct, verified, strata = [], [], []
    for name, (n1, x1, n0, x0) in cells.items():
        for group, n, x in ((True, n1, x1), (False, n0, x0)):
            correct += [1.0] * x + [0.0] * (n - x)
            verified += [group] * n
            strata += [name] * n
    mask = np.array(verified)[:, None]
    return np.array(correct)[:, None], mask, ~mask, strata


def test_the_matched_difference_is_that_of_mantel_and_haenszel():
    # Verifying goes with easy problems; within each category it makes no difference.
    cells = {"1-step": (90, 81, 10, 9), "8-step": (10, 2, 90, 18)}
    found = compare(*table_to_arrays(cells))
    assert found.crude == pytest.approx(0.83 - 0.27)
    assert found.difference.value == pytest.approx(brute_mantel_haenszel(cells.values()), abs=1e-12)
    assert found.difference.low < 0 < found.difference.high
    assert "association, not an effect" in found.sentence()
    assert "not resolved" in found.sentence()


def test_the_interval_agrees_with_independent_ones():
    statsmodels = pytest.importorskip("statsmodels.stats.contingency_tables")
    cells = {"a": (80, 60, 70, 40), "b": (60, 30, 90, 30), "c": (50, 45, 40, 30)}
    found = compare(*table_to_arrays(cells)).difference
    # The variance of Greenland and Robins (Sato's form has the same size here).
    top = bottom = 0.0
    for n1, x1, n0, x0 in cells.values():
        n = n1 + n0
        top += ((x1 * (n1 - x1) * n0**3) + (x0 * (n0 - x0) * n1**3)) / (n1 * n0 * n**2)
        bottom += n1 * n0 / n
    half = 1.96 * math.sqrt(top) / bottom
    assert found.low == pytest.approx(found.value - half, abs=0.012)
    assert found.high == pytest.approx(found.value + half, abs=0.012)
    # Same side as the test of Mantel and Haenszel.
    tables = [np.array([[x1, n1 - x1], [x0, n0 - x0]]) for n1, x1, n0, x0 in cells.values()]
    p = statsmodels.StratifiedTable(tables).test_null_odds().pvalue
    assert (p < 0.05) == (found.low > 0 or found.high < 0)


def test_one_stratum_is_the_difference_of_two_posteriors():
    found = compare(*table_to_arrays({"": (12, 12, 8, 8)})).difference
    rng = np.random.default_rng(1)
    draws = rng.beta(12.5, 0.5, 200_000) - rng.beta(8.5, 0.5, 200_000)
    low, high = np.quantile(draws, [0.025, 0.975])
    assert found.value == 0
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)


def test_where_a_group_is_empty_nothing_is_compared():
    only = compare(*table_to_arrays({"a": (5, 4, 0, 0)}))
    assert only.difference is None
    assert "cannot be compared: every answer" in only.sentence()
    apart = compare(*table_to_arrays({"a": (5, 4, 0, 0), "b": (0, 0, 5, 1)}))
    assert "no category has answers of both kinds" in apart.sentence()
    assert apart.left_out == 10


# A study


def make_study(verifying, alias="qwen", thinking=None, capped=0):
    problems = tuple(make_problem(index) for index in range(len(verifying)))
    traces = {}
    for index, (problem, verifies) in enumerate(zip(problems, verifying, strict=True)):
        right = index % (5 if verifies else 2) > 0
        said = problem.answer if right else "7"
        check = ["Check: ", f"{said} - 100", f" = {int(said) - 100}", ". ", "It fits.", "\n"]
        pieces = [
            "We add ", f"{index} and 100.", "\n", f"{index} + 100", f" = {said}", "\n",
            *(check if verifies else ()), "####", f" {said}", "",
        ]  # fmt: skip
        if index < capped:
            pieces = [*pieces[:6], *["so "] * 80]
        traces[problem.id, 0] = trace_of(problem.id, pieces, 64)
    return Study(
        alias=alias,
        identity={"id": alias},
        task=NumberTask(problems=problems),
        problems=problems,
        traces=traces,
        samples=1,
        thinking=thinking,
        mode="plain",
        budgets=(4, 8, 16, 64),
    )


def test_a_study_tells_none_from_cut_off():
    study = make_study([i % 3 > 0 for i in range(60)], capped=6)
    found = analyse_structure(study)
    assert analyse_structure(study) is found
    groups = {b: {n: g.traces for n, g in found.at(b).groups.items()} for b in found.budgets}
    assert groups[8] == {"verified": 0, "cut_off": 36, "none": 18, "unknown": 6}
    assert groups[64] == {"verified": 36, "cut_off": 0, "none": 18, "unknown": 6}
    none = found.at(64).groups["none"].accuracy
    rows = [j for i, j in enumerate(study.judged(64)) if i % 3 == 0 and i >= 6]
    assert none.value == sum(j.correct for j in rows) / len(rows)
    assert found.at(64).comparison.difference is not None
    with pytest.raises(ValueError, match="the structure has no budget 5; it has 4, 8, 16, 64"):
        found.at(5)


def test_shares_along_the_output_add_up_to_those_still_writing():
    study = make_study([True, False, True])
    structures = [one.structure for one in analyse_structure(study).traces]
    found = along(structures, stretches=1000)
    lengths = [sum(s.tokens) for s in structures]
    for index, place in enumerate(found.places):
        share = sum(shares[index] for shares in found.shares.values())
        assert share == pytest.approx(sum(length >= place for length in lengths) / 3)


def test_the_files_and_lines_of_the_structure_eval(tmp_path):
    study = make_study([i % 3 > 0 for i in range(60)])
    written = write_structure(study, RunInfo(), tmp_path)
    assert [path.name for path in written] == [
        "phase3_structure_analysis_qwen.json",
        "fig4_solution_structure_qwen.png",
        "fig4_solution_structure_qwen.svg",
        "fig5_verification_accuracy_qwen.png",
        "fig5_verification_accuracy_qwen.svg",
    ]
    before = [path.read_bytes() for path in written]
    record = json.loads(before[0])
    assert record["schema"] == "tokenbudget-phase3-structure/1"
    assert record["rules"] == "structure/1"
    assert len(record["traces"]) == 60
    assert record["counts"]["equations_wrong"] > 0
    assert [path.read_bytes() for path in write_structure(study, RunInfo(), tmp_path)] == before
    for width in (40, 80):
        lines = structure_lines(study, RunInfo(), width)
        assert lines
        assert max(map(len, lines)) <= width
    kinds = {name: record["mean_tokens"][name]["value"] for name in ("setup", "computation")}
    share = (
        100
        * kinds["computation"]
        / sum(
            record["mean_tokens"][name]["value"]
            for name in ("thinking", "setup", "computation", "verification", "answer", "other")
        )
    )
    assert structure_sentences(study)[0].startswith("solutions are ")
    assert f"{share:.0f} % computation" in structure_sentences(study)[0]
    assert "an association, not an effect" in " ".join(" ".join(lines).split())


def test_a_model_that_always_verifies_cannot_be_compared(tmp_path):
    study = make_study([True] * 12, alias="odd $name_")
    assert len(write_structure(study, RunInfo(), tmp_path)) == 5
    assert "cannot be compared" in " ".join(" ".join(structure_lines(study, RunInfo())).split())


def test_a_study_without_traces_writes_what_is_known(tmp_path):
    study = make_study([True] * 3)
    study.traces = {}
    (path,) = write_structure(study, RunInfo(), tmp_path)
    assert json.loads(path.read_text())["problems"] == 0
    assert "no structure" in structure_lines(study, RunInfo())[0]


def test_thinking_that_never_ended_leaves_the_parts_unknown():
    thinking = ThinkingFormat()
    study = make_study([True] * 3, thinking=thinking)
    problem = study.problems[0]
    pieces = ["<think>", "2 + 3 = 5. ", *["so "] * 80]
    study.traces = {**study.traces, (problem.id, 0): trace_of(problem.id, pieces, 64)}
    found = analyse_structure(study)
    assert found.at(64).part(SegmentKind.ANSWER).traces["unknown"] == 1
    assert found.traces[0].structure.thinking == len(found.traces[0].structure.segments)


def recorded(tmp_path, texts):
    records = [
        record(0, text, budget, stop_reason="length" if cut else "eos", truncated=cut)
        for budget, text, cut in texts
    ]
    return load(write(tmp_path / "all.json", records))


def test_recorded_cuts_know_what_lies_beyond_them(tmp_path):
    text = "3 + 4 = 7\nCheck: 7 - 4 = 3.\n#### 7"
    study = recorded(tmp_path, [(8, text[:12], True), (64, text, False)])
    found = analyse_structure(study)
    groups = [{n: g.traces for n, g in found.at(b).groups.items() if g.traces} for b in (8, 64)]
    assert groups == [{"cut_off": 1}, {"verified": 1}]
    assert found.cliff is None


def test_independent_recorded_runs_do_not(tmp_path):
    text = "3 + 4 = 7\nCheck: 7 - 4 = 3.\n#### 7"
    study = recorded(tmp_path, [(8, "We see th", True), (64, text, False)])
    found = analyse_structure(study)
    assert found.at(8).groups["unknown"].traces == 1
    assert len(write_structure(study, RunInfo(), tmp_path)) == 5
