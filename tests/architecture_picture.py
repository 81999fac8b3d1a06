"""Draws docs/architecture.svg: the packages of the program in their layers, and which imports which.

Everything comes from the code: layers from the import contracts in pyproject.toml, names and phrases from the packages'
docstrings, arrows from their imports. Run ``python -m tests.architecture_picture`` after a package comes or goes.
"""

import ast
import textwrap
import tomllib
from graphlib import TopologicalSorter
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "architecture.svg"

WIDTH, BOX_HEIGHT, ROW = 1080, 46, 78
WIDEST, GAP = 330, 24
CONTRACT = "layers of the library"


def layers(root: Path = ROOT) -> list[list[str]]:
    """Return the packages and modules of each layer, the highest first."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (found,) = [contract["layers"] for contract in contracts if contract["name"] == CONTRACT]
    return [row.replace(":", "|").replace(" ", "").split("|") for row in found]


def imports(names: list[str], root: Path = ROOT) -> dict[str, set[str]]:
    """Return which of these packages and modules each of them imports."""

    def owner(module: str) -> str | None:
        return next((name for name in names if module == name or module.startswith(f"{name}.")), None)

    found: dict[str, set[str]] = {name: set() for name in names}
    for path in sorted((root / "coda").rglob("*.py")):
        importer = owner(".".join(path.relative_to(root).with_suffix("").parts))
        for node in ast.walk(ast.parse(path.read_bytes())) if importer else ():
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            found[importer] |= {name for name in map(owner, modules) if name not in (None, importer)}
    return found


def necessary(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the arrows that no other path of arrows says (the transitive reduction of a graph without cycles)."""
    reached: dict[str, set[str]] = {}
    for name in TopologicalSorter(edges).static_order():
        reached[name] = edges[name].union(*(reached[below] for below in edges[name]))
    return {
        name: {below for below in own if not any(below in reached[other] for other in own - {below})}
        for name, own in edges.items()
    }


def phrase(name: str, width: float, root: Path = ROOT) -> list[str]:
    """Return a package's first sentence in at most two lines, shortened where it is longer."""
    path = root.joinpath(*name.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    first = (ast.get_docstring(ast.parse(file.read_bytes())) or "").split("\n\n")[0].replace("\n", " ")
    text = first.partition(". ")[0].partition(" (")[0].rstrip(".").replace("`", "")
    return textwrap.wrap(text, width / 5.2, max_lines=2, placeholder=" ...")


def picture(root: Path = ROOT) -> str:
    """Return the SVG."""
    rows = layers(root)
    wide = {name: min(WIDEST, WIDTH / len(row) - GAP) for row in rows for name in row}
    places = {
        name: ((column + 0.5) * WIDTH / len(row) - wide[name] / 2, 10 + number * ROW)
        for number, row in enumerate(rows)
        for column, name in enumerate(row)
    }
    height = 10 + len(rows) * ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
        "<title>Packages of coda in their layers; an arrow points to what is imported</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#667085"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    everything = imports(list(places), root)
    downwards = {name: {it for it in own if places[it][1] > places[name][1]} for name, own in everything.items()}
    beside = {name: {it for it in own if places[it][1] == places[name][1]} for name, own in everything.items()}
    for name, own in necessary(downwards).items():
        x, y = places[name]
        for below in sorted(own | beside[name], key=lambda it: places[it]):
            to_x, to_y = places[below]
            if to_y == y:
                # two rooms of one layer that know each other
                start_x, end_x = (x + wide[name], to_x) if to_x > x else (x, to_x + wide[below])
                level = y + BOX_HEIGHT / 2 + (6 if to_x > x else -6)
                parts.append(
                    f'<path d="M{start_x:.0f} {level:.0f}H{end_x:.0f}" stroke="#98a2b3" stroke-width="1.2" '
                    f'marker-end="url(#tip)"><title>{name} imports {below}</title></path>'
                )
                continue
            # arrows between boxes that stand above each other leave their middle line, so that none is hidden
            far = to_y - y > 2 * ROW
            bend = 0 if to_y - y <= ROW else (0.6 * WIDEST if to_x >= x else -0.6 * WIDEST)
            start, end = (x + wide[name] / 2, y + BOX_HEIGHT), (to_x + wide[below] / 2, to_y)
            parts.append(
                f'<path d="M{start[0]:.0f} {start[1]:.0f}C{start[0] + bend:.0f} {start[1] + ROW / 2:.0f} '
                f'{end[0] + bend:.0f} {end[1] - ROW / 2:.0f} {end[0]:.0f} {end[1]:.0f}" fill="none" '
                f'stroke="{"#d0d5dd" if far else "#667085"}" stroke-width="1.2" marker-end="url(#tip)">'
                f"<title>{name} imports {below}</title></path>"
            )
    for name, (x, y) in places.items():
        lines = phrase(name, wide[name], root)
        parts.append(
            f'<rect x="{x:.0f}" y="{y}" width="{wide[name]:.0f}" height="{BOX_HEIGHT}" rx="6" fill="#f2f6fc" '
            'stroke="#3b6ea5"/>'
            f'<text x="{x + 10:.0f}" y="{y + 16}" font-size="13" font-weight="bold" fill="#1b2330">{name}</text>'
        )
        parts += [
            f'<text x="{x + 10:.0f}" y="{y + 28 + 11 * place}" font-size="10" fill="#475467">{escape(line)}</text>'
            for place, line in enumerate(lines)
        ]
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(picture())
