"""Looking at a page with axe-core, in a browser that has loaded it."""

from importlib.util import find_spec
from pathlib import Path

FORBIDDEN = ("serious", "critical")

# What a page repeats a thousand times is looked at once. Formulas become boxes of their size:
# MathJax says them in MathML, out of sight, by its own rules. Of code, each colour stays once for
# each background. Of a figure that moves, the frame that is seen stays.
PRUNE = """
document.querySelectorAll('details').forEach(box => box.open = true);
document.querySelectorAll('.toggle-hidden button.toggle-button').forEach(fold => fold.click());
const still = document.createElement('style');  // no colour on its way to another one
still.textContent = '* {transition: none !important; animation: none !important}';
document.head.append(still);
const formulas = [...document.querySelectorAll('mjx-container')];
const sizes = formulas.map(formula => formula.getBoundingClientRect());
formulas.forEach((formula, i) => {
    const box = document.createElement('span');
    box.style.cssText =
        `display: inline-block; width: ${sizes[i].width}px; height: ${sizes[i].height}px`;
    formula.replaceChildren(box);
});
const seen = new Set();
document.querySelectorAll('pre').forEach(block => {
    const where = block.parentElement.parentElement.className;
    const kinds = [...block.querySelectorAll('span[class]')].map(token => where + token.className);
    if (kinds.length && kinds.every(kind => seen.has(kind))) block.textContent = block.textContent;
    kinds.forEach(kind => seen.add(kind));
});
document.querySelectorAll('figure svg[role=img]').forEach(picture => picture.replaceChildren());
"""

RUN = """
const done = arguments[arguments.length - 1];
const [theme, coloursOnly] = arguments;
const root = document.documentElement;
root.dataset.mode = root.dataset.theme = theme;
axe.run({include: [['html']], exclude: [['mjx-container']]}, {
    resultTypes: ['violations'], elementRef: false, iframes: false, preload: false,
    ...(coloursOnly ? {runOnly: {type: 'rule', values: ['color-contrast']}} : {}),
}).then(found => done({
    checked: found.passes.length + found.violations.length,
    violations: found.violations.map(rule => [rule.impact, rule.id, rule.nodes.length,
        rule.nodes.slice(0, 3).map(node => [node.target.join(' '), node.html.slice(0, 150),
            node.failureSummary.slice(0, 300)])]),
}), error => done({error: String(error)}));
"""


def prepare(browser) -> None:
    """Opens what is folded, prunes the page and gives it axe."""
    script = Path(find_spec("axe_core_python").origin).parent / "axe.min.js"
    browser.execute_script(PRUNE)
    browser.execute_script(script.read_text("utf8"))


def violations(browser, theme: str, colours_only: bool = False) -> list:
    """What stands between a reader and the page, in a theme: (impact, rule, how often, where)."""
    browser.set_script_timeout(300)
    found = browser.execute_async_script(RUN, theme, colours_only)
    assert "error" not in found, found["error"]
    assert found["checked"], "axe found nothing to look at"
    return [violation for violation in found["violations"] if violation[0] in FORBIDDEN]
