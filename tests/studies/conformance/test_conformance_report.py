"""What the conformance eval found: records, the result file, terminal, figure, badge."""

from __future__ import annotations

import itertools
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from conformance_samples import ABOUT, CASES, LIMITS, WAYS, budget_result, limit, make_report, way
from text_snapshots import TextFile, text_of

from pytest_tokenbudget.common.text_layout import cells
from pytest_tokenbudget.report import style
from pytest_tokenbudget.report.files import to_plain
from pytest_tokenbudget.report.json_files import RunInfo
from pytest_tokenbudget.studies.conformance.analysis import (
    Behaviour,
    BudgetVerdict,
    LimitFinding,
    Sight,
)
from pytest_tokenbudget.studies.conformance.badge import CAUTION, COLOURS, badge_of
from pytest_tokenbudget.studies.conformance.budget_methods import BUDGET_METHODS, BUDGETS, UNKNOWN
from pytest_tokenbudget.studies.conformance.figure import (
    BROKEN,
    DIFFERS,
    FINDINGS,
    KEPT,
    NO_BUDGET,
    PARTLY,
    conformance_figure,
    draw_conformance,
)
from pytest_tokenbudget.studies.conformance.figure import UNKNOWN as NOT_KNOWN
from pytest_tokenbudget.studies.conformance.limits import CAPS, LIMIT_PROBES
from pytest_tokenbudget.studies.conformance.overflow import (
    LITTLE,
    LONGEST_CONTEXT,
    ROOM,
    SHORTEST_CONTEXT,
    TOO_MUCH,
    Case,
)
from pytest_tokenbudget.studies.conformance.probe_context import PROMPTS
from pytest_tokenbudget.studies.conformance.prompt_visibility import PLACES
from pytest_tokenbudget.studies.conformance.repeats import LOAD, LONG, SHORT
from pytest_tokenbudget.studies.conformance.report import (
    conformance_lines,
    conformance_record,
    reports_of,
    write_conformance,
)
from pytest_tokenbudget.studies.conformance.verdict import LEVEL, MIN_INFORMATIVE
from pytest_tokenbudget.studies.conformance.wording import (
    engine_fault,
    limits_sentence,
    switch_sentence,
    thinking_sentence,
)

ROOT = Path(__file__).parents[3]
NAMES = tuple(each.probe for each in LIMITS)
WAY_NAMES = (*(each.way for each in WAYS), "--reasoning-budget")
HOSTILE = "<b>&\"']]>\x1b[31m\u202e$x_1$\n{日本語}"
SWITCH = replace(
    way("template-enable_thinking"), budgets=(budget_result(0, (0, 0, 0, 0)), budget_result(None))
)


def record(about=ABOUT, **part):
    """As a test's record arrives at the controller."""
    return json.loads(json.dumps({"test": "t", "conformance": to_plain({"about": about, **part})}))


def recorded(report):
    rows = [record(limit=each) for each in report.limits]
    rows += [record(way=each) for each in report.methods]
    return rows + [record(not_asked=each) for each in report.not_asked]


# Records


def test_records_give_back_what_was_found():
    report = make_report(
        methods=(
            *WAYS[:-1],
            replace(WAYS[-1], repeated=budget_result(None), remarks=("a remark",), slack=6),
        )
    )
    [found] = reports_of(recorded(report), NAMES, WAY_NAMES)
    assert found == report


def test_order_is_that_of_the_probes_whoever_was_first():
    [found] = reports_of(reversed(recorded(make_report())), NAMES, WAY_NAMES)
    assert tuple(each.probe for each in found.limits) == NAMES
    assert tuple(each.way for each in found.methods) == WAY_NAMES[:-1]


def test_what_was_not_made_is_named_and_the_last_record_of_a_name_counts():
    again = limit("usage", LimitFinding.BROKEN)
    rows = [record(limit=limit("usage")), record(limit=again), {"test": "t", "accuracy": 1.0}]
    rows.append({"test": "t", "conformance": "somebody else's"})
    [found] = reports_of(rows, ("n", "usage"), ("a", "b"))
    assert found.limits == (again,)
    assert found.missing == ("n", "a", "b")
    assert not found.judged
    [found] = reports_of([*rows, record(judged=["soft"])], ("n", "usage"), ())
    assert found.judged


