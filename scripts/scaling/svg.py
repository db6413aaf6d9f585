"""Line diagrams as SVG, readable on light and dark pages."""

import math

STYLE = """
.back{fill:#fff}.text{fill:#1f2328}.soft{fill:#59636e}.grid{stroke:#d1d9e0}.band{fill:#d1242f;opacity:.09}
.c0{stroke:#0969da}.c1{stroke:#bc4c00}.c2{stroke:#1a7f37}.c3{stroke:#8250df}.c4{stroke:#bf3989}
@media (prefers-color-scheme:dark){.back{fill:#0d1117}.text{fill:#e6edf3}.soft{fill:#9198a1}.grid{stroke:#30363d}
.band{fill:#ff7b72;opacity:.14}.c0{stroke:#58a6ff}.c1{stroke:#f0883e}.c2{stroke:#3fb950}.c3{stroke:#bc8cff}.c4{stroke:#f778ba}}
text{font:12px system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}.title{font-size:14px;font-weight:600}
.line{fill:none;stroke-width:2;stroke-linejoin:round}.grid{stroke-width:1}
"""
DASHES = ("", "7 4", "2 3", "10 3 2 3", "4 2")


def panel(top, title, curves, x, y, x_log=False, band=None, height=190):
    """One diagram: x and y are (title, lowest, highest, ticks with their labels)."""
    left, width = 74, 650
    (x_title, x_low, x_high, x_ticks), (y_title, y_low, y_high, y_ticks) = x, y
    scale = math.log10 if x_log else float

    def across(value):
        return left + width * (scale(value) - scale(x_low)) / (scale(x_high) - scale(x_low))

    def down(value):
        return top + height * (1 - (min(max(value, y_low), y_high) - y_low) / (y_high - y_low))

    out = [f'<text class="text title" x="{left}" y="{top - 34}">{title}</text>']
    if band:
        out.append(f'<rect class="band" x="{across(band[0]):.1f}" y="{top}" height="{height}" '
                   f'width="{across(band[1]) - across(band[0]):.1f}"/>')
    for value, label in y_ticks:
        out.append(f'<line class="grid" x1="{left}" x2="{left + width}" y1="{down(value):.1f}" y2="{down(value):.1f}"/>'
                   f'<text class="soft" text-anchor="end" x="{left - 8}" y="{down(value) + 4:.1f}">{label}</text>')
    for value, label in x_ticks:
        out.append(f'<line class="grid" x1="{across(value):.1f}" x2="{across(value):.1f}" y1="{top}" y2="{top + height}"/>'
                   f'<text class="soft" text-anchor="middle" x="{across(value):.1f}" y="{top + height + 17}">{label}</text>')
    out.append(f'<text class="soft" text-anchor="end" x="{left + width}" y="{top + height + 34}">{x_title}</text>')
    out.append(f'<text class="soft" text-anchor="middle" transform="translate(16 {top + height / 2}) rotate(-90)">{y_title}</text>')
    key = left
    for number, (name, points) in enumerate(curves):
        dash = f' stroke-dasharray="{DASHES[number]}"' if DASHES[number] else ""
        line, last = [], -9.0
        for at, value in points:
            if x_low <= at <= x_high and across(at) - last >= 1.5:
                last = across(at)
                line.append(f"{last:.1f},{down(value):.1f}")
        line = " ".join(line)
        out.append(f'<polyline class="line c{number}"{dash} points="{line}"/>')
        out.append(f'<line class="line c{number}"{dash} x1="{key}" x2="{key + 26}" y1="{top - 15}" y2="{top - 15}"/>'
                   f'<text class="text" x="{key + 32}" y="{top - 11}">{name}</text>')
        key += 52 + 6.6 * len(name)
    return "\n".join(out)


def picture(path, about, height, panels):
    path.parent.mkdir(exist_ok=True)
    text = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" role="img" aria-label="{about}">\n'
            f"<style>{STYLE}</style>\n"
            f'<rect class="back" width="760" height="{height}" rx="6"/>\n' + "\n".join(panels) + "\n</svg>\n")
    path.write_text(text, encoding="utf-8")


def ticks(highest, step, label="{:,.0f}"):
    return [(value, label.format(value)) for value in range(0, int(highest) + 1, int(step))]
