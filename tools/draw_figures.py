"""Draw `docs/figures/`: which tokens see which under either mask, and where a strategy cuts the network."""

from __future__ import annotations

from html import escape
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs" / "figures"
TOKENS = ("pay", "the", "fee", "today", "please")
SEEN, UNSEEN, READ, FROZEN, INK = "#4c78a8", "#eef1f5", "#e45756", "#c9d3df", "#222222"
CELL = 44


def figures() -> dict[str, str]:
    """Each file's name with its content."""
    return {"last_token.svg": _last_token(), "cut.svg": _cut()}


def _last_token() -> str:
    causal = _mask(130, "causal mask (GPT-2)", lambda row, column: column <= row, read="last")
    full = _mask(480, "every token sees all (BERT)", lambda row, column: True, read="first")
    return _svg(760, 370, "Which tokens each token sees: causal and full attention", [*causal, *full])


def _mask(left: int, title: str, sees, read: str) -> list[str]:
    top, side = 80, CELL * len(TOKENS)
    row_read = 0 if read == "first" else len(TOKENS) - 1
    parts = [_text(left + side / 2, 28, title, size=17, weight="bold")]
    for column, token in enumerate(TOKENS):
        parts.append(_text(left + (column + 0.5) * CELL, top - 12, token))
    for row, token in enumerate(TOKENS):
        y = top + row * CELL
        parts.append(_text(left - 10, y + CELL * 0.6, token, anchor="end"))
        for column in range(len(TOKENS)):
            colour = SEEN if sees(row, column) else UNSEEN
            parts.append(_box(left + column * CELL + 2, y + 2, CELL - 4, CELL - 4, colour))
    parts.append(_frame(left - 3, top + row_read * CELL - 3, side + 6, CELL + 6))
    parts.append(_text(left + side / 2, top + side + 30, f"the {read} token has seen the whole text", colour=READ))
    return [*parts, _text(left + side / 2, top + side + 54, "row: who looks; column: at whom", size=13)]


def _cut() -> str:
    stages = ("embeddings", "block 1", "...", "block 11", "block 12", "final norm", "head")
    width, top, parts = 96, 70, []
    for number, stage in enumerate(stages):
        x, frozen = 20 + number * (width + 10), number < 4
        parts.append(_box(x, top, width, 56, FROZEN if frozen else SEEN))
        parts.append(_text(x + width / 2, top + 34, stage, colour=INK if frozen else "#ffffff"))
    cut = 20 + 4 * (width + 10) - 5
    parts.append(f'<line x1="{cut}" y1="40" x2="{cut}" y2="160" stroke="{READ}" stroke-width="3"/>')
    parts.append(_text(cut / 2, 40, "prefix: frozen, computed once for each text", size=16))
    parts.append(_text(cut + 165, 40, "suffix: trained", size=16))
    parts.append(_text(cut, 180, "the cut of last_block: features are stored here", colour=READ))
    return _svg(770, 200, "Where last_block cuts the network", parts)


def _svg(width: int, height: int, title: str, parts: list[str]) -> str:
    # A ground of its own: pages may be dark.
    ground = f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">'
    return "\n".join([opening, f"<title>{escape(title)}</title>", ground, *parts, "</svg>", ""])


def _text(
    x: float, y: float, text: str, size: int = 14, anchor: str = "middle", colour: str = INK, weight: str = "normal"
) -> str:
    style = f'font-family="sans-serif" font-size="{size}" font-weight="{weight}" fill="{colour}"'
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" {style}>{escape(text)}</text>'


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" fill="{colour}"/>'


def _frame(x: float, y: float, width: float, height: float) -> str:
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    return f'<rect {place} rx="6" fill="none" stroke="{READ}" stroke-width="3"/>'


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, content in figures().items():
        (FOLDER / name).write_text(content, encoding="utf-8")