def test_models_and_engines_are_kept_apart():
    other = {**ABOUT, "engine": "llamacpp"}
    rows = [record(limit=limit("n")), record(other, limit=limit("n", LimitFinding.DIFFERS))]
    found = reports_of(rows, ("n",), ())
    assert [each.engine for each in found] == ["vllm", "llamacpp"]
    assert found[1].limits[0].finding is LimitFinding.DIFFERS


def test_a_rate_that_is_none_survives():
    [found] = reports_of([record(limit=limit("n", rate=(float("nan"), 0.0, 1.0)))], ("n",), ())
    assert found.limits[0].rate[1:] == (0.0, 1.0)
    assert found.limits[0].rate[0] != found.limits[0].rate[0]


# In a few words


def test_a_switch_keeps_no_budget():
    """That thinking can be turned off does not mean that 256 tokens of it can be asked for."""
    report = make_report(methods=(SWITCH, way("w", BudgetVerdict.IGNORED)))
    assert badge_of(report).colour == COLOURS[BudgetVerdict.IGNORED]
    assert engine_fault("enforced", report)
    assert switch_sentence(make_report(methods=())) == ""


def test_sentences_on_limits_and_budgets(snapshot):
    broken, differs = LimitFinding.BROKEN, LimitFinding.DIFFERS
    limits = {
        "one limit broken": LIMITS,
        "two limits broken": (limit("a", broken), limit("b", broken), limit("c")),
        "outputs differ": (limit("a"), limit("b", differs)),
    }
    verdicts = {
        "two ways are enforced": ["ignored", "enforced", "soft", "enforced"],
        "the best is soft": ["ignored", "soft"],
        "all are ignored": ["ignored", "ignored"],
        "the best is inverted": ["ignored", "inverted"],
        "one is refused": ["refused"],
        "one is not resolved": ["ignored", "not resolved"],
        "none was tried": [],
    }
    off = replace(SWITCH, verdict=BudgetVerdict.IGNORED)
    ignored = way("w", BudgetVerdict.IGNORED)
    ways = {
        name: tuple(way(f"w{n}", BudgetVerdict(each)) for n, each in enumerate(found))
        for name, found in verdicts.items()
    }
    ways |= {
        "a switch that is kept": (SWITCH, ignored),
        "a switch that is not": (off,),
        "thinking goes on after its close": (going_on("first"),),
        "thinking goes on with one way": (going_on("first"), way("second")),
    }
    reports = {name: make_report(limits=each) for name, each in limits.items()}
    reports |= {name: make_report(methods=each) for name, each in ways.items()}
    said = {
        name: (
            limits_sentence(each) if name in limits else thinking_sentence(each),
            switch_sentence(each),
            f"badge: {badge_of(each).message}",
        )
        for name, each in reports.items()
    }
    said["the terminal"] = conformance_lines(
        make_report(about={**ABOUT, "context": 2048}), RunInfo()
    )
    assert text_of(said) == snapshot(extension_class=TextFile)


# The result file


def test_files(tmp_path):
    written = write_conformance(make_report(), RunInfo(), tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        "results/conformance_vllm_nano-reasoner.json",
        "figures/conformance_vllm_nano-reasoner.png",
        "figures/conformance_vllm_nano-reasoner.svg",
        "figures/conformance_vllm_nano-reasoner_badge.svg",
        "figures/conformance_vllm_nano-reasoner_badge.json",
    ]
    found = json.loads(written[0].read_text(encoding="utf-8"))
    assert found["schema"] == "tokenbudget-conformance/1"
    assert found["summary"]["badge"] == json.loads(written[4].read_text(encoding="utf-8"))
    enforced, soft, *_, refused = found["ways"]
    assert enforced["budgets"][2]["request"] == {"thinking_token_budget": 32}
    assert enforced["budgets"][2]["mean_thinking"] == 33
    assert enforced["budgets"][2]["largest_thinking"] == 33
    assert soft["budgets"][-1]["budget"] is None
    assert refused["budgets"][0]["mean_thinking"] is None
    assert refused["budgets"][0]["error"] == "unknown field"
    assert found["limits"][8]["evidence"] == [
        {"request": {"max_tokens": 16}, "finish_reason": "length"}
    ]


