"""What a network writes is what it holds most probable, or a draw that can be drawn again."""

import pytest
import torch
from networks import TRAINED, noisy, one_torch_thread, tiny, trained  # noqa: F401

from rdlib.network.network import replaced
from rdlib.network.sample import continuation, documents_of, sample
from rdlib.network.texts import load_tokenizer

PROMPT = "Once upon a time, there was a"


@pytest.fixture(scope="module", params=TRAINED, ids=lambda folder: folder.name)
def llama(request):
    return trained(request.param)[0], load_tokenizer(request.param)


def test_the_most_probable_continuation_is_that_of_a_plain_loop(llama):
    network, tokenizer = llama
    ids = tokenizer(PROMPT)["input_ids"]
    start = len(ids)
    with torch.no_grad():
        for _ in range(12):
            ids.append(int(network(torch.tensor([ids])).logits[0, -1].argmax()))
    assert continuation(network, tokenizer, PROMPT, 12) == tokenizer.decode(ids[start:])


def test_a_draw_can_be_drawn_again_and_disturbs_no_other(llama):
    network, tokenizer = llama
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    texts = [continuation(network, tokenizer, PROMPT, 12, 1.0, seed) for seed in (0, 0, 1, 2, 3)]
    assert torch.equal(torch.rand(3), expected)
    assert texts[0] == texts[1] and len(set(texts)) > 1


def test_other_weights_write_other_texts(llama):
    network, tokenizer = llama
    with replaced(network, noisy(network, "model.layers.0.mlp.down_proj.weight", size=3.0)):
        strange = continuation(network, tokenizer, PROMPT, 12)
    assert strange != continuation(network, tokenizer, PROMPT, 12)


def test_a_text_ends_where_the_network_ends_it(llama):
    """A head that knows no other token but the end."""
    network, tokenizer = llama
    norm = 0 * network.model.norm.weight.numpy()
    with replaced(
        network, {"model.norm.weight": norm}
    ):  # all logits are 0: token 0 is the first of the largest
        text = continuation(network, tokenizer, PROMPT, 5)
    assert text == ("" if tokenizer.eos_token_id == 0 else tokenizer.decode([0] * 5))


def test_a_sample_is_as_long_as_was_asked_and_seeded():
    network = tiny()
    streams = sample(network, 32 * 64 + 1)
    assert len(streams) == 64 and {len(s) for s in streams} == {64}
    assert {s[0] for s in streams} == {network.config.bos_token_id}
    assert sample(network, 1) == streams[:32] and sample(network, 1, seed=1) != streams[:32]


def test_a_sample_follows_the_distribution_of_the_network():
    """The first token after BOS, over many streams, within the error of its counts."""
    network, streams = tiny(), sample(tiny(), 32 * 64 * 8)
    with torch.no_grad():
        p = network(torch.tensor([[0]])).logits[0, -1].softmax(-1).numpy()
    counts = torch.bincount(torch.tensor([s[1] for s in streams]), minlength=len(p)).numpy()
    assert (abs(counts / len(streams) - p) < 4 * (p * (1 - p) / len(streams)) ** 0.5 + 2 / len(streams)).all()


def test_stories_are_what_stands_between_the_ends():
    tokenizer = load_tokenizer(TRAINED[0])
    tokens = tokenizer("One.")["input_ids"] + tokenizer("Two")["input_ids"]
    assert documents_of([tokens], tokenizer) == ["One.", "Two"]
