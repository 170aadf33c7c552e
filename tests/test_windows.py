"""Every prediction that counts is made from enough context, counts once, and nothing is padded."""

import numpy as np
import pytest

from rdlib.models.hub import EMBEDDED
from rdlib.network.texts import load_text, load_tokenizer
from rdlib.network.windows import BATCH, Windows, cut_windows, read_tokens


def test_side_by_side_every_token_is_predicted_once():
    tokens = np.arange(100, 200)
    windows = cut_windows(tokens, 11)
    assert windows.ids.shape == (9, 12) and windows.stride == 11
    assert windows.targets.ravel().tolist() == tokens[1:].tolist()
    assert (windows.ids[:, :-1].ravel() == tokens[:99]).all(), "the inputs are the tokens before the targets"


def test_with_a_bos_the_first_token_of_a_window_is_predicted_too():
    tokens = np.arange(100, 200)
    windows = cut_windows(tokens, 10, bos=7)
    assert (windows.ids[:, 0] == 7).all()
    assert windows.targets.ravel().tolist() == tokens.tolist()


@pytest.mark.parametrize("bos", [None, 7])
@pytest.mark.parametrize("stride", [1, 3, 4, 11, 12])
def test_with_a_stride_targets_follow_one_another_with_context_before_them(stride, bos):
    tokens, length = np.arange(100, 200), 12
    windows = cut_windows(tokens, length, stride, bos)
    counted = windows.targets.ravel()
    assert (np.diff(counted) == 1).all(), "each counts once"
    for window, target in zip(windows.ids, windows.targets, strict=True):
        place = window.tolist().index(target[0])
        assert place >= length - stride + 1, "so many tokens stand before it"
    assert tokens[-1] - counted[-1] < stride, "only a rest that fills no window is left out"


def test_what_fills_no_window_is_left_out():
    assert len(cut_windows(np.arange(24), 8)) == 2
    assert len(cut_windows(np.arange(25), 8)) == 3
    assert len(cut_windows(np.arange(24), 8, bos=0)) == 3


@pytest.mark.parametrize("length", [1, 7, 256, 2048, 5000])
def test_batches_are_all_windows_in_order(length):
    windows = Windows(np.zeros((23, length + 1), np.int64), length)
    batches = list(windows.batches)
    assert [i for batch in batches for i in range(batch.start, batch.stop)] == list(range(23))
    for batch in batches:
        assert batch.stop - batch.start == 1 or (batch.stop - batch.start) * length <= BATCH


def test_the_first_windows_are_cut_by_the_same_protocol():
    windows = cut_windows(np.arange(100), 10, 5, bos=3)
    few = windows.take(4)
    assert len(few) == 4 and (few.ids == windows.ids[:4]).all() and few.stride == 5 and few.bos == 3
    assert len(windows.take(1000)) == len(windows)


def test_the_protocol_is_said_in_words():
    assert cut_windows(np.arange(100), 10).protocol == "9 windows of 10 tokens, stride 10, no BOS added"
    assert (
        cut_windows(np.arange(100), 10, 5, 3).protocol
        == "19 windows of 10 tokens, stride 5, BOS 3 before each"
    )


def test_the_hash_is_that_of_tokens_and_protocol():
    tokens = np.arange(100)
    same = [cut_windows(tokens, 10), cut_windows(tokens.astype(np.int32), 10), cut_windows(list(tokens), 10)]
    others = [
        cut_windows(tokens[::-1], 10),
        cut_windows(tokens, 10, 5),
        cut_windows(tokens, 11),
        cut_windows(tokens, 10, bos=0),
    ]
    assert len({w.sha256 for w in same}) == 1
    assert len({w.sha256 for w in [*same, *others]}) == 5


@pytest.mark.parametrize(("length", "stride"), [(0, None), (-1, None), (8, 0), (8, 9), (8, -1)])
def test_a_protocol_that_is_none_is_refused(length, stride):
    with pytest.raises(ValueError, match="1 ≤ stride ≤ length"):
        cut_windows(np.arange(100), length, stride)


def test_a_text_shorter_than_a_window_is_refused():
    with pytest.raises(ValueError, match="The text has 8 tokens, and one window takes 9"):
        cut_windows(np.arange(8), 8)
    assert len(cut_windows(np.arange(8), 8, bos=0)) == 1


def test_documents_follow_one_another_each_with_its_bos(tmp_path):
    file = tmp_path / "two.txt"
    file.write_text("Once upon a time.\n<|endoftext|>\nThe end.", encoding="utf-8")
    tokenizer = load_tokenizer(EMBEDDED)
    one, two = (tokenizer(text)["input_ids"] for text in load_text(file))
    tokens = read_tokens(file, tokenizer)
    assert tokens.tolist() == one + two and tokens.dtype == np.int64
    assert one[0] == two[0] == tokenizer.bos_token_id
