"""The notebooks of launch/: well formed, and each runs from its first cell to its last.

They run at the size `tiny`, which stands in place of their first cell, in a folder of their own.
"""

import ast
import importlib
import importlib.util
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NAMES = ("quickstart", "your_clip", "stamps", "avsbench_and_public_weights")
BADGE = "https://colab.research.google.com/github/OWNER/aavs_jax/blob/main/launch/{}.ipynb"
# What some cells show, as HTML.
SHOWN = {
    "quickstart": {
        "train": "Understand: validation",
        "report": "audio controls",
        "see": "data:image/jpeg",
        "silence": "data:image/jpeg",
    },
    "your_clip": {"player": "aavs_jax.predict", "listen": "data:image/jpeg"},
    "stamps": {"train": "Localise: validation", "report": "audio controls", "clip": "video"},
    "avsbench_and_public_weights": {"report": "cavp", "recipe": "audio controls"},
}
LONGEST = 400  # seconds that a cell may take
OF_THE_PROJECT = ("aavs_jax", "configs", "data_pipelines")


def read(name: str):
    return nbformat.read(ROOT / "launch" / f"{name}.ipynb", as_version=4)


def code(notebook) -> dict[str, str]:
    """id -> what is written in each cell of code."""
    return {cell.id: cell.source for cell in notebook.cells if cell.cell_type == "code"}


def plain(source: str) -> ast.Module:
    """A cell as Python, where IPython's ! and % have become calls."""
    return ast.parse(TransformerManager().transform_cell(source))


def test_these_are_all():
    assert {path.stem for path in (ROOT / "launch").glob("*.ipynb")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_stripped_and_opens_in_colab(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.keys() == {"accelerator", "kernelspec", "language_info"}
    for cell in notebook.cells:
        assert not cell.metadata
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
    assert (
        notebook.cells[0].cell_type == "markdown" and BADGE.format(name) in notebook.cells[0].source
    )
    ids = list(code(notebook))
    assert ids[:2] == ["size", "setup"]


def test_all_are_set_up_alike():
    assert len({code(read(name))["setup"] for name in NAMES}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_the_first_cell_says_the_size_and_the_others_know_it(name):
    cells = code(read(name))
    (chosen,) = ast.parse(cells["size"]).body
    assert chosen.targets[0].id == "SIZE"
    sizes = re.findall(r'"(\w+)"', cells["size"])
    assert "tiny" in sizes and len(sizes) == len(set(sizes)) >= 2
    title = read(name).cells[0].source
    assert all(f"`{size}`" in title for size in sizes)


@pytest.mark.parametrize("name", NAMES)
def test_what_it_names_is_there(name):
    """Modules and what is imported from them, commands, configs, links."""
    for source in code(read(name)).values():
        for node in ast.walk(plain(source)):
            names = [alias.name for alias in getattr(node, "names", ())]
            if isinstance(node, ast.ImportFrom):
                if node.module.split(".")[0] in OF_THE_PROJECT:
                    module = importlib.import_module(node.module)
                    assert all(hasattr(module, each) for each in names), names
            elif isinstance(node, ast.Import):
                for each in names:
                    assert importlib.util.find_spec(each), each
        for module in re.findall(r"python -m ([\w.]+)", source):
            assert importlib.util.find_spec(module), module
        for config in re.findall(r"configs/\w+\.py", source):
            assert (ROOT / config).is_file(), config
    for cell in read(name).cells:
        for link in re.findall(r"\]\((?!http)([^)#]+)", cell.source):
            assert (ROOT / "launch" / link).exists(), link


@pytest.mark.parametrize("name", NAMES)
def test_it_uses_no_name_before_it_is_made(name):
    """From top to bottom: a cell needs nothing of a cell below it."""
    made = set(dir(__builtins__)) if not isinstance(__builtins__, dict) else set(__builtins__)
    for source in code(read(name)).values():
        tree = plain(source)
        nodes = list(ast.walk(tree))
        here = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        here |= {n.name for n in nodes if isinstance(n, ast.FunctionDef)}
        here |= {n.arg for n in nodes if isinstance(n, ast.arg)}
        here |= {
            (alias.asname or alias.name).split(".")[0]
            for n in nodes
            if isinstance(n, ast.Import | ast.ImportFrom)
            for alias in n.names
        }
        used = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        # IPython puts values in place of {name} in commands.
        used |= {each for text in _commands(tree) for each in re.findall(r"\{(\w+)", text)}
        made |= here
        assert used <= made | {"get_ipython"}, used - made


def _commands(tree: ast.Module) -> list[str]:
    """What IPython is given to run."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        argument.value
        for call in calls
        if ast.unparse(call.func).startswith("get_ipython().")
        for argument in call.args
    ]


# ---- all of them


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, packages):
    """The project's folders, which notebooks of one checkout share, and Debian's packages."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in OF_THE_PROJECT:
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(packages, folder / "runs" / "packages")
    (folder / "launch").mkdir()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_from_top_to_bottom(name, checkout, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(checkout / "cache"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.setenv("IPYTHONDIR", str(checkout / "ipython"))
    notebook = read(name)
    (size,) = [cell for cell in notebook.cells if cell.id == "size"]
    size.source = 'SIZE = "tiny"'
    place = {"metadata": {"path": str(checkout / "launch")}}
    NotebookClient(notebook, timeout=LONGEST, kernel_name="python3", resources=place).execute()
    # Of a command that fails IPython says nothing.
    for cell in notebook.cells:
        if cell.cell_type == "code":
            said = "".join(each.text for each in cell.outputs if each.output_type == "stream")
            assert not re.search(r"^(error:|Traceback)", said, re.MULTILINE), said
    shown = {cell.id: _html(cell) for cell in notebook.cells if cell.cell_type == "code"}
    for cell, words in SHOWN[name].items():
        assert words in shown[cell], cell


def _html(cell) -> str:
    return "".join(each.data.get("text/html", "") for each in cell.outputs if "data" in each)
