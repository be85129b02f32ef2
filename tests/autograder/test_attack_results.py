"""The table of attacks has a row for each, about the attack as it is now, and no bad news."""

from book.means.trusted_code import HARM, AttackTable, attack_results, results_of_attacks
from tests.autograder.attack_course import all_attacks

ATTACKS = all_attacks()


def test_the_table_covers_every_attack_and_no_other():
    assert set(results_of_attacks()) == set(ATTACKS)


def test_each_result_is_that_of_the_attack_as_it_is_now():
    rows = results_of_attacks()
    old = [name for name, attack in ATTACKS.items() if rows[name]["digest"] != attack.digest]
    assert old == []


def test_no_attack_did_anything_to_the_autograder():
    assert {
        name: row["ours"] for name, row in results_of_attacks().items() if row.get("ours")
    } == {}


def test_asserts_in_a_notebook_can_be_fooled_and_no_more():
    done = {name: row.get("asserts", []) for name, row in results_of_attacks().items()}
    assert {name: what for name, what in done.items() if set(what) & set(HARM)} == {}
    # what it is after is a hidden test, which is in its own process
    found = [name for name, what in done.items() if "gets what it is after" in what]
    assert found == ["theft/hidden_source_in_history"]
    assert any("points" in " ".join(what) for what in done.values())


def test_the_honest_answer_earned_full_marks_from_stock_nbgrader_and_the_wrong_one_none():
    rows = attack_results()["rows"]
    assert rows["plain/honest"]["seen"]["earned"] == 3
    assert rows["plain/wrong"]["seen"]["earned"] == 0


def test_the_table_shows_a_row_for_each_attack_and_escapes_what_it_shows():
    rows = results_of_attacks()
    shown = AttackTable("x", rows)._repr_html_()
    assert shown.count('<th scope="row">') == len(ATTACKS)
    name = next(iter(rows))
    bad = AttackTable("x", {name: {**rows[name], "title": "<script>"}})._repr_html_()
    assert "<script>" not in bad
