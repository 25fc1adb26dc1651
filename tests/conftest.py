"""Options of the whole test suite."""


def pytest_addoption(parser):
    parser.addoption(
        "--golden",
        action="append",
        default=[],
        metavar="FILE.npz",
        help="check this golden file (repeatable) instead of those found beside and in the repo",
    )
