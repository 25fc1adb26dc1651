import pytest

from aavs_jax.methods.aavs.config import AAVSConfig
from aavs_jax.methods.parts.sizes import SwinConfig


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
        ({"backbone": {"drop_path_rate": 1.0}}, "drop_path_rate .* not 1.0"),
        ({"backbone": {"drop_path_rate": -0.1}}, "drop_path_rate .* not -0.1"),
        (
            {"backbone": {"drop_path_schedule": "rising"}},
            "drop_path_schedule must be 'constant' or 'linear', not 'rising'",
        ),
        (
            {"backbone": {"drop_path_branches": "mlp"}},
            "drop_path_branches must be 'attention' or 'both', not 'mlp'",
        ),
    ],
)
def test_mistakes_are_named(values, named):
    with pytest.raises(ValueError, match=named):
        AAVSConfig.from_dict(values)
