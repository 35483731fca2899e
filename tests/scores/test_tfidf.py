"""The worked numbers of the TF-IDF score, its aggregation and its selection."""

from __future__ import annotations

import pytest
import torch
from nets import Tiny
from torch import Tensor, nn

from fpcli.errors import RecipeError
from fpcli.scores.tfidf import (
    Means,
    aggregate_means,
    choose_forgotten,
    find_followers,
    measure_class_means,
    score_tfidf,
)

FIRST = torch.tensor([[4.0, 1, 1, 2], [1, 1, 3, 2], [1, 1, 2, 2]])
SECOND = torch.tensor([[0.0, 6], [3, 3], [3, 0]])


def test_scores_of_the_first_layer() -> None:
    channel = [0.346574, 0.0, 0.035960, 0.0]
    assert score_tfidf(FIRST, 0).tolist() == pytest.approx(channel, abs=1e-6)
    literal = [0.346574, 0.173287, 0.035960, 0.0]
    assert score_tfidf(FIRST, 0, "class").tolist() == pytest.approx(literal, abs=1e-6)


def test_scores_of_the_official_code() -> None:
    found = score_tfidf(FIRST, 0, smoothing="code")
    assert found.tolist() == pytest.approx([0.202733, -0.035960, 0, -0.071921], abs=1e-6)


def test_narrow_layers_are_spared_as_in_the_library_of_the_code() -> None:
    scores = {"narrow": torch.arange(8.0) + 100, "wide": torch.arange(16.0)}
    alive = {name: torch.ones(len(x), dtype=torch.bool) for name, x in scores.items()}
    for scope, wide in (("global", []), ("layer", [14, 15])):
        how = {"ratio": 0.1, "scope": scope, "nni_skip": True}
        found = choose_forgotten(scores, alive, **how)  # type: ignore[arg-type]
        assert (found["narrow"].tolist(), found["wide"].tolist()) == ([], wide)
    assert choose_forgotten(scores, alive, ratio=0.1)["narrow"].tolist() == [6, 7]


def test_scores_of_the_second_layer() -> None:
    assert score_tfidf(SECOND, 0).tolist() == pytest.approx([0, 0.287682], abs=1e-6)


def test_a_class_that_excites_nothing_scores_zero() -> None:
    assert score_tfidf(torch.tensor([[0.0, 0.0], [1.0, 2.0]]), 0).tolist() == [0, 0]


def test_a_channel_that_is_the_same_for_all_classes_scores_zero() -> None:
    """The mean of equal numbers must not come out above them: 0.1 + 0.1 + 0.1 is not 0.3."""
    assert score_tfidf(torch.full((3, 2), 0.1), 1).tolist() == [0, 0]


