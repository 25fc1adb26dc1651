"""Who may import whom (the rules of the house), and what nobody may import."""

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("aavs_jax", "configs", "data_pipelines")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
# Load and compute as public repositories do, for comparison, and are to need torch only when they
# are called.
PUBLIC_WAYS = {
    ROOT / "data_pipelines" / "benchmark" / "public_loader.py": {"torch"},
    ROOT / "aavs_jax" / "benchmark" / "torch_network.py": {"torch", "transformers"},
    ROOT / "aavs_jax" / "benchmark" / "torch_side.py": {"torch"},
}
# The import rules: room -> the rooms and files it may import, of both packages. A room is a folder;
# what lies in it may import the rest of it. Nobody imports a verb but `main` and `schedule`.
FACTS = {"data_pipelines.facts", "data_pipelines.errors"}
PREPARED = {"data_pipelines.prepared", *FACTS}
NUMPY_WORLD = {"data_pipelines.loader", "data_pipelines.loading", "data_pipelines.media", *PREPARED}
METHODS = {"aavs_jax.methods", "aavs_jax.errors"}
# What a method that builds on no other is made of.
OWN = {
    *(f"aavs_jax.methods.{name}" for name in ("parts", "objectives", "method", "rows")),
    *("aavs_jax.methods.functional", "aavs_jax.methods.encoders", "data_pipelines.loading"),
}
GROUND = {"aavs_jax.run", "aavs_jax.state", *METHODS, "data_pipelines.errors"}
RULES = {
    "configs": {"configs", "aavs_jax.methods"},
    "data_pipelines.errors": set(),
    "data_pipelines.facts": set(),
    "data_pipelines.media": FACTS,
    "data_pipelines.pages": {"data_pipelines.media"},
    "data_pipelines.reading": {"data_pipelines.media", *FACTS},
    "data_pipelines.prepared": {"data_pipelines.media", *FACTS},
    "data_pipelines.preparing": {
        *("data_pipelines.reading", "data_pipelines.media", "data_pipelines.pages"),
        *PREPARED,
    },
    "data_pipelines.loading": {"data_pipelines.media", *PREPARED},
    "data_pipelines.making": {
        *("data_pipelines.reading", "data_pipelines.media", "data_pipelines.preparing"),
        *PREPARED,
    },
    "data_pipelines.prepare": {
        *("data_pipelines.reading", "data_pipelines.media", "data_pipelines.preparing"),
        *PREPARED,
    },
    "data_pipelines.loader": NUMPY_WORLD,
    "data_pipelines.make": {"data_pipelines.making", "data_pipelines.media", *FACTS},
    "aavs_jax.errors": set(),
    "aavs_jax.methods.parts": set(),
    "aavs_jax.methods.objectives": {"aavs_jax.methods.parts"},
    **{f"aavs_jax.methods.{name}": OWN for name in ("aavs", "tpavi", "avsegformer", "cavp")},
    "aavs_jax.run": {"aavs_jax.errors", "data_pipelines.errors"},
    "aavs_jax.state": {"aavs_jax.run", "aavs_jax.errors", "data_pipelines.errors"},
    "aavs_jax.plan": {*GROUND, "configs", "data_pipelines.making", *NUMPY_WORLD},
    "aavs_jax.weights": {*GROUND, "aavs_jax.plan", "data_pipelines.prepared"},
    "aavs_jax.inputs": {
        *GROUND,
        *("aavs_jax.plan", "aavs_jax.weights"),
        *("data_pipelines.prepare", "data_pipelines.making", *NUMPY_WORLD),
    },
    "aavs_jax.scoring": {*GROUND, "aavs_jax.plan", "aavs_jax.inputs", *NUMPY_WORLD},
    "aavs_jax.report": {
        *("aavs_jax.run", "aavs_jax.plan", "aavs_jax.inputs", "aavs_jax.scoring"),
        *("aavs_jax.errors", "data_pipelines.pages", "data_pipelines.prepared", *FACTS),
    },
    "aavs_jax.prediction": {
        *GROUND,
        *("aavs_jax.weights", "aavs_jax.report.visualize", "aavs_jax.scoring.mask_pictures"),
        *("data_pipelines.loading", "data_pipelines.pages", "data_pipelines.media", *FACTS),
    },
    "aavs_jax.convert": {*GROUND, "aavs_jax.weights"},
    "aavs_jax.compare": {
        *("aavs_jax.plan", "aavs_jax.inputs", "aavs_jax.run", "aavs_jax.scoring"),
        *("aavs_jax.report", "aavs_jax.prediction", "aavs_jax.benchmark", "aavs_jax.errors"),
        *("data_pipelines.pages", "configs", *NUMPY_WORLD),
    },
}