def test_a_run_that_was_not_whole_says_so():
    assert conformance_record(make_report(), RunInfo())["complete"] is True
    assert conformance_record(make_report(), RunInfo(complete=False))["complete"] is False
    assert conformance_record(make_report(missing=("n",)), RunInfo())["complete"] is False


def test_nothing_is_drawn_of_ways_that_were_not_tried(tmp_path):
    written = write_conformance(make_report(methods=()), RunInfo(), tmp_path)
    assert [path.suffix for path in written] == [".json", ".svg", ".json"]


def test_foreign_names_are_safe_everywhere(tmp_path):
    report = make_report(
        alias=HOSTILE,
        engine=HOSTILE,
        about={**ABOUT, "model": HOSTILE, "engine": HOSTILE, "engine_version": HOSTILE},
        limits=(limit("n", LimitFinding.BROKEN, sentence=HOSTILE),),
        methods=(way(HOSTILE, sentence=HOSTILE, remarks=(HOSTILE,)),),
    )
    shown = "\n".join(conformance_lines(report, RunInfo()))
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    written = write_conformance(report, RunInfo(), tmp_path)
    assert all(path.is_relative_to(tmp_path) for path in written)
    assert len({path.name for path in written}) == 5
    for path in written:
        if path.suffix == ".svg":
            assert ET.fromstring(path.read_bytes()).tag.endswith("svg")
        elif path.suffix == ".json":
            assert json.loads(path.read_text(encoding="utf-8"))


# On the terminal


@pytest.mark.parametrize("width", [40, 80, 200])
def test_lines_fit(width):
    many = tuple(way("x" * 50, sentence="word " * 60) for _ in range(3))
    for report in (make_report(), make_report(methods=many), make_report(methods=(), limits=())):
        for line in conformance_lines(report, RunInfo(), width):
            assert cells(line) <= 80
            assert line == line.rstrip()


def test_the_first_lines_are_the_answer():
    report = make_report()
    shown = conformance_lines(report, RunInfo())
    assert " ".join(" ".join(shown[1:6]).split()).startswith(
        f"{limits_sentence(report)} {thinking_sentence(report)}"
    )
    assert "\n".join(shown).count(thinking_sentence(report)[:30]) == 1


def test_the_table_shows_what_was_measured():
    shown = conformance_lines(make_report(), RunInfo())
    table = {line.split()[0]: line for line in shown if line.strip()}
    assert re.search(r"\s1\.0\s+2\.0\s+33\.0\s+257\.0\s+457\.5\s+enforced$", "\n".join(shown), re.M)
    assert table["reasoning.max_tokens"].split()[1:] == ["-", "-", "-", "-", "457.5", "refused"]
    assert table["prefix_under_load"].split()[1:] == [
        *("differs:", "3", "of", "16", "outputs", "go", "another", "way", "where", "others", "are"),
        "in",
    ]
    assert "prefix_under_load  differs  3 of 16  18.8 % [6.6, 43.0]" in shown


def test_thinking_outside_of_its_block_is_starred():
    """An engine that closes the block kept its word; whoever pays for the tokens must know."""
    kept = budget_result(32, (33, 33))
    first, second = kept.observations
    gone_on = replace(kept, observations=(replace(first, spill=120, spilled=True), second))
    report = make_report(methods=(replace(WAYS[0], budgets=(gone_on, budget_result(None))),))
    shown = conformance_lines(report, RunInfo())
    row = next(line for line in shown if line.startswith("thinking_token_budget "))
    assert row.split()[1:] == ["33.0*", "457.5", "enforced"]
    assert "* the model went on thinking after the close, 60.0 tokens more on average" in shown
    assert not [line for line in conformance_lines(make_report(), RunInfo()) if "*" in line]
    found = to_plain(conformance_record(report, RunInfo()))
    assert found["ways"][0]["budgets"][0]["mean_spill"] == 60


