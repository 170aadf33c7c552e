"use strict";
// Every table of records: sorted by a click on a heading, filtered by words, a hundred rows at a time, and
// without the columns in which no row that is left has a value.
for (const box of document.querySelectorAll(".records")) {
  const {columns, rows} = JSON.parse(box.querySelector("script[type='application/json']").textContent);
  for (const row of rows) while (row.length < columns.length) row.push(null); // which were left out for brevity
  const body = box.querySelector("tbody"), headings = [...box.querySelectorAll("th")];
  const count = box.querySelector(".count"), more = box.querySelector(".more"), filter = box.querySelector("input");
  const texts = rows.map(row => row.join(" ").toLowerCase());
  let left = rows.map((_, i) => i), shown = 100;

  const draw = () => {
    const empty = columns.map((_, k) => left.length > 0 && left.every(i => rows[i][k] === null));
    headings.forEach((heading, k) => { heading.hidden = empty[k]; });
    body.replaceChildren(...left.slice(0, shown).map(i => {
      const line = document.createElement("tr");
      rows[i].forEach((value, k) => {
        const cell = document.createElement("td");
        cell.textContent = value === null ? "" : value;
        if (typeof value === "number") cell.className = "number";
        if (value === "differs") line.className = "differs";
        cell.hidden = empty[k];
        line.append(cell);
      });
      return line;
    }));
    const some = Math.min(shown, left.length);
    count.textContent = some < left.length
      ? `The first ${some} of ${left.length.toLocaleString("en")} rows.` : some === 1 ? "1 row." : `${some.toLocaleString("en")} rows.`;
    more.hidden = some >= left.length;
  };

  const order = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en");
  headings.forEach((heading, k) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach(other => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      left.sort((i, j) => {
        const a = rows[i][k], b = rows[j][k];
        if (a === null || b === null) return (a === null) - (b === null) || i - j; // what is missing comes last
        return (down ? order(b, a) : order(a, b)) || i - j;
      });
      draw();
    });
  });

  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    left = rows.map((_, i) => i).filter(i => words.every(word => texts[i].includes(word)));
    headings.forEach(heading => heading.removeAttribute("aria-sort"));
    shown = 100;
    draw();
  });
  more.addEventListener("click", () => { shown += 100; draw(); });

  box.querySelector(".save").addEventListener("click", () => {
    const quoted = value => value === null ? "" : `"${String(value).replaceAll('"', '""')}"`;
    const lines = [columns, ...left.map(i => rows[i])].map(row => row.map(quoted).join(","));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\r\n") + "\r\n"], {type: "text/csv"}));
    link.download = `${box.id}.csv`;
    link.click();
    URL.revokeObjectURL(link.href);
  });
  box.querySelectorAll(".tools").forEach(tool => { tool.hidden = false; });
  draw();
}