def layers(*, alive: list[bool] | None = None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    scores = {"one": score_tfidf(FIRST, 0), "two": score_tfidf(SECOND, 0)}
    whole = {name: torch.ones(len(x), dtype=torch.bool) for name, x in scores.items()}
    if alive is not None:
        whole["one"] = torch.tensor(alive)
    return scores, whole


def picked(**rule: object) -> dict[str, list[int]]:
    alive = rule.pop("alive", None)
    found = choose_forgotten(*layers(alive=alive), **rule)  # type: ignore[arg-type]
    return {name: channels.tolist() for name, channels in found.items()}


@pytest.mark.parametrize(
    ("ratio", "one", "two"),
    [
        (0.16, [], []),  # floor(0.96) = 0
        (1 / 6, [0], []),
        (0.34, [0], [1]),
        (0.5, [0, 2], [1]),
        (4 / 6, [0, 1, 2], [1]),  # of the zeros the earlier layer and the lower channel go first
        (5 / 6, None, None),  # four can leave: a layer keeps one channel
    ],
)
def test_global_selection(ratio: float, one: list[int] | None, two: list[int]) -> None:
    if one is None:
        with pytest.raises(RecipeError, match="5 of 6 channels, but only 4 can leave"):
            picked(ratio=ratio)
    else:
        assert picked(ratio=ratio) == {"one": one, "two": two}


def test_a_layer_that_is_at_its_least_is_skipped() -> None:
    assert picked(ratio=0.34, min_keep=2) == {"one": [0, 2], "two": []}


def test_lowest_and_dead_channels() -> None:
    assert picked(ratio=0.34, direction="lowest") == {"one": [1, 3], "two": []}
    assert picked(ratio=0.34, alive=[False, True, True, True]) == {"one": [2], "two": [1]}


def test_selection_by_layer() -> None:
    assert picked(ratio=0.34, scope="layer") == {"one": [0], "two": [1]}  # 1.86 and 1.18, rounded
    assert picked(ratio=0.2, scope="layer") == {"one": [0], "two": []}
    assert picked(ratio=0.7, scope="layer", min_keep=2) == {"one": [0, 2], "two": []}
    with pytest.raises(RecipeError, match="would empty layer `two`"):
        picked(ratio=0.75, scope="layer")


def test_random_takes_as_many_of_each_layer() -> None:
    draws = [
        picked(ratio=0.5, direction="random", generator=torch.Generator().manual_seed(seed))
        for seed in range(8)
    ]
    assert {(len(draw["one"]), len(draw["two"])) for draw in draws} == {(2, 1)}
    assert len({str(draw) for draw in draws}) > 2
    assert picked(
        ratio=0.5, direction="random", generator=torch.Generator().manual_seed(0)
    ) == draws[0]  # fmt: skip


def clients() -> list[Means]:
    """Return two clients: sums [[8,2],[3,9],-] of (2,3,0) samples, [[1,3],-,[4,8]] of (1,0,4)."""
    one = Means({"a": torch.tensor([[4.0, 1], [1, 3], [0, 0]])}, torch.tensor([2, 3, 0]))
    other = Means({"a": torch.tensor([[1.0, 3], [0, 0], [1, 2]])}, torch.tensor([1, 0, 4]))
    return [one, other]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("count", [[3, 5 / 3], [1, 3], [1, 2]]),
        ("holders", [[2.5, 2], [1, 3], [1, 2]]),
        ("naive", [[2.5, 2], [0.5, 1.5], [0.5, 1]]),
    ],
)
def test_aggregation(how: str, expected: list[list[float]]) -> None:
    found = aggregate_means(clients(), how)["a"]  # type: ignore[arg-type]
    assert torch.allclose(found, torch.tensor(expected))


class Wide(nn.Module):
    """A network with maps that are not square."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1, bias=False)
        self.conv.weight.data = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).mean((2, 3))


def test_means_are_of_positive_parts_over_the_whole_map() -> None:
    """Image 0 has (3, -1) on a 1x2 map: relu and mean give 1.5, of its negative 0.5."""
    model = Wide()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.tensor([[3.0, -1.0], [1.0, 1.0], [-2.0, -4.0]]).reshape(3, 1, 1, 2)
    batches = [(x[:1], torch.tensor([2])), (x[1:], torch.tensor([2, 0]))]
    means = measure_class_means(model.train(), batches, 4)
    assert means.counts.tolist() == [1, 0, 2, 0]
    assert means.activations["conv"].tolist() == [[0, 3], [0, 0], [1.25, 0.25], [0, 0]]
    assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())


def test_count_does_not_depend_on_the_partition() -> None:
    torch.manual_seed(0)
    model, x, y = Tiny(1, 3), torch.randn(24, 1, 8, 8), torch.arange(24) % 3

    def pooled(parts: list[Tensor]) -> dict[str, Tensor]:
        return aggregate_means(
            [measure_class_means(model, [(x[p], y[p])], 3) for p in parts], "count"
        )

    whole = pooled([torch.arange(24)])
    for cuts in ([5], [1, 9, 20], [8, 16]):
        split = pooled(list(torch.randperm(24).tensor_split(cuts)))
        for name, value in whole.items():
            assert torch.allclose(split[name], value, atol=1e-6)


def test_followers_are_found_by_what_flows() -> None:
    assert find_followers(Tiny(1, 3), torch.zeros(1, 1, 8, 8)) == {"stem": "norm"}
    assert find_followers(Wide(), torch.zeros(1, 1, 1, 2)) == {"conv": "norm"}
