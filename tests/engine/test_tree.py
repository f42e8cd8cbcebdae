"""The reduction tree is fixed by block index, whatever the batches."""

from dataclasses import dataclass

import pytest

from dask_em.executors.batch import Tally, Tree, batch_level, merge_in_order


@dataclass(frozen=True)
class Bracket:
    """A partial result that remembers how it was merged."""

    text: str

    def merge(self, right: "Bracket") -> "Bracket":
        return Bracket(f"({self.text}{right.text})")

    def close(self) -> str:
        return self.text


def leaf(i: int) -> Tally:
    return Tally((Bracket(chr(97 + i)),), 1, i, 0.0, 0.0)


def shape(tally: Tally) -> str:
    assert tally.answers is not None
    return tally.answers[0].text


def test_the_tree_of_five_is_the_perfect_tree_with_its_end_missing() -> None:
    assert shape(merge_in_order(leaf(i) for i in range(5))) == "(((ab)(cd))e)"


def test_seven_leaves_join_their_end_from_the_right() -> None:
    assert shape(merge_in_order(leaf(i) for i in range(7))) == "(((ab)(cd))((ef)g))"


@pytest.mark.parametrize("n", [1, 2, 3, 7, 16, 21, 26])
@pytest.mark.parametrize("level", [0, 1, 2, 3, 4])
def test_batches_of_any_size_give_the_same_tree(n: int, level: int) -> None:
    whole = merge_in_order(leaf(i) for i in range(n))
    size = 1 << level
    batches = [merge_in_order(leaf(i) for i in range(a, min(a + size, n))) for a in range(0, n, size)]
    assert shape(merge_in_order(batches)) == shape(whole)


@pytest.mark.parametrize("fan_in_level", [1, 2, 4])
def test_merging_in_groups_gives_the_same_tree(fan_in_level: int) -> None:
    nodes = [leaf(i) for i in range(23)]
    whole = shape(merge_in_order(nodes))
    while len(nodes) > 1:
        nodes = [merge_in_order(nodes[a : a + (1 << fan_in_level)]) for a in range(0, len(nodes), 1 << fan_in_level)]
    assert shape(nodes[0]) == whole


def test_a_tree_holds_no_more_than_the_logarithm_of_its_leaves() -> None:
    tree = Tree()
    most = 0
    for i in range(1000):
        tree.push(Tally(None, 1, i, 0.0, 0.0))
        most = max(most, len(tree._nodes))
    assert most <= 10
    assert tree.root().rows == 1000


def test_blocks_without_rows_leave_no_trace() -> None:
    empty = Tally(None, 0, 0, 0.0, 0.0)
    assert shape(merge_in_order([empty, leaf(0), empty, leaf(1)])) == "(ab)"


@pytest.mark.parametrize(("blocks", "wanted", "level"), [(1, 16, 0), (100, 16, 2), (100_000, 16, 12), (31, 16, 0)])
def test_batch_level_gives_at_least_the_batches_wanted(blocks: int, wanted: int, level: int) -> None:
    assert batch_level(blocks, wanted) == level
    assert -(-blocks // (1 << level)) >= min(blocks, wanted)