def going_on(name, spill=120):
    """A way that is enforced, and under which the model goes on thinking."""
    kept = budget_result(32, (33, 33))
    first, second = kept.observations
    changed = replace(kept, observations=(replace(first, spill=spill, spilled=True), second))
    return replace(way(name), budgets=(changed, budget_result(None)))


def test_neither_badge_nor_sentence_hides_that_thinking_goes_on():
    """The tokens are paid for, inside of the block or outside."""
    one = make_report(methods=(going_on("first"),), limits=LIMITS[:3])
    assert badge_of(one).colour not in {
        COLOURS[BudgetVerdict.ENFORCED],
        COLOURS[BudgetVerdict.IGNORED],
    }
    broken = badge_of(make_report(methods=(going_on("first"),)))
    assert broken.colour == COLOURS[BudgetVerdict.IGNORED]


def test_a_way_under_which_thinking_ends_is_named_first():
    both = make_report(methods=(going_on("first"), way("second")), limits=LIMITS[:3])
    assert badge_of(both).message == "enforced by second"
    assert (
        make_report(methods=(going_on("first"), way("soft", BudgetVerdict.SOFT))).best.way
        == "first"
    )


def test_what_a_model_does_without_a_budget_is_not_held_against_one():
    kept, without = way("first").budgets[2], budget_result(None)
    first, *rest = without.observations
    natural = replace(without, observations=(replace(first, spill=9), *rest))
    report = make_report(
        methods=(replace(way("first"), budgets=(kept, natural)),), limits=LIMITS[:3]
    )
    assert badge_of(report).message == "enforced by first"


def test_a_name_with_a_hyphen_stays_on_one_line():
    ways = tuple(going_on(name) for name in ("thinking_token_budget", f"{'x' * 16}-opened"))
    for width in range(60, 81):
        shown = conformance_lines(make_report(methods=ways), RunInfo(), width)
        assert not [line for line in shown if line.endswith("x-")]


def test_many_remarks_are_counted():
    remarked = replace(WAYS[0], remarks=("first", "second", "third", "fourth"))
    shown = conformance_lines(make_report(methods=(remarked,)), RunInfo())
    assert [line for line in shown if line.startswith("thinking_token_budget: ")] == [
        "thinking_token_budget: first",
        "thinking_token_budget: second",
        "thinking_token_budget: 2 further remarks in the result file",
    ]


def test_budgets_beyond_the_width_are_left_out_but_not_the_natural_length():
    many = (*(budget_result(b) for b in range(20)), budget_result(None))
    lines = conformance_lines(make_report(methods=(replace(WAYS[0], budgets=many),)), RunInfo())
    assert all(cells(line) <= 80 for line in lines)
    [head] = [line for line in lines if line.startswith("way to set it")]
    assert head.split()[4:] == ["0", "1", "2", "3", "4", "5", "none", "verdict"]


def test_what_happens_beyond_the_context_is_a_table_of_its_own():
    shown = conformance_lines(make_report(about={**ABOUT, "context": 2048}), RunInfo())
    [head] = [n for n, line in enumerate(shown) if line.startswith("beyond the context of 2,048")]
    prompts = [re.split(r"\s{2,}", line)[1] for line in shown[head + 1 : head + 5]]
    assert prompts == ["2,112", "4,096", "2,024", "-"]
    assert shown[head + 5].startswith("prompt twice too long:")
    assert shown[head + 6].startswith("budget alone too long:")
    assert not [line for line in shown if line.startswith("prompt and budget too long:")]
    none = make_report(limits=LIMITS[:3])
    assert not [line for line in conformance_lines(none, RunInfo()) if "beyond the" in line]


def test_a_case_that_is_broken_is_explained_whatever_its_name():
    """A prompt that is answered in full may be more than the model was made for."""
    whole = replace(CASES[0], behaviour=Behaviour.WHOLE, sentence="answered, all of it")
    for broken in (True, False):
        cases = (replace(whole, broken=broken),)
        limits = (limit("overflow", LimitFinding.BROKEN, sentence="long", cases=cases),)
        shown = conformance_lines(make_report(limits=limits), RunInfo())
        assert ("prompt a little too long: answered, all of it" in shown) is broken
        assert "overflow broken: long" not in shown


