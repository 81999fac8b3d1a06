"""Components are thin: they import the library inside, call one step, and name what they put out."""

import ast
import importlib
import importlib.util

import pytest

from coda.steps.declarations import STEPS

NAMES = tuple(STEPS)


def test_there_is_one_file_for_each_step(root):
    files = {path.stem for path in (root / "components").glob("*.py")} - {"__init__", "image"}
    assert files == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_step_declares_is_there(name, root):
    """A module of another name would be imported by no warm worker, and nobody would see it."""
    step = STEPS[name]
    modules = [item.partition(":")[0] for item in (*step.imports, *filter(None, [step.processes]))]
    own = [module for module in modules if module.startswith("coda.")]
    assert [module for module in own if not (root / f"{module.replace('.', '/')}.py").is_file()] == []
    # a library's own packages are not imported here: that would take as long as the step does
    assert [module for module in modules if importlib.util.find_spec(module.partition(".")[0]) is None] == []
    assert len(set(step.imports)) == len(step.imports)
    if step.processes:
        module, _, function = step.processes.partition(":")
        assert f"def {function}(" in (root / f"{module.replace('.', '/')}.py").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_component_runs_alone_from_its_text(name):
    """KFP ships the text of the function: names from outside it would be missing in the step."""
    component = getattr(importlib.import_module(f"components.{name}"), name)
    text = component.component_spec.implementation.container.command[-1]
    tree = ast.parse(text)
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef))
    assert function.name == name
    nodes = list(ast.walk(function))
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    known = {alias.asname or alias.name for node in imports for alias in node.names}
    known |= {argument.arg for node in functions for argument in (*node.args.args, *node.args.kwonlyargs)}
    known |= {node.name for node in functions}
    known |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    used = {node.id for part in function.body for node in ast.walk(part) if isinstance(node, ast.Name)}
    assert used - known <= {"dsl", "str", "list", "len", "open", "tuple"}


@pytest.mark.parametrize("name", NAMES)
def test_component_is_thin_and_records_its_run(name, root):
    text = (root / "components" / f"{name}.py").read_text()
    assert len(text.splitlines()) <= 80
    # the last step fails nothing and is no step of the work: it writes the run's end, not one of its own
    recorded = "with closing(run_id):" if name == "conclude" else f'with running("{name}", run_id, settings'
    assert recorded in text
    assert text.count("as step\n") == 1


@pytest.mark.parametrize("name", NAMES)
def test_step_has_the_arguments_the_component_gives(name, root):
    """The call into the library, checked against the function it calls without running it."""
    import inspect

    tree = ast.parse((root / "components" / f"{name}.py").read_text())
    source = next(
        node for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and any(alias.asname == "step" for alias in node.names)
    )  # fmt: skip
    step = getattr(importlib.import_module(source.module), next(a.name for a in source.names if a.asname == "step"))
    call = next(
        node for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "step"
    )  # fmt: skip
    inspect.signature(step).bind(*call.args, **{keyword.arg: keyword for keyword in call.keywords})
