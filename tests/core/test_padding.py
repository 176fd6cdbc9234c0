"""Padding: cut off where every text has some, never counted, never changing an answer's place."""

import torch
from torch import Tensor

from roadworthy.core.padding import by_length, cut, in_batches, shortened, tokens_of


def texts(lengths: list[int], width: int = 9, left: bool = False) -> Tensor:
    """Rows of ids that name their text, and masks."""
    place = torch.arange(width)
    masks = [(place >= width - n) if left else (place < n) for n in lengths]
    ids = torch.arange(len(lengths))[:, None].expand(-1, width)
    return torch.stack([ids, torch.stack(masks).long()], 1)


def test_answers_come_in_the_order_of_the_texts_and_padding_is_not_asked() -> None:
    lengths, widths = [5, 2, 7, 1, 3], list[int]()

    def count(x: Tensor) -> Tensor:
        widths.append(x.shape[-1])
        return x[:, 1].sum(1, keepdim=True).float()

    assert in_batches(count, texts(lengths), 2)[:, 0].tolist() == lengths
    assert widths == [2, 5, 7]


def test_texts_padded_on_the_left_stay_whole() -> None:
    assert shortened(texts([2, 3], left=True)).shape[-1] == 9
    assert shortened(texts([0, 0])).shape[-1] == 1


def test_images_pass_as_they_are() -> None:
    x = torch.randn(3, 3, 4, 4)
    assert shortened(x) is x
    assert [rows.tolist() for rows in by_length(x, 2)] == [[0, 1], [2]]
    assert tokens_of(x, x) is x
    assert torch.equal(in_batches(lambda y: y.flatten(1), x, 2), x.flatten(1))


def test_only_tokens_that_are_no_padding_are_left_of_an_activation() -> None:
    x = torch.arange(2 * 4 * 3).reshape(2, 4, 3).float()
    given = texts([2, 3], 4)
    assert torch.equal(tokens_of(x, given), torch.cat([x[0, :2], x[1, :3]]))
    heads = torch.stack([x, x + 100], 1)
    assert torch.equal(tokens_of(heads, given)[:, 1], tokens_of(x, given) + 100)
    assert torch.equal(tokens_of(x.flatten(0, 1), given), tokens_of(x, given))
    pooled = torch.randn(2, 5)
    assert tokens_of(pooled, given) is pooled


def test_a_cut_keeps_what_has_no_axis_of_tokens() -> None:
    assert cut(torch.zeros(2, 5), 3).shape == (2, 5)
    assert cut(torch.zeros(2, 5, 4), 3).shape == (2, 3, 4)
    assert cut(torch.zeros(2, 3, 5, dtype=torch.int64), 3).shape == (2, 3, 3)


def test_whole_texts_have_no_padding_though_they_are_as_wide_as_long() -> None:
    tokens = texts([2, 9, 4])
    pooled = torch.randn(3, 9)
    assert tokens_of(pooled, tokens) is pooled
    assert tokens_of(torch.randn(3, 9, 5), tokens).shape == (15, 5)
