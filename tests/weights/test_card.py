"""Cards are written by us and read from anybody: whatever they say is a card or one sentence."""

import copy
import dataclasses
import json
import time

import pytest

from aavs_jax.errors import UserError
from aavs_jax.weights import card, card_faults
from aavs_jax.weights.card import Card
from aavs_jax.weights.card_method import side_of

BACKBONE = {
    "embed_dim": 8,
    "depths": [1, 1, 2, 1],
    "num_heads": [1, 1, 2, 2],
    "window_size": 3,
    "mlp_ratio": 2.0,
}
AUDIO = {"blocks": [[2], [3, 3]], "fully_connected": [16, 128], "channels": 1}
NETWORKS = {
    "aavs": {"task": "binary", "num_classes": 2, "prior": False, "backbone": BACKBONE},
    "mask2former": {"num_classes": 150, "num_queries": 100, "backbone": BACKBONE},
    "swin": {"backbone": BACKBONE},
    "vggish": {"audio": AUDIO},
    "pvt": {"pvt": {"depths": [1, 1, 2, 1]}},
    "resnet": {"resnet": {"depths": [1, 1, 2, 1], "dilations": [[1], [1], [1, 2], [2, 4]]}},
}
JOINT = ("aavs_joint", "aavs")
DENSE = {"task": "semantic", "num_classes": 71, "prior": False}
NETWORKS["tpavi"] = {**DENSE, "backbone": "pvt", **NETWORKS["pvt"], "window": 5}
NETWORKS["cavp"] = {**DENSE, "aspp_width": 8}
NETWORKS["avsegformer"] = {**DENSE, "backbone": "pvt", **NETWORKS["pvt"], "num_queries": 300}
NETWORKS["aavs_joint"] = {**DENSE, "backbone": BACKBONE, "localise_queries": 5}


def values_of(kind="aavs", /, **changes):
    return json.loads(card.to_json(Card(kind, NETWORKS[kind]))) | changes


def refused(values, match=None) -> str:
    """What the error says of a card of these values, or of this text."""
    text = values if isinstance(values, str | bytes) else json.dumps(values)
    before = time.process_time()
    with pytest.raises(UserError, match=match) as error:
        card.from_json(text, "weights/x/card.json")
    words = str(error.value)
    assert time.process_time() - before < 2
    assert words.startswith("weights/x/card.json ") and "\n" not in words and len(words) < 600
    return words


@pytest.mark.parametrize("kind", card_faults.KINDS)
def test_what_is_written_is_read(kind, tmp_path):
    written = Card(
        kind,
        NETWORKS[kind],
        classes=("a", "b"),
        origin={"of": {"files": [{"name": "x", "bytes": 3}], "format": kind}, "window": 4},
        image_size=384,
        new={"a/b": "drawn"},
        left_over={"steps": "allowed"},
        stored_as={"w": "bfloat16", "v": "float16"},
        huggingface={"id2label": {"0": "a"}},
        digest="0" * 64,
    )
    card.write(tmp_path, written)
    assert card.read(tmp_path) == written


def test_tuples_are_read_as_lists():
    """A phase's card is made of a configuration."""
    written = Card("vggish", {"audio": {"blocks": ((2,), (3, 3)), "fully_connected": (5,)}})
    read = card.from_json(card.to_json(written), "x")
    assert read.network == {"audio": {"blocks": [[2], [3, 3]], "fully_connected": [5]}}


@pytest.mark.parametrize(
    "text",
    ["", "{", "5", "[]", "null", "{}", b"\xff\xfe", "[" * 100_000, '{"a":' * 100_000]
    + ['{"version": "1"}', '{"version": null}', '{"version": ' + "9" * 5000 + "}"],
)
def test_no_cards(text):
    assert "is damaged" in refused(text)


def test_of_a_later_version():
    assert "card version 2;" in refused({"version": 2})
    refused({"version": 10**3000}, "another version")


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Card)])
def test_a_field_that_is_not_there(field):
    values = values_of()
    del values[field]
    refused(values, f"is damaged .it lacks '{field}'")


WRONG = {
    "kind": [None, 5, "foo bar", [], {}],
    "network": [None, 5, [], "abc"],
    "classes": [None, 5, "abc", [1, 2], {"0": "a"}, [["a"]]],
    "origin": [
        *(None, [], 5, "of", {"of": None}, {"of": "of"}, {"of": {"of": [1]}}),
        *({"format": ["a"]}, {"of": {"format": 5}}, {"form": None}, {"prefix": 5}),
        *({"wrapping": []}, {"of": {"without_prefix": 5}}, {"without_prefix": [5]}),
    ],
    "image_size": ["384", 0, -1, 1.5, 10**9, True, [384]],
    "label_size": ["384", 0, -1, 1.5, 10**9, True, [384]],
    "told": [None, 5, [], "soft", {"kind": "grey"}, {"view": "true"}, {"value": "soft"}],
    "new": [None, 5, [], "a", {"a": None}, {"a": {}}],
    "left_over": [None, 5, [], {"a": 5}],
    "stored_as": [None, 5, [], {"a": "foo"}, {"a": "int8"}, {"a": []}, {"a": "float64"}],
    "huggingface": [5, [], "abc"],
    "digest": [None, 5, []],
    "versions": [None, 5, [], {"jax": 5}],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in WRONG.items() for value in values]
)
def test_a_field_of_another_type(field, value):
    assert set(WRONG) == {field.name for field in dataclasses.fields(Card)}
    refused(values_of(**{field: value}), f"is damaged .its '{field}' cannot be")


def test_a_field_that_no_card_has():
    refused(values_of(weights=3), "is damaged .it has 'weights', which no card has")


