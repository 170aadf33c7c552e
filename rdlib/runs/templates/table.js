// Every table of records: sorted by a click on a heading, filtered by words, of which a number is a whole cell, and by what
// rows have in common, a hundred rows at a time, and without the columns in which no row that is left has a value.  The
// address keeps it.
const FACETS = ["notebook", "group", "layer", "method", "quantity", "verdict"], MOST = 400; // values of a list
for (const box of document.querySelectorAll(".records")) {
  const {columns, rows} = JSON.parse(box.querySelector("script[type='application/json']").textContent);
  for (const row of rows) while (row.length < columns.length) row.push(null); // which were left out for brevity
  const body = box.querySelector("tbody"), headings = [...box.querySelectorAll("th")];
  const count = box.querySelector(".count"), more = box.querySelector(".more"), filter = box.querySelector("input");
  const found = (value, word) => typeof value === "number" ? String(value) === word : value !== null && value.toLowerCase().includes(word);
  const order = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en");
  let left = [], shown = 100, sort = "", lists = {};

  for (const name of FACETS) {
    const k = columns.indexOf(name), values = new Set(rows.map(row => row[k]));
    values.delete(null);
    if (k < 0 || values.size < 2 || values.size > MOST) continue;
    const label = document.createElement("label"), list = document.createElement("select");
    list.append(new Option("all", ""), ...[...values].sort(order).map(value => new Option(value, value)));
    list.addEventListener("change", () => choose());
    label.append(`${name}: `, list);
    filter.parentElement.before(label);
    lists[name] = list;
  }

  const draw = () => {
    const empty = columns.map((_, k) => left.length > 0 && left.every(i => rows[i][k] === null));
    headings.forEach((heading, k) => {
      heading.hidden = empty[k];
      heading.classList.toggle("number", left.some(i => typeof rows[i][k] === "number"));
    });
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

  const choose = (keep = true) => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = Object.entries(lists).filter(([, list]) => list.value !== "");
    left = rows.map((_, i) => i).filter(i => words.every(word => rows[i].some(value => found(value, word)))
      && chosen.every(([name, list]) => String(rows[i][columns.indexOf(name)]) === list.value));
    const k = columns.indexOf(sort.replace(/^-/, "")), down = sort.startsWith("-");
    headings.forEach(heading => heading.removeAttribute("aria-sort"));
    if (k >= 0) {
      headings[k].setAttribute("aria-sort", down ? "descending" : "ascending");
      left.sort((i, j) => {
        const a = rows[i][k], b = rows[j][k];
        if (a === null || b === null) return (a === null) - (b === null) || i - j; // what is missing comes last
        return (down ? order(b, a) : order(a, b)) || i - j;
      });
    }
    shown = 100;
    draw();
    const state = new URLSearchParams([["filter", filter.value], ["sort", sort], ...chosen.map(([n, l]) => [n, l.value])]);
    for (const name of ["filter", "sort"]) if (!state.get(name)) state.delete(name);
    if (keep) history.replaceState(null, "", `#${box.id}${String(state) && "?"}${state}`);
  };

  const restore = () => {
    const [id, state] = location.hash.slice(1).split("?");
    if (id !== box.id || !state) return false;
    const given = new URLSearchParams(state);
    filter.value = given.get("filter") ?? "";
    sort = given.get("sort") ?? "";
    for (const [name, list] of Object.entries(lists)) list.value = given.get(name) ?? "";
    choose(false);
    box.scrollIntoView();
    return true;
  };

  headings.forEach((heading, k) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      sort = heading.getAttribute("aria-sort") === "ascending" ? `-${columns[k]}` : columns[k];
      choose();
    });
  });
  filter.addEventListener("input", () => choose());
  more.addEventListener("click", () => { shown += 100; draw(); });
  window.addEventListener("hashchange", restore);

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
  if (!restore()) choose(false);
}
