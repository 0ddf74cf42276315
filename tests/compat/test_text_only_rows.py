"""Rows without a picture in a vision-language batch."""

from __future__ import annotations

import pytest
import torch
import verl  # noqa: F401 - loads the plugin


@pytest.fixture
def model(checkpoints):
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(checkpoints["untied"])


def test_they_pass_a_vision_language_model(model):
    from verl.models.transformers import qwen2_vl

    ids = torch.arange(3, 9)[None]
    embeds, _ = qwen2_vl._get_input_embeds(model.model, ids)
    assert torch.equal(embeds, model.get_input_embeddings()(ids))


@pytest.mark.upstream_bug
def test_verl_takes_the_mean_of_an_output_object(model):
    from verl.models.transformers import qwen2_vl

    with pytest.raises(AttributeError, match="mean"):
        qwen2_vl._get_input_embeds.__wrapped__(model.model, torch.arange(3, 9)[None])
