"""The house: a file imports only from floors below its own, and says what it is in its name."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "gradtap"

#: From the ground up; what is not listed is on the floor of its folder's name. Files of a floor may import each other
#: where they are listed together.
FLOORS = [
    ["errors", "tap", "types", "html_table"],
    ["graph", "targets", "files", "fork_server", "locking"],
    [
        "results",
        "program",
        "batching",
        "asking",
        "differentiate",
        "vectors",
        "products",
        "jacobians",
        "second_order",
        "patching",
        "staged",
        "maps",
        "rules",
        "attributing",
        "predictions",
        "taplist",
        "listing",
        "showing",
    ],
    [
        "attribution",
        "activation_maximisation",
        "curvature",
        "attacks",
        "receptive",
        "concepts",
        "flow",
        "evaluate",
    ],
    ["dataset"],
    ["plot", "report", "app", "cli", "demo", "__main__"],
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
FILES = sorted(SOURCE.rglob("*.py"))


def module(path: Path) -> str:
    return ".".join(["gradtap", *path.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__")


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [
                f"{node.module}.{alias.name}" if node.module == "gradtap" else node.module for alias in node.names
            ]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_down(path):
    own = room(module(path))
    if own == "":
        return  # the package's own __init__ names what is public
    assert own in FLOOR, f"{path} has no floor"
    for name in imports(path):
        if name.startswith("gradtap.") and room(name) != "__version__":
            assert FLOOR[room(name)] <= FLOOR[own], f"{path.name} (floor {FLOOR[own]}) imports {name}"


def test_methods_do_not_import_each_other():
    methods = FLOORS[3]
    for path in FILES:
        own = room(module(path))
        if own in methods:
            others = [n for n in imports(path) if n.startswith("gradtap.") and room(n) in methods and room(n) != own]
            assert not others, f"{path.name} imports {others}"


def test_private_parts_of_keras_and_tensorflow_stand_in_one_file_each():
    for path in FILES:
        for name in imports(path):
            assert not name.startswith("keras.src") or path.name == "keras_internals.py", path
            assert not name.startswith("tensorflow.python") or path.name == "surgery.py", path


def test_only_faces_print_and_only_they_read_the_command_line():
    for path in FILES:
        if FLOOR.get(room(module(path)), 0) == 5:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"), path
            assert not (isinstance(node, ast.Attribute) and node.attr == "argv"), path


def test_names_say_something_and_files_can_be_held_in_mind():
    public = {path.stem for path in FILES} & {
        "gradients",
        "activations",
        "trace",
        "taps",
        "patch",
        "jacobian",
        "forget",
        "visualise",
    }
    assert public == set(), "a module with the name of a public function would be bound over it"
    for path in FILES:
        assert path.stem not in {"utils", "util", "helpers", "helper", "base", "common", "misc"}
        lines = path.read_text().splitlines()
        assert len(lines) <= 400, f"{path} has {len(lines)} lines"
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.Assert), f"{path}:{node.lineno} asserts"
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 90, f"{path}: {node.name} is too long"
