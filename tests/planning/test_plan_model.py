"""Sizes of models without their weights."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf
from transformers import AutoConfig

from verl_twgrpo.planning import model as planning_model
from verl_twgrpo.planning.model import local_folder, model_sizes


def settings(path, **values):
    return OmegaConf.create(
        {"path": str(path), "lora_rank": 0, "lora_alpha": 16, "target_modules": "all-linear", "exclude_modules": None}
        | values
    )


# parameters as the hub counts them in the safetensors files; the tower's share from the same files
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "hidden", "vocabulary", "parameters", "tower"),
    [
        ("Qwen/Qwen2.5-VL-3B-Instruct", 2048, 151936, 3_754_622_976, 668_684_288),
        ("Qwen/Qwen2.5-VL-7B-Instruct", 3584, 152064, 8_292_166_656, 676_550_144),
    ],
)
def test_the_papers_models_are_known_without_a_download(monkeypatch, name, hidden, vocabulary, parameters, tower):
    monkeypatch.setattr(planning_model, "try_to_load_from_cache", lambda *_: None)
    sizes = model_sizes(settings(name), freeze_vision=True)
    assert (sizes.hidden, sizes.vocabulary, sizes.context, sizes.folder) == (hidden, vocabulary, 128000, None)
    assert (sizes.parameters, sizes.trainable) == (parameters, parameters - tower)
    assert model_sizes(settings(name), freeze_vision=False).trainable == parameters


@pytest.mark.slow
def test_a_checkpoint_on_disk_is_counted_as_it_is(checkpoint):
    from transformers import AutoModelForImageTextToText

    sizes = model_sizes(settings(checkpoint), freeze_vision=True)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    assert sizes.parameters == sum(values.numel() for values in model.parameters())
    assert sizes.trainable == sizes.parameters - sum(values.numel() for values in model.model.visual.parameters())
    assert (sizes.vocabulary, sizes.hidden) == tuple(model.get_output_embeddings().weight.shape)
    assert sizes.folder == checkpoint


def test_lora_trains_its_adapters_only_and_leaves_the_tower_and_the_head_alone(checkpoint):
    rank = 4
    sizes = model_sizes(settings(checkpoint, lora_rank=rank, exclude_modules=".*visual.*"), freeze_vision=True)
    config = AutoConfig.from_pretrained(checkpoint).text_config
    width, mlp, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    # q, k, v, o are square here; gate, up and down are not
    per_layer = 4 * rank * 2 * width + 3 * rank * (width + mlp)
    assert sizes.trainable == layers * per_layer
    assert sizes.parameters == model_sizes(settings(checkpoint), freeze_vision=True).parameters + sizes.trainable


def test_a_hub_name_in_the_local_cache_is_a_folder(monkeypatch, checkpoint):
    monkeypatch.setattr(planning_model, "try_to_load_from_cache", lambda *_: str(checkpoint / "config.json"))
    assert local_folder("somebody/model") == checkpoint
    assert model_sizes(settings("somebody/model"), freeze_vision=False).folder == checkpoint


def test_a_hub_name_that_is_neither_here_nor_known_is_refused(monkeypatch):
    monkeypatch.setattr(planning_model, "try_to_load_from_cache", lambda *_: None)
    with pytest.raises(ValueError, match=r"model\.path=somebody/model: not on this disk, and only Qwen/Qwen2\.5-VL-3B"):
        model_sizes(settings("somebody/model"), freeze_vision=False)


def test_a_folder_whose_config_nobody_knows_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"^actor_rollout_ref\.model\.path=\S+: .*model_type") as refused:
        model_sizes(settings(tmp_path), freeze_vision=False)
    assert "\n" not in str(refused.value)