def test_cases_are_a_list_of_their_own_in_the_result_file():
    found = to_plain(conformance_record(make_report(), RunInfo()))
    assert [each["case"] for each in found["overflow"]] == [case.case for case in CASES]
    assert found["overflow"][1]["sights"] == {
        "beginning": "not seen",
        "middle": "not told",
        "end": "seen",
    }
    assert not any("cases" in each for each in found["limits"])


# The figure


def drawn(report):
    with style.figure_style():
        figure = draw_conformance(report)
        figure.canvas.draw()
    return figure


@pytest.mark.slow
def test_same_report_same_bytes(tmp_path):
    first = [path.read_bytes() for path in conformance_figure(make_report(), tmp_path / "a")]
    second = [path.read_bytes() for path in conformance_figure(make_report(), tmp_path / "b")]
    assert first == second


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"limits": ()},
        {"methods": WAYS[:1], "limits": LIMITS[:1]},
        {"methods": tuple(way("w" * 60, each) for each in BudgetVerdict), "alias": "m" * 90},
        {"methods": (SWITCH, *WAYS)},
    ],
    ids=["all", "no limits", "one", "long names", "with a switch"],
)
def test_nothing_in_the_figure_lies_over_anything_else(changes):
    from matplotlib.text import Text

    figure = drawn(make_report(**changes))
    shown = [t for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible()]
    boxes = [(t.get_text(), t.get_window_extent().padded(-1)) for t in shown]
    for (one, left), (two, right) in itertools.combinations(boxes, 2):
        assert not left.overlaps(right), f"{one!r} lies over {two!r}"
    for text, box in boxes:
        assert figure.bbox.contains(box.x0, box.y0), text
        assert figure.bbox.contains(box.x1, box.y1), text


def test_the_figure_says_every_verdict_in_words_and_shows_no_cell_that_was_not_tried():
    from matplotlib.patches import Rectangle
    from matplotlib.text import Text

    figure = drawn(make_report(methods=(SWITCH, *WAYS)))
    table = figure.axes[0]
    words = [t.get_text() for t in table.findobj(Text)]
    assert [word for word in words if word in set(BudgetVerdict)] == [
        each.verdict for each in (SWITCH, *WAYS)
    ]
    assert words.count("4 of 4") == 1 + 4
    assert len([p for p in table.patches if isinstance(p, Rectangle)]) == 2 + 5 * len(WAYS)


def test_the_figure_shows_what_happens_beyond_the_context():
    from matplotlib.colors import to_hex
    from matplotlib.text import Text

    chips = drawn(make_report()).axes[-1]
    words = [t.get_text() for t in chips.findobj(Text) if t.get_text()]
    assert "beyond the context" in words
    for case in CASES:
        assert {case.case, case.behaviour} <= set(words)
    shown = [to_hex(cell.get_facecolor()) for cell in chips.patches if cell.get_gid() is None]
    kept, broken, open_ = (
        FINDINGS[each].colour
        for each in (LimitFinding.KEPT, LimitFinding.BROKEN, LimitFinding.NOT_POSSIBLE)
    )
    assert shown[: len(CASES)] == [kept, broken, kept, open_]


def test_a_colour_has_one_meaning_and_the_legend_names_it():
    from matplotlib.colors import to_hex

    meanings = (KEPT, PARTLY, BROKEN, DIFFERS, NOT_KNOWN, NO_BUDGET)
    assert len({meaning.colour for meaning in meanings}) == len(meanings)
    figure = drawn(make_report())
    legend = figure.axes[0].get_legend()
    named = {
        to_hex(patch.get_facecolor()): text.get_text()
        for patch, text in zip(legend.get_patches(), legend.get_texts(), strict=True)
    }
    used = {to_hex(cell.get_facecolor()) for axes in figure.axes for cell in axes.patches}
    assert named.keys() == used
    assert named.items() <= {(meaning.colour, meaning.words) for meaning in meanings}