# Rooms that are commands, and who may import them: themselves, and who measures by them.
COMMANDS = {"benchmark": ("benchmark", "compare"), "compare": ("compare",)}


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


def in_house(name: str) -> list[Path]:
    place = ROOT / name
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    assert files, f"nothing at {name}"
    return files


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nobody_imports_tensorflow_or_torch(path):
    heavy = tops(path) & {"tensorflow", "torch", "transformers", "clu"}
    assert heavy == PUBLIC_WAYS.get(path, set())
    assert not heavy & {name.split(".")[0] for name in names_at_the_top(path)}


@pytest.mark.parametrize("room", RULES)
def test_a_room_imports_only_what_it_may(room):
    place = room.replace(".", "/")
    for path in in_house(place if (ROOT / place).is_dir() else f"{place}.py"):
        for name in imports(path):
            if name.split(".")[0] in PACKAGES and not within(name, room):
                assert any(within(name, allowed) for allowed in RULES[room]), f"{path}: {name}"


def within(name: str, room: str) -> bool:
    """Whether a module, or a name in it, is of a room; the package itself is of none."""
    return name in room.split(".")[:1] or f"{name}.".startswith(f"{room}.") or room.startswith(name)


@pytest.mark.parametrize(
    ("place", "forbidden"),
    [
        ("data_pipelines", {"jax", "flax", "optax", "orbax"}),
        ("aavs_jax/methods", {"ml_collections", "orbax"}),
        ("aavs_jax/methods/parts", {"optax"}),
        ("aavs_jax/methods/objectives", {"flax"}),
        ("aavs_jax/scoring/metrics", {"flax", "ml_collections", "orbax"}),
        ("aavs_jax/report", {"flax", "optax"}),
    ],
)
def test_libraries_stay_where_they_belong(place, forbidden):
    for path in in_house(place):
        assert not tops(path) & forbidden, path


def test_every_room_has_its_rule():
    verbs = {"main", "schedule", "train", "evaluate", "predict", "export", "checks", "__init__"}
    for package in ("aavs_jax", "data_pipelines"):
        for path in in_house(package):
            parts = path.relative_to(ROOT).with_suffix("").parts
            known = any(".".join(parts[:n]) in RULES for n in range(2, len(parts) + 1))
            free = (
                parts[1] in verbs or parts[1] == "benchmark" or parts[:2] == ("aavs_jax", "methods")
            )
            assert known or free, path


def test_rooms_import_no_verbs():
    """They are called, and call nobody who calls them."""
    verbs = {
        f"aavs_jax.{name}"
        for name in ("main", "schedule", "train", "evaluate", "predict", "export", "checks")
    }
    callers = {"main": verbs, "evaluate": {"aavs_jax.checks", "aavs_jax.schedule"}}
    callers |= {"schedule": {"aavs_jax.checks", "aavs_jax.train"}}
    for path in FILES:
        called = {name for name in imports(path) if name in verbs}
        allowed = callers.get(path.stem, set()) if path.parent == ROOT / "aavs_jax" else set()
        assert called <= allowed, path
        for room, users in COMMANDS.items():
            if path.parent.name not in users:
                start = f"aavs_jax.{room}"
                assert not {name for name in imports(path) if name.startswith(start)}, path


def test_no_file_is_long():
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 300, path


def test_only_pages_makes_html():
    """Its templates escape every value; code that builds HTML of its own may forget to."""
    for path in FILES:
        if path.parent != ROOT / "data_pipelines" / "pages":
            assert not tops(path) & {"html", "jinja2", "markupsafe"}, path


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


def test_no_function_asks_for_many_things():
    """More than seven parameters only where the others are options of a public function."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef):
                continue
            arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            count = len([a for a in arguments if a.arg not in ("self", "cls")])
            options = len(node.args.defaults) + sum(d is not None for d in node.args.kw_defaults)
            assert count - options <= 7, f"{path}: {node.name}"
            assert count <= 7 or not node.name.startswith("_") or options, f"{path}: {node.name}"


def test_nobody_waits_for_tensorflow_or_torch():
    """Nor do libraries bring them along, where they are installed."""
    program = """
import sys
import aavs_jax.evaluate, aavs_jax.schedule, aavs_jax.prediction.network, data_pipelines.prepare
print(*{"tensorflow", "torch", "transformers"} & set(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not done.stdout.strip()
