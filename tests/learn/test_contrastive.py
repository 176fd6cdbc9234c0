"""DeCLIP's and SigLIP's terms: loops and end points; over several ranks in test_ranks.py."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from roadworthy.errors import BadInput
from roadworthy.learn import contrastive as terms
from roadworthy.learn.contrastive import UNTOUCHED, Terms, TextQueue, Texts, Weights

SCALE, BIAS = 7.0, -3.0


def features(seed: int, rows: int = 6) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    one, other = torch.randn(2, rows, 5, generator=random)
    return one, other


def cosine(a: Tensor, b: Tensor) -> float:
    dot = sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))
    return dot / math.hypot(*a.tolist()) / math.hypot(*b.tolist())


def slow_info_nce(one: Tensor, other: Tensor) -> float:
    n = len(one)
    table = [[math.exp(SCALE * cosine(a, b)) for b in other] for a in one]
    rows = sum(-math.log(table[i][i] / sum(table[i])) for i in range(n))
    columns = sum(-math.log(table[i][i] / sum(row[i] for row in table)) for i in range(n))
    return (rows + columns) / 2 / n


def texts(rows: Tensor) -> Texts:
    return Texts(rows, torch.arange(len(rows)))


def test_info_nce_is_that_of_a_loop() -> None:
    one, other = features(0)
    found = terms.info_nce(one, texts(other), SCALE)
    assert float(found) == pytest.approx(slow_info_nce(one, other))


def test_info_nce_tells_nothing_from_its_equals() -> None:
    """Rows 0 and 3 have one text: 0 is told from 1, 2, 4 and 5, and 3 is too."""
    one, other = features(7)
    keys = torch.tensor([0, 1, 2, 0, 4, 5])
    total = 0.0
    for i in range(6):
        others = [j for j in range(6) if j == i or keys[j] != keys[i]]
        ways = (
            [cosine(one[i], other[j]) for j in others],
            [cosine(one[j], other[i]) for j in others],
        )
        for way in ways:
            parts = [math.exp(SCALE * each) for each in way]
            total -= math.log(parts[others.index(i)] / sum(parts)) / 12
    assert float(terms.info_nce(one, Texts(other, keys), SCALE)) == pytest.approx(total)


def test_one_text_for_all_leaves_nothing_to_learn() -> None:
    one, other = (each.requires_grad_() for each in features(8))
    same = Texts(other, torch.zeros(6, dtype=torch.long))
    loss = terms.info_nce(one, same, SCALE)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert one.grad is not None
    torch.testing.assert_close(one.grad, torch.zeros_like(one))


def test_siglip_is_that_of_a_loop() -> None:
    one, other = features(1)
    keys, total = [0, 1, 1, 2, 3, 4], 0.0
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            if keys[i] == keys[j] and i != j:
                continue
            z = 1 if i == j else -1
            total += math.log1p(math.exp(-z * (SCALE * cosine(a, b) + BIAS))) / len(one)
    assert float(terms.siglip(one, Texts(other, torch.tensor(keys)), SCALE, BIAS)) == pytest.approx(
        total
    )


def test_simsiam_is_that_of_a_loop_and_holds_what_is_predicted_fixed() -> None:
    predicted, projected = features(2), features(3)
    for x in (*predicted, *projected):
        x.requires_grad_()
    loss = terms.simsiam(predicted, projected)
    loss.backward()
    pairs = [(predicted[0], projected[1]), (predicted[1], projected[0])]
    wanted = -sum(cosine(a, b) for pair in pairs for a, b in zip(*pair, strict=True)) / 12
    assert float(loss.detach()) == pytest.approx(wanted)
    assert all(x.grad is not None for x in predicted)
    assert all(x.grad is None for x in projected)


def test_views_and_neighbours_are_means_of_info_nce() -> None:
    images, said = features(4), features(5)
    three = [(images[1], said[0]), (images[0], said[1]), (images[1], said[1])]
    wanted = sum(slow_info_nce(*pair) for pair in three) / 3
    both = texts(said[0]), texts(said[1])
    assert float(terms.multi_view(images, both, SCALE)) == pytest.approx(wanted)
    wanted = sum(slow_info_nce(image, said[0]) for image in images) / 2
    assert float(terms.nearest_neighbour(images, both[0], SCALE)) == pytest.approx(wanted)


def numbers(rows: Tensor) -> Tensor:
    return (1e6 * rows.abs().sum(1)).long()


@pytest.mark.parametrize("batch", [1, 3, 4, 7])
def test_the_queue_is_that_of_a_list(batch: int) -> None:
    queue, held = TextQueue(4, 5), list[Tensor]()
    random = torch.Generator().manual_seed(batch)
    for _ in range(4):
        asked = torch.randn(3, 5, generator=random)
        found = queue.nearest(Texts(asked, numbers(asked)))
        for row, key, own in zip(*found, asked, strict=True):
            best = max(held, key=lambda text: cosine(text, own)) if held else own
            torch.testing.assert_close(row, best / best.norm())
            assert int(key) == int(numbers(best[None]))
        new = torch.randn(batch, 5, generator=random)
        queue.push(Texts(new, numbers(new)))
        held = [*held, *new][-4:]


def test_the_queue_goes_on_where_it_was_saved() -> None:
    one, other = TextQueue(4, 5), TextQueue(4, 5)
    one.push(texts(features(0, 3)[0]))
    other.load_state_dict(one.state_dict())
    for queue in (one, other):
        queue.push(texts(features(1, 3)[0]))
    assert torch.equal(one.rows, other.rows)
    with pytest.raises(BadInput, match="1 or more"):
        TextQueue(0, 5)


def test_masked_tokens_follow_their_shares_and_their_seed() -> None:
    ids = torch.arange(40_000).remainder(50).reshape(100, 400)
    words, mask = torch.arange(4, 50), 3
    shown, wanted = terms.masked(ids, words, mask, torch.Generator().manual_seed(0))
    hidden = wanted != UNTOUCHED
    assert torch.equal(wanted[hidden], ids[hidden])
    assert torch.equal(shown[~hidden], ids[~hidden])
    assert not hidden[ids < 4].any()
    share = float(hidden[ids >= 4].double().mean())
    masked = float((shown[hidden] == mask).double().mean())
    kept = float((shown == ids)[hidden].double().mean())
    assert share == pytest.approx(0.15, abs=0.01)
    assert masked == pytest.approx(0.8, abs=0.02)
    assert kept == pytest.approx(0.1, abs=0.02)
    again = terms.masked(ids, words, mask, torch.Generator().manual_seed(0))
    assert torch.equal(shown, again[0])


def test_masked_language_is_that_of_a_loop() -> None:
    logits = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    hidden = torch.tensor([[2, UNTOUCHED, 4, 0], [UNTOUCHED] * 4])
    wanted = -sum(float(logits[0, t].log_softmax(0)[k]) for t, k in [(0, 2), (2, 4), (3, 0)]) / 3
    loss = terms.masked_language(logits[terms.gaps(hidden)], hidden)
    loss.backward()
    assert float(loss) == pytest.approx(wanted / 2)
    assert logits.grad is not None
    assert not logits.grad[1].any()


def test_the_total_is_weighted_as_shipped() -> None:
    parts = [torch.tensor(x) for x in (3.0, 5.0, 7.0, 11.0, 13.0)]
    wanted = 0.4 * 3 + 0.2 * (5 + 7) + 0.2 * 11 + 0.2 * 13
    assert float(Terms(*parts).total(Weights())) == pytest.approx(wanted)
    assert float(Terms(*parts).total(Weights(0, 0, 0))) == 3.0
    with pytest.raises(BadInput, match="1 at most"):
        Weights(0.5, 0.4, 0.2)


@pytest.mark.parametrize("loss", [terms.info_nce, terms.siglip])
def test_autocast_changes_nothing(loss: Callable[..., Tensor]) -> None:
    one, other = features(6)
    args = (one, texts(other), SCALE, *([BIAS] if loss is terms.siglip else []))
    exact = loss(*args)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(*args), exact)


def test_the_temperature_is_bounded() -> None:
    temperature = terms.Temperature()
    assert float(temperature()) == pytest.approx(1 / 0.07)
    nn.init.constant_(temperature.log_scale, 9.0)
    assert float(temperature()) == pytest.approx(100)