@pytest.mark.parametrize("field", ["origin", "huggingface"])
def test_values_within_values(field):
    """Whoever copies or prints them goes one call deeper each time."""
    value = {}
    for _ in range(300):
        value = {"of": value, "a": [value]} if len(json.dumps(value)) < 1000 else {"of": value}
    refused(values_of(**{field: value}), f"its '{field}' cannot be")


@pytest.mark.parametrize(
    ("kind", "key"), [(kind, key) for kind, keys in card_faults.REQUIRED.items() for key in keys]
)
def test_a_network_that_lacks_something(kind, key):
    network = {name: value for name, value in NETWORKS[kind].items() if name != key}
    refused(values_of(kind, network=network), f"its network lacks '{key}'")


@pytest.mark.parametrize(
    ("part", "key"),
    [(part, key) for part, keys in card_faults.REQUIRED_WITHIN.items() for key in keys],
)
def test_a_part_that_lacks_something(part, key):
    kind = "swin" if part == "backbone" else "vggish"
    network = copy.deepcopy(NETWORKS[kind])
    del network[part][key]
    refused(values_of(kind, network=network), f"its network lacks '{part}.{key}'")


def test_a_kind_is_a_known_one_or_the_module_of_a_method():
    """Nothing of a stranger's module is imported; it is a name."""
    network = {"task": "binary", "num_classes": 2, "width": [3]}
    found = card.from_json(json.dumps(values_of(kind="my.method", network=network)), "here")
    assert found.describe() == "a network of my.method (2 classes)"
    for kind in ("", "my.method; import os", "a..b", ["aavs"]):
        refused(values_of(kind=kind), "its 'kind' cannot be")


def test_a_kind_of_another_network():
    for kind in card_faults.KINDS:
        for other in card_faults.KINDS:
            # What the joint network has besides AAVS has defaults.
            alike = {kind, other} == {"aavs", "mask2former"} or (kind, other) == JOINT
            if kind != other and not alike:
                refused(values_of(kind, network=NETWORKS[other]), "its network ")
    refused(values_of("swin", network=NETWORKS["swin"] | NETWORKS["vggish"]), "more than 'backb")
    refused(values_of("aavs", network=NETWORKS["mask2former"]), "lacks 'task'")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("backbone", value) for value in (5, None, [], "abc")),
        *(("audio", value) for value in (5, None, [], {"fully_connected": 5})),
        *(("audio", {"fully_connected": [5], "blocks": v}) for v in ([5], [[]], [], ["ab"], "a")),
        ("audio", {"fully_connected": [5], "channels": 3}),
        *(("task", value) for value in ("foo", None, 5, [])),
        *(("num_classes", value) for value in ("2", None, 2.5, 0, -1, 10**12, True, float("nan"))),
        *(("num_queries", value) for value in ([], {}, 10**9)),
        *(("prior", value) for value in (None, 1, "yes")),
        *(("dtype", value) for value in (None, "foo")),
        ("feature_size", 40),
        ("num_heads", 3),
        ("encoder_layers", 1000),
        ("encoder_layers", 10**9),
        ("nonsense", 1),
        ("n" * 100_000, 1),
    ],
)
def test_sizes_that_no_network_has(key, value):
    refused(values_of(network=NETWORKS["aavs"] | {key: value}), "its network cannot be")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("depths", value) for value in ("abc", 5, None, [2, 2], [1, 1, 1, "1"], [0, 1, 1, 1])),
        ("depths", [10**7, 2, 2, 2]),
        ("depths", [100, 100, 100, 2]),
        ("depths", [1] * 100_000),
        *(("num_heads", value) for value in ([3, 3, 3, 3], [0, 1, 1, 1], [1, 1, 1, None])),
        *(("embed_dim", value) for value in (1e12, 10**12, "8", 0)),
        *(("window_size", value) for value in (1e9, 10**9, 0, None)),
        *(("mlp_ratio", value) for value in (1e300, -1, "2", float("inf"), float("nan"), 10**400)),
        *(("patch_size", value) for value in (2, "4")),
        ("nonsense", 1),
    ],
)
def test_sizes_that_no_backbone_has(key, value):
    refused(values_of("swin", network={"backbone": BACKBONE | {key: value}}), "network cannot be")


def test_the_unknown_size_is_named():
    words = refused(values_of("swin", network={"backbone": BACKBONE | {"depth": 1}}))
    assert "'backbone.depth'" in words


def test_sizes_that_are_none_cost_nothing():
    before = time.process_time()
    assert card_faults.fault_of("swin", {"backbone": {"depths": [10**7, 2, 2, 2]}})
    assert card_faults.fault_of("tpavi", {"pvt": {"depths": [10**7, 2, 2, 2]}})
    for kind, layers in (("aavs", 329), ("avsegformer", 379)):
        fault = card_faults.fault_of(kind, {"decoder_layers": 290})
        assert fault == f"it has {layers} layers, and 300 are the most"
    assert time.process_time() - before < 1
    assert all(card_faults.fault_of(kind, network) == "" for kind, network in NETWORKS.items())


@pytest.mark.parametrize(
    ("described", "side"),
    [
        (Card("aavs", {}), 384),
        (Card("tpavi", {}), 224),
        (Card("tpavi", {}, image_size=96), 96),
        (Card("avsegformer", {}), 512),
        (Card("cavp", {"heard": 1}), 224),
        (Card("cavp", {"heard": 3}), 512),
        (Card("a.stranger", {}), 384),
    ],
)
def test_frames_are_of_the_size_that_the_weights_learnt_from(described, side):
    assert side_of(described) == side


def test_sizes_that_cannot_be_are_a_sentence():
    with pytest.raises(UserError, match="AAVS.* cannot be: num_heads"):
        side_of(Card("aavs", {"task": "binary", "num_classes": 2, "prior": False, "num_heads": 7}))
