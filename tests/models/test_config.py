import pytest

from aavs_jax.models.config import AAVSConfig, SwinConfig


def test_from_dict_nests_and_freezes():
    config = AAVSConfig.from_dict(
        {"num_queries": 7, "backbone": {"depths": [1, 1, 2, 1]}, "audio": {"blocks": [[8], [9]]}}
    )
    assert config.backbone == SwinConfig(depths=(1, 1, 2, 1))
    assert config.audio.blocks == ((8,), (9,))
    assert config.num_queries == 7 and config.feature_size == 256
    hash(config)  # it is part of a static jit argument


@pytest.mark.parametrize(
    "values, named",
    [
        ({"querys": 3}, "querys"),
        ({"backbone": {"depth": [1]}}, r"backbone\.depth"),
        ({"task": "segment"}, "segment"),
        ({"dtype": "float16"}, "float16"),
        ({"feature_size": 40}, "40"),
        ({"num_heads": 7}, "7"),
        ({"backbone": {"embed_dim": 30}}, "30"),
        ({"backbone": {"depths": [2, 2]}}, "four"),
    ],
)
def test_mistakes_are_named(values, named):
    with pytest.raises(ValueError, match=named):
        AAVSConfig.from_dict(values)
