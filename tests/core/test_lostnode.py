"""A node is lost when two witnesses fall silent together and other nodes answer; never on less."""

from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.core.lostnode import JOINT_SECONDS, Silence, find_lost

NOW = 1000.0
NONE: frozenset[str] = frozenset()
ANSWERED = {"n1": NOW, "n2": NOW, "n3": NOW - 2}


def silence(witness: str, node: str = "n3", began: float = NOW, asked: float = NOW - 0.5):
    return Silence(witness, node, began, asked)


def test_two_witnesses_that_fall_silent_together_are_enough():
    assert find_lost([silence("a"), silence("b", began=NOW - 1)], ANSWERED, NONE) == {"n3"}


def test_one_alone_may_have_a_trouble_of_its_own():
    assert find_lost([silence("a")], ANSWERED, NONE) == NONE
    assert find_lost([silence("a"), silence("a")], ANSWERED, NONE) == NONE


def test_witnesses_of_two_nodes_do_not_add_up():
    assert find_lost([silence("a"), silence("b", "n2")], ANSWERED, NONE) == NONE


def test_one_that_has_been_silent_for_long_tells_nothing_new():
    old = silence("a", began=NOW - JOINT_SECONDS - 0.1)
    assert find_lost([old, silence("b")], ANSWERED, NONE) == NONE


def test_an_answer_from_the_node_after_the_question_clears_it():
    answered = ANSWERED | {"n3": NOW - 0.4}
    assert find_lost([silence("a"), silence("b")], answered, NONE) == NONE
    later = [silence("a", asked=NOW - 0.3), silence("b", asked=NOW - 0.3)]
    assert find_lost(later, answered, NONE) == {"n3"}


def test_nobody_is_lost_when_nothing_else_answered_meanwhile():
    answered = dict.fromkeys(ANSWERED, NOW - 1)
    assert find_lost([silence("a"), silence("b")], answered, NONE) == NONE


def test_most_of_the_nodes_are_not_lost_at_once():
    both = [silence("a"), silence("b"), silence("c", "n2"), silence("d", "n2")]
    assert find_lost(both, ANSWERED | {"n2": NOW - 2}, NONE) == NONE
    assert find_lost(both[2:], ANSWERED | {"n2": NOW - 2}, frozenset({"n3"})) == {"n3"}


def test_a_lost_node_stays_so_until_the_caller_hears_of_it():
    assert find_lost([], ANSWERED, frozenset({"n3"})) == {"n3"}


NODES = ("n1", "n2", "n3", "n4")
TIMES = st.floats(NOW - 10, NOW)


@given(
    st.lists(
        st.builds(Silence, st.sampled_from("abcdef"), st.sampled_from(NODES), TIMES, TIMES),
        max_size=12,
    ),
    st.fixed_dictionaries(dict.fromkeys(NODES, TIMES)),
)
def test_never_more_than_half_and_never_one_that_has_just_answered(silences, answered):
    found = find_lost(silences, answered, NONE)
    assert 2 * len(found) <= len(answered)
    for node in found:
        assert any(s.node == node and s.asked > answered[node] for s in silences)
