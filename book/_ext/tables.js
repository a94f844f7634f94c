/* Tables of the class `sortable`: buttons in the heads sort, the fields above the table filter.

   A column is numeric if every cell that is not empty begins with a number ("3.1e-4 ± 2e-5",
   "< 5", "12 min") or consists of stars. <td data-sort="3.1e-4"> says what to sort by where the
   text does not (a formula, a power of ten). Empty cells and dashes come last, either way.

   Filters, by what a column holds: a menu of its words if they are few (so for stars; a cell
   "proof, code" has two), "at most" for few different whole numbers, and one field that searches all
   cells. <th data-filter="choice | most | none"> decides otherwise; the class `no-filter` leaves
   all of them out. A table with cells over several rows or columns stays as it is. */
"use strict";
(() => {
  const FEW = 12; // so many different values may a menu have
  const EMPTY = /^[-–—\s]*$/;
  const NUMBER = /^[<>≤≥≈~]?\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)(?!\s*[·×]|[\w.^⁰¹²³⁴-⁹⁻])/i;

  /** The number that a text begins with, stars counted; null for an empty one, NaN for words. */
  function number(text) {
    if (EMPTY.test(text)) return null;
    if (/^★+$/.test(text)) return text.length;
    const plain = text.replace(/\u2212/g, "-").replace(/(\d)[,\u2009\u202f\u00a0](?=\d{3})/g, "$1");
    return Number(NUMBER.exec(plain)?.[1] ?? NaN);
  }

  /** What a column holds; read once, before MathJax turns formulas into something else. */
  function describe(head, cells) {
    const texts = cells.map((cell) => (cell.dataset.sort ?? cell.textContent).trim());
    const numbers = texts.map(number);
    const stars = texts.every((text) => /^★*$/.test(text));
    const numeric = numbers.some((x) => x !== null) && !numbers.some(Number.isNaN);
    const compare = numeric
      ? (a, b) => number(a) - number(b)
      : (a, b) => a.localeCompare(b, "en", { numeric: true });
    const words = texts.map((text) =>
      (numeric ? [text] : text.split(/,\s+/)).filter((word) => !EMPTY.test(word)),
    );
    const different = [...new Set(words.flat())].sort(compare);
    const few = different.length > 1 && different.length <= FEW && different.length < cells.length;
    const counts = numeric && !stars && different.every((text) => /^\d+$/.test(text));
    const fit = counts ? "most" : numeric && !stars ? "none" : "choice";
    const kind = head.dataset.filter ?? (few ? fit : "none");
    return { name: head.textContent.trim(), texts, numbers, compare, words, different, kind };
  }

  const make = (tag, properties, ...children) => {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  };

  /** A button in each head: up, down, and back to the order of the page. Returns what puts the
      rows in order, hidden ones last (so that the stripes stay even), and what forgets the order. */
  function sorter({ heads, rows, columns, body, report }) {
    let column = -1;
    let down = false;
    const order = () => {
      const { texts, compare } = columns[column] ?? {};
      const place = rows.map((_, i) => i);
      if (texts) {
        place.sort((a, b) => {
          const [emptyA, emptyB] = [EMPTY.test(texts[a]), EMPTY.test(texts[b])];
          if (emptyA || emptyB) return emptyA - emptyB;
          return compare(texts[a], texts[b]) * (down ? -1 : 1);
        });
      }
      const ordered = place.map((i) => rows[i]);
      body.append(...ordered.filter((row) => !row.hidden), ...ordered.filter((row) => row.hidden));
      const direction = down ? "descending" : "ascending";
      heads.forEach((head, i) => {
        if (i === column) head.setAttribute("aria-sort", direction);
        else head.removeAttribute("aria-sort");
      });
      report(texts ? `, by ${columns[column].name}, ${direction}` : "");
    };
    heads.forEach((head, i) => {
      if (!columns[i].name) return; // a corner
      const button = make("button", { type: "button", className: "sortable-button" });
      button.append(...head.childNodes);
      button.addEventListener("click", () => {
        const third = column === i && down;
        down = column === i && !down;
        column = third ? -1 : i;
        order();
      });
      head.append(button);
    });
    const unsort = () => {
      column = -1;
      down = false;
    };
    return { order, unsort };
  }

  /** The fields above the table. */
  function filters({ bar, rows, columns, index, order, unsort }) {
    const fields = [];
    const apply = () => {
      rows.forEach((row, i) => {
        row.hidden = !fields.every(([control, keeps]) => keeps(control.value, i));
      });
      order();
    };
    const add = (name, control, keeps) => {
      control.id = `sortable-${index}-${fields.length}`;
      control.autocomplete = "off"; // a browser that comes back would fill it in and not filter
      for (const event of ["input", "change"]) control.addEventListener(event, apply);
      fields.push([control, keeps]);
      bar.append(make("label", { htmlFor: control.id }, name, control));
    };
    const whole = rows.map((row) => row.textContent.toLowerCase());
    add("search", make("input", { type: "search" }), (value, i) =>
      value.toLowerCase().split(/\s+/).every((word) => whole[i].includes(word)),
    );
    for (const { name, numbers, words, different, kind } of columns) {
      if (kind !== "choice" && kind !== "most") continue;
      const label = (word) => (kind === "most" ? `at most ${word}` : word);
      const menu = make("select", {}, new Option("all", ""));
      menu.append(...different.map((word) => new Option(label(word), word)));
      add(name, menu, (value, i) => {
        if (!value) return true;
        if (kind === "choice") return words[i].includes(value);
        return numbers[i] !== null && numbers[i] <= number(value);
      });
    }
    const reset = make("button", { type: "button", textContent: "show all" });
    reset.addEventListener("click", () => {
      for (const [control] of fields) control.value = "";
      unsort();
      apply();
    });
    bar.append(reset);
  }

  function enhance(table, index) {
    const [body] = table.tBodies;
    if (table.tHead?.rows.length !== 1 || table.tBodies.length !== 1) return;
    const heads = [...table.tHead.rows[0].cells];
    const rows = [...body.rows];
    const single = (cell) => cell.rowSpan === 1 && cell.colSpan === 1;
    const even = rows.every((row) => row.cells.length === heads.length);
    if (rows.length < 2 || !even) return;
    if (![...heads, ...rows.flatMap((row) => [...row.cells])].every(single)) return;

    const columns = heads.map((head, i) => describe(head, rows.map((row) => row.cells[i])));
    const bar = make("div", { className: "sortable-bar" });
    const status = make("output", { className: "sortable-status" });
    const report = (how) => {
      const shown = rows.filter((row) => !row.hidden).length;
      status.textContent = `${shown} of ${rows.length} rows${how}`;
    };
    const { order, unsort } = sorter({ heads, rows, columns, body, report });
    if (!table.classList.contains("no-filter")) {
      filters({ bar, rows, columns, index, order, unsort });
    }
    bar.append(status);

    let box = table.parentElement; // what scrolls where the table is wide; the bar stands still
    if (!box.matches(".pst-scrollable-table-container")) {
      box = make("div", { className: "sortable-scroll" });
      table.before(box);
      box.append(table);
    }
    box.before(bar);
    report("");
  }

  document.querySelectorAll("table.sortable").forEach(enhance);
})();
