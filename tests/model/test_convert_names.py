"""Public names become ours one by one, and what is not known is refused."""

import pytest
import torch

from madtp.errors import InputError
from madtp.model.convert_names import bare, kinds_of, map_blip_keys, map_vision_keys


def test_names() -> None:
    one = torch.ones(1)
    query = "text_encoder.encoder.layer.3.attention.self.query.weight"
    names = {
        "visual_encoder.blocks.10.attn.proj.bias": "vision_model.encoder.layers.10.self_attn.projection.bias",
        "visual_encoder.blocks.0.norm2.weight": "vision_model.encoder.layers.0.layer_norm2.weight",
        "visual_encoder.pos_embed": "vision_model.embeddings.position_embedding",
        "visual_encoder.img_query_model.q_map.0.bias": "madtp_guidance.vision_map.bias",
        "space_dict": "madtp_guidance.semantic_tokens",
        query: query,
    }
    state, info = map_blip_keys(dict.fromkeys(names, one), "vqa")
    assert set(state) == set(names.values())
    assert info.tensors == len(names)
    assert set(map_vision_keys(dict.fromkeys([*names, "cls_head.0.weight"], one))) == set(list(names.values())[:5])
    for left_out in (
        "visual_encoder_m.blocks.0.norm1.weight",
        "text_proj_m.bias",
        "temp",
        "image_queue",
        "ptr_queue",
        "text_encoder.embeddings.position_ids",
    ):
        assert map_blip_keys({left_out: one}, "vqa")[1].dropped == (left_out,)
        assert map_blip_keys({left_out: one}, "vqa")[0] == {}
    for strange in (
        "model.visual_encoder.cls_token",
        "visual_encoder.blocks.0.attn.extra.weight",
        "visual_encoder.blocks.0.norm3.weight",
        "xvisual_encoder.cls_token",
        "visual_encoder.cls_token.more",
        "vision_proj.weight",
        "itm_head.weight",
        "text_encoder.pooler.dense.weight",
        "temperature",
    ):
        with pytest.raises(InputError, match=f"unknown tensors: 1 \\({strange}\\)"):
            map_blip_keys({strange: one}, "vqa")


def test_a_text_map_is_refused() -> None:
    name = "text_encoder.encoder.txt_query_model.q_map.0.weight"
    with pytest.raises(InputError, match=r"maps text tokens.*txt_query_model"):
        map_blip_keys({name: torch.ones(3, 2)}, "vqa")


def test_tied_tensors_come_once_and_must_agree() -> None:
    copy, source = "text_decoder.cls.predictions.decoder.bias", "text_decoder.cls.predictions.bias"
    one = torch.ones(3)
    assert set(map_blip_keys({copy: one, source: one}, "vqa")[0]) == {source}
    assert set(map_blip_keys({copy: one}, "vqa")[0]) == {source}
    with pytest.raises(InputError, match="differ"):
        map_blip_keys({copy: one, source: 2 * one}, "vqa")


def test_kinds_of() -> None:
    text, decoder, heads = "text_encoder.a", "text_decoder.a", ["vision_proj.a", "text_proj.a", "itm_head.a"]
    common = ["visual_encoder.a", "space_dict", "temp", "visual_encoder_m.a", "text_encoder_m.a", "image_queue"]
    for names, kinds in [
        ([text, decoder], ("vqa",)),
        ([text, "cls_head.0.a"], ("reasoning",)),
        ([decoder], ("caption",)),
        ([text, *heads], ("retrieval",)),
        ([text, decoder, *heads], ("vqa", "caption", "retrieval")),
        ([text, decoder, "itm_head.a"], ("vqa", "caption")),
        ([text], ()),
        ([], ()),
        ([*heads], ()),
        ([text, decoder, "cls_head.0.a"], ()),
        (["visual.proj", "transformer.a"], ("clip",)),
    ]:
        assert kinds_of([*common, *names]) == kinds, names


def test_bare() -> None:
    one = torch.ones(1)
    assert bare({"module.a": one, "module.module.b": one}).keys() == {"a", "module.b"}
    assert bare({"module.a": one, "b": one}).keys() == {"module.a", "b"}
    assert bare({}) == {}