def test_the_colour_of_a_cell_says_what_its_numbers_say():
    from matplotlib.colors import to_hex

    [mixed] = (each for each in WAYS if each.verdict is BudgetVerdict.SOFT)
    figure = drawn(make_report(methods=(mixed,)))
    shown = [to_hex(cell.get_facecolor()) for cell in figure.axes[0].patches]
    expected = [
        NO_BUDGET if each.budget is None
        else NOT_KNOWN if not each.informative
        else KEPT if each.kept == each.informative
        else PARTLY if each.kept else BROKEN
        for each in mixed.budgets
    ]  # fmt: skip
    assert shown == [meaning.colour for meaning in expected]
    assert len(set(shown)) > 1


# The badge


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_white_letters_can_be_read_on_every_badge():
    for colour in {*COLOURS.values(), CAUTION, "#333333"}:
        assert 1.05 / (luminance(colour) + 0.05) >= 4.5, colour


def test_the_badge_says_which_way_and_what_is_broken():
    good = make_report(limits=LIMITS[:3])
    assert badge_of(good).endpoint() == {
        "schemaVersion": 1,
        "label": "thinking budget",
        "message": "enforced by thinking_token_budget",
        "color": COLOURS[BudgetVerdict.ENFORCED].removeprefix("#"),
    }
    broken = badge_of(make_report())
    assert broken.message == "enforced by thinking_token_budget, 1 limit broken"
    assert broken.colour == COLOURS[BudgetVerdict.IGNORED]
    limits = badge_of(make_report(methods=(), limits=LIMITS[:3]))
    assert (limits.label, limits.message) == ("token limits", "kept")
    assert badge_of(make_report(methods=())).message == "1 limit broken"
    assert badge_of(make_report(methods=(), limits=())).message == "not measured"


def test_the_badge_is_a_picture_with_words():
    badge = badge_of(make_report(methods=(way("<&>" * 40),)))
    root = ET.fromstring(badge.svg())
    space = "{http://www.w3.org/2000/svg}"
    assert root.find(f"{space}title").text == f"{badge.label}: {badge.message}"
    left, right = root.findall(f"{space}g/{space}text")
    assert (left.text, right.text) == (badge.label, badge.message)
    boxes = root.findall(f"{space}g/{space}rect")
    assert sum(int(box.get("width")) for box in boxes) == int(root.get("width"))
    for text, box in zip((left, right), boxes, strict=True):
        assert int(text.get("textLength")) < int(box.get("width"))
    assert len(badge.message) < 90


# The page


def test_the_page_names_everything_that_there_is():
    page = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    found = to_plain(conformance_record(make_report(), RunInfo()))
    budget = found["ways"][0]["budgets"][0]
    fields = {*found, *found["summary"], *found["limits"][0], *found["ways"][0], *budget}
    fields |= {*budget["observations"][0], *found["overflow"][0]}
    words = {*BudgetVerdict, *LimitFinding, *Behaviour, *Sight, *Case, *PLACES}
    names = {*fields, *words, *LIMIT_PROBES, *BUDGET_METHODS, UNKNOWN}
    assert {name for name in names if f"`{name}`" not in page} == set()
    assert set(re.findall(r"^\| `([\w-]+)` \| ", page, re.M)) >= {*LIMIT_PROBES, *BUDGET_METHODS}


def test_the_page_says_the_numbers_that_hold():
    page = " ".join((ROOT / "docs" / "conformance.md").read_text(encoding="utf-8").split())
    shown = ", ".join(map(str, BUDGETS))
    assert f"each with the budgets {shown} and none" in page
    assert (MIN_INFORMATIVE, LEVEL, PROMPTS) == (5, 0.05, 10)
    assert (LOAD, SHORT, LONG, CAPS) == (16, 32, 96, (1, 2, 16))
    for words in (
        "at least five prompts are informative",
        "at 5 % over all",
        "the ten that the model thinks longest about",
        "with 1, 2 and 16",
        f"an output of {SHORT} tokens is the beginning of one of {LONG}",
        f"with {LOAD} requests at a time",
        f"{LITTLE} tokens more than the context",
        f"all but {ROOM} tokens of the context, and `max_tokens` {TOO_MUCH}",
        f"A context above {LONGEST_CONTEXT:,} tokens is not overrun, nor one below"
        f" {SHORTEST_CONTEXT}",
    ):
        assert words in page
