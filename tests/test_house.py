"""Who may import whom (the rules of the house), and what nobody may import."""

import ast
import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("aavs_jax", "configs", "data_pipelines")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
# Loads as public repositories do, for comparison, and is to need torch only when it is called.
PUBLIC_WAY = ROOT / "data_pipelines" / "benchmark" / "public_loader.py"
# What the side of the loader may know of the rest of data_pipelines.
LOADING = {
    *("audio", "augment", "augment_pictures", "avsbench", "embeddings", "errors", "lengths"),
    *("media", "partners", "request", "source", "transforms"),
}


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere, also inside functions, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def names_at_the_top(path: Path) -> set[str]:
    """Modules that are imported as soon as a file is."""
    nodes = ast.parse(path.read_text()).body
    plain = {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    return plain | {n.module for n in nodes if isinstance(n, ast.ImportFrom)}


def own(path: Path) -> set[str]:
    """Modules of aavs_jax that a file imports, one level deep."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("aavs_jax.")}


def in_house(name: str) -> list[Path]:
    place = ROOT / name
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    assert files, f"nothing at {name}"
    return files


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nobody_imports_tensorflow_or_torch(path):
    heavy = tops(path) & {"tensorflow", "torch", "transformers", "clu"}
    if path == PUBLIC_WAY:
        assert heavy == {"torch"}
        assert "torch" not in {name.split(".")[0] for name in names_at_the_top(path)}
    else:
        assert not heavy


@pytest.mark.parametrize(
    ("place", "forbidden"),
    [
        ("data_pipelines", {"jax", "flax", "optax", "orbax", "aavs_jax", "configs"}),
        ("aavs_jax/models", {"optax", "ml_collections", "orbax", "data_pipelines"}),
        (
            "aavs_jax/methods/objectives/set_prediction.py",
            {"flax", "ml_collections", "orbax", "data_pipelines"},
        ),
        (
            "aavs_jax/methods/objectives/matching.py",
            {"flax", "ml_collections", "orbax", "data_pipelines"},
        ),
        ("aavs_jax/metrics", {"flax", "ml_collections", "orbax", "data_pipelines"}),
        ("aavs_jax/report/visualize.py", {"jax", "flax", "optax"}),
        ("aavs_jax/report/page.py", {"jax", "flax", "optax"}),
    ],
)
def test_rooms_do_not_reach_into_others(place, forbidden):
    for path in in_house(place):
        assert not tops(path) & forbidden, path


@pytest.mark.parametrize(
    ("place", "allowed"),
    [
        ("media", {"audio", "avsbench", "errors", "media"}),
        ("layouts", {"avsbench", "errors", "layouts", "media", "vpo"}),
        (
            "preparing",
            {"audio", "avs_clips", "avsbench", "errors", "layouts", "media", "pages", "preparing"},
        ),
        ("pages", {"media"}),
        ("loader.py", LOADING),
        ("transforms.py", LOADING),
        ("augment.py", LOADING),
        ("augment_pictures.py", LOADING),
    ],
)
def test_rooms_of_data_pipelines(place, allowed):
    """Files flow one way: layouts -> media -> preparing -> avs_clips -> source -> loader."""
    for path in in_house(f"data_pipelines/{place}"):
        found = {n.split(".")[1] for n in imports(path) if n.startswith("data_pipelines.")}
        assert found <= allowed, path


def test_only_pages_makes_html():
    """Its templates escape every value; code that builds HTML of its own may forget to."""
    for path in FILES:
        if path.parent != ROOT / "data_pipelines" / "pages":
            assert not tops(path) & {"html", "jinja2", "markupsafe"}, path


def test_configs_import_only_ml_collections_and_each_other():
    for path in in_house("configs"):
        assert tops(path) <= {"ml_collections", "configs"}, path


def test_the_network_does_not_know_who_trains_it():
    for path in in_house("aavs_jax/models"):
        assert own(path) <= {"models"}, path
    for name in ("losses.py", "matching.py", "metrics", "point_sampling.py"):
        for path in in_house(f"aavs_jax/{name}"):
            assert "models" not in own(path), path


def test_verbs_are_imported_late_by_main():
    """`--help` and a mistyped flag must not wait for jax."""
    tree = ast.parse((ROOT / "aavs_jax" / "main.py").read_text())
    late = {"jax", "aavs_jax", "data_pipelines"}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
            assert not {name.split(".")[0] for name in names} & late


def test_every_package_file_is_found_by_setup():
    for path in FILES:
        assert (path.parent / "__init__.py").exists(), path


def test_every_template_is_installed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    data = setup["options.package_data"]
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("*.html")]
    found += [path for package in PACKAGES for path in (ROOT / package).rglob("*.css")]
    assert len(found) >= 4
    for path in found:
        package = ".".join(path.parent.relative_to(ROOT).parts)
        assert path.name in re.split(r"[,\s]+", data.get(package, "")), path


def test_what_the_readmes_commands_write_is_ignored_by_git():
    """At the top of a checkout, and there only: folders of code may be called so as well."""
    ignored = (ROOT / ".gitignore").read_text().split()
    written = re.findall(r"--(?:out|workdir)[= ]([a-z]\w*)", (ROOT / "README.md").read_text())
    assert {"weights", "stamps", "runs"} <= set(written)
    for folder in {*written, "prepared"}:
        assert f"/{folder}/" in ignored or (folder == "runs" and "runs/" in ignored)
