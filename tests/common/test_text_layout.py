from pytest_tokenbudget.common.text_layout import (
    Table,
    cells,
    decimal,
    p_value,
    points,
    rate,
    share,
)


def people(*names):
    table = Table("name", "share", "tokens")
    for name in names:
        table.add(name, "5.0 %", "12")
    return table


def test_columns_are_as_wide_as_their_widest_cell():
    assert people("Ada", "Grace").lines() == [
        "name   share  tokens",
        "Ada    5.0 %      12",
        "Grace  5.0 %      12",
    ]


def test_a_table_without_rows_has_no_lines():
    assert Table("name", "share").lines() == []


def test_cells_that_are_missing_stay_empty():
    table = Table("name", "share")
    table.add("all")
    assert table.lines() == ["name  share", "all"]


def test_numbers_first_end_at_their_right_edge():
    table = Table("budget", "share", left=())
    table.add("32", "1.0 %")
    assert table.lines()[1] == "    32  1.0 %"


def test_a_narrow_terminal_shrinks_gaps_then_names_then_writes_sentences():
    table = people("a name of twenty-six letters")
    wide, narrow, named = table.lines(44), table.lines(40), table.lines(24)
    assert "  5.0 %" in wide[1]
    assert " 5.0 %     12" in narrow[1]
    assert "  5.0 %" not in narrow[1]
    assert max(map(cells, named)) <= 24
    assert "\u2026" in named[1]
    assert people("a name of twenty-six letters").lines(16) == [
        "a name of",
        "  twenty-six",
        "  letters: share",
        "  5.0 %, tokens",
        "  12",
    ]


def test_wide_letters_take_two_columns():
    table = Table("name", "share")
    table.add("\u6f22\u5b57", "5.0 %")
    assert {cells(line) for line in table.lines()} == {11}


def test_a_second_heading_stands_above_the_columns_on_the_right():
    table = Table("name", "at 1", "at 2", span="tokens")
    table.add("Ada", "3", "4")
    assert table.lines()[0] == "          tokens"


def test_numbers_have_one_form_each():
    nothing = float("nan")
    assert (share(0.92), share(None), share(nothing)) == ("92.0 %", "-", "-")
    assert rate((0.05, 0.031, 0.081)) == "5.0 % [3.1, 8.1]"
    assert rate((0.05, 0.031, 1.0), 5) == "  5.0 % [  3.1, 100.0]"
    assert (points(0.021), points(-0.0001), points(nothing)) == ("+2.1", "+0.0", "-")
    assert (decimal(1319.04), decimal(nothing)) == ("1,319.0", "-")
    assert (p_value(0.0004), p_value(0.05)) == ("<0.001", "0.050")
