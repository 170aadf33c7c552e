"""Export: a folder that transformers loads, exactly the weights of the plan, there whole or not at all."""

import json

import numpy as np
import pytest
import torch
from networks import one_torch_thread, random_windows, saved, tiny  # noqa: F401
from sources import one_thread  # noqa: F401
from transformers import AutoModelForCausalLM, AutoTokenizer

from rdlib.allocation.export import QUANTIZED, export
from rdlib.allocation.plan import Plan, from_spec, uniform_plan
from rdlib.engine import second_moments, walk
from rdlib.models.checkpoint import Checkpoint
from rdlib.models.hub import EMBEDDED
from rdlib.network.network import load_network, replaced
from rdlib.quantizers import GPTQ, MinMax, PerGroup, Uniform, UniformAsymmetric

GRID = UniformAsymmetric(3, PerGroup(size=128))


def test_transformers_loads_the_weights_of_the_plan(tmp_path):
    """The logits of the folder are those of the network with Ŵ in place of W, to the last bit."""
    checkpoint = Checkpoint(EMBEDDED)
    plan = uniform_plan(GRID, checkpoint)
    rates = export(checkpoint, plan, tmp_path / "model")
    ids = torch.arange(1, 40)[None]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="auto").eval()
    assert loaded.dtype == torch.float32
    network = load_network(checkpoint, "cpu")
    tensors = walk(checkpoint, [plan.variant()], keep=["plan"]).tensors["plan"]
    with torch.inference_mode(), replaced(network, tensors):
        assert torch.equal(loaded(ids).logits, network(ids).logits)
    text = "Once upon a time"
    ours, original = (AutoTokenizer.from_pretrained(f) for f in (tmp_path / "model", EMBEDDED))
    assert ours(text)["input_ids"] == original(text)["input_ids"]
    assert set(rates) == {w.name for w in checkpoint.weights if w.layer >= 0}


def test_the_plan_and_the_true_rates_are_beside_the_weights(tmp_path):
    checkpoint = saved(tiny(), tmp_path / "original")
    windows = random_windows(20)
    moments = second_moments(checkpoint, windows)
    plan = uniform_plan(GPTQ(Uniform(3)), checkpoint)
    rates = export(checkpoint, plan, tmp_path / "model", windows)
    told = json.loads((tmp_path / "model" / QUANTIZED).read_text())
    codes = {n: q.encode(checkpoint.tensor(n), moments[n]) for n, q in plan.quantizers.items()}
    assert told["rates"] == rates == {name: code.rate for name, code in codes.items()}
    weights = sum(code.weights for code in codes.values())
    assert told["rate"] == pytest.approx(sum(code.bits for code in codes.values()) / weights)
    assert Plan({name: from_spec(spec) for name, spec in told["plan"].items()}) == plan


def test_what_the_plan_does_not_name_stays(tmp_path):
    checkpoint = saved(tiny(tied=False), tmp_path / "original")
    name = checkpoint.layer(1)[0].name
    export(checkpoint, Plan({name: Uniform(2)}), tmp_path / "model")
    exported = Checkpoint(tmp_path / "model")
    assert exported.names == checkpoint.names
    for other in checkpoint.names:
        same = np.array_equal(exported.stored(other), checkpoint.stored(other))
        assert same == (other != name)
    quantizer = Uniform(2)
    assert np.array_equal(exported.tensor(name), quantizer.decode(quantizer.encode(checkpoint.tensor(name))))


def test_a_folder_is_not_written_over(tmp_path):
    checkpoint = saved(tiny(), tmp_path / "original")
    (tmp_path / "model").mkdir()
    with pytest.raises(ValueError, match="model exists already"):
        export(checkpoint, uniform_plan(Uniform(3), checkpoint), tmp_path / "model")
    assert list((tmp_path / "model").iterdir()) == []


def test_nothing_is_left_where_it_fails(tmp_path, monkeypatch):
    checkpoint = saved(tiny(), tmp_path / "original")
    before = set(tmp_path.iterdir())
    with pytest.raises(ValueError, match="changes nothing.weight, which original does not have"):
        export(checkpoint, Plan({"nothing.weight": Uniform(3)}), tmp_path / "model")
    monkeypatch.setattr("rdlib.files.os.replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(checkpoint, uniform_plan(Uniform(3, clipping=MinMax()), checkpoint), tmp_path / "model")
    assert set(tmp_path.iterdir()) == before


def test_a_quantized_checkpoint_is_refused(tmp_path):
    checkpoint = saved(tiny(), tmp_path / "original")
    config = checkpoint.config | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    (tmp_path / "original" / "config.json").write_text(json.dumps(config))
    checkpoint = Checkpoint(tmp_path / "original")
    with pytest.raises(ValueError, match="original is itself quantized"):
        export(checkpoint, uniform_plan(Uniform(3), checkpoint), tmp_path / "model")
