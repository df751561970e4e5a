"""House rules that no linter knows. Import direction is import-linter's (pyproject.toml)."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import grimp

PACKAGE = Path(__file__).parents[2] / "shared" / "minichat"
IMPURE = {
    "datetime.now",
    "datetime.utcnow",
    "time.time",
    "uuid.uuid4",
    "uuid4",
    "random.random",
    "os.environ",
    "os.getenv",
    "secrets.randbits",
}
# The edges of a process: where a failure of any kind must become an answer.
PROCESS_EDGES = {
    "cli/findings.py",
    "events/consume.py",
    "http/edge.py",
    "local/schedules.py",
    "local/mappings.py",
    "services/generate.py",
    "services/orphans.py",
    "services/idle_chats.py",
    "services/temporary_chats.py",
}
# The policy is nobody's in particular.
OF_THE_DEPLOYMENT = {"policy_version"}
READS_THE_ENVIRONMENT = {
    "settings.py",
    "tracing.py",
    "local/deployed.py",
    "local/server.py",
    "local/stack.py",
    "local/process.py",
}


@cache
def _parsed() -> dict[str, ast.Module]:
    """Every module of the package by its path."""
    return {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}


def _modules(*layers: str) -> Iterator[tuple[str, ast.Module]]:
    for name, tree in sorted(_parsed().items()):
        if not layers or name.split("/")[0] in layers:
            yield name, tree


def _mentions(tree: ast.Module, names: set[str]) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and ast.unparse(node) in names:
            yield node


def test_domain_and_services_take_time_and_ids_as_arguments() -> None:
    found = [
        f"{name}:{node.lineno} {ast.unparse(node)}"
        for name, tree in _modules("domain", "services")
        for node in _mentions(tree, IMPURE)
    ]
    assert found == []


def test_only_settings_and_the_local_processes_read_the_environment() -> None:
    found = {name for name, tree in _modules() for _ in _mentions(tree, {"os.environ", "os.getenv"})}
    assert found <= READS_THE_ENVIRONMENT


def test_only_process_edges_catch_everything() -> None:
    found = [
        f"{name}:{node.lineno}"
        for name, tree in _modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and name not in PROCESS_EDGES
        if node.type is None or "Exception" in ast.unparse(node.type).strip("()").split(", ")
    ]
    assert found == []


def test_keys_are_built_in_one_module_and_start_with_the_tenant() -> None:
    for name, tree in _modules():
        if name == "storage/keys.py":
            functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
            firsts = {f.name: f.args.args[0].arg for f in functions if f.name not in OF_THE_DEPLOYMENT}
            makers = {name: first for name, first in firsts.items() if first not in ("raw", "pk")}
            assert set(makers.values()) == {"tenant_id"}, makers
        else:  # and taken apart there
            literals = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
            assert not [text for text in literals if text.startswith("T#")], name


def test_only_operators_commands_scan_a_table() -> None:
    found = [
        f"{name}:{node.lineno}"
        for name, tree in _modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "scan" and name != "storage/scan.py"
    ]
    assert found == []


def test_every_public_function_says_what_comes_out() -> None:
    found = [
        f"{name}:{node.lineno} {node.name}"
        for name, tree in _modules("domain", "storage", "services", "providers", "events", "http")
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if not node.name.startswith("_") and ast.get_docstring(node) is None
    ]
    assert found == []


def test_modules_stay_small() -> None:
    long = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if len(path.read_text(encoding="utf-8").splitlines()) > 400
    }
    assert long == set()


def test_the_picture_of_the_layout_is_what_is_imported() -> None:
    guide = (PACKAGE.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawn = {(above, below) for above, below in re.findall(r"^    (\w+)(?:\[.*\])? --> (\w+)$", guide, re.MULTILINE)}
    (roots,) = re.findall(r'roots\["(.*)"\]', guide)
    rooms = {room for arrow in drawn for room in arrow} - {"roots"}
    assert set(roots.split(", ")) | rooms == {path.stem for path in PACKAGE.iterdir() if _is_room(path)} | {"functions"}

    def room_of(module: str) -> str:
        package, _, inner = module.partition(".")
        name = inner.partition(".")[0] if package == "minichat" else package
        return "roots" if name in roots.split(", ") else name

    graph = grimp.build_graph("minichat", "functions")
    imported = {
        (room_of(module), room_of(other))
        for module in graph.modules
        for other in graph.find_modules_directly_imported_by(module)
    }
    imported = {(above, below) for above, below in imported if above != below and above and below}
    assert drawn - imported == set(), "arrows that nothing imports along"
    assert {(above, below) for above, below in imported if below not in _reached(drawn, above)} == set()


def _is_room(path: Path) -> bool:
    return (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").is_file()


def _reached(arrows: set[tuple[str, str]], start: str) -> set[str]:
    below = {to for above, to in arrows if above == start}
    return below.union(*(_reached(arrows, one) for one in below))
