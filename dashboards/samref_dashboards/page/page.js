// Charts: one bundle, one config; colours are CSS variables, so a change of scheme needs no redrawing.
const read = (id) => JSON.parse(document.getElementById(id)?.textContent ?? "null");
const config = read("chart-config");
for (const [index, spec] of (read("specs") ?? []).entries()) {
  const place = document.querySelector(`[data-chart="${index}"]`);
  // `ast` interprets expressions: the page's policy forbids eval.
  await window.vegaEmbed(place, spec, { config, renderer: "svg", actions: false, ast: true });
}

// Sorting: the headings are buttons, so the keyboard reaches them. Missing values stay last in both directions.
const value = (row, column) => {
  const cell = row.cells[column];
  const text = cell.dataset.v ?? cell.firstChild?.textContent.trim() ?? "";
  const number = Number(text.replaceAll(",", ""));
  return text === "" || text === "–" ? null : Number.isNaN(number) ? text : number;
};
const compare = (a, b) =>
  typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
for (const button of document.querySelectorAll(".sortable th button")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th");
    const ascending = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const body = heading.closest("table").tBodies[0];
    const rows = [...body.rows].map((row) => [value(row, heading.cellIndex), row]);
    rows.sort(([a], [b]) => (a === null) - (b === null) || (a === null ? 0 : compare(a, b) * (ascending ? 1 : -1)));
    body.append(...rows.map(([, row]) => row));
  });
}

// The dataset filter hides what shows one other dataset: charts, blocks, pictures, and rows of tables that name theirs.
const filter = document.getElementById("data-filter");
const filterBy = (name) => {
  for (const part of document.querySelectorAll("[data-of]")) part.hidden = Boolean(name) && part.dataset.of !== name;
  for (const heading of document.querySelectorAll("th[data-names=data]"))
    for (const row of heading.closest("table").tBodies[0].rows)
      row.hidden = Boolean(name) && row.cells[heading.cellIndex].textContent !== name;
};
if (filter) {
  filter.closest("p").hidden = false;
  filter.addEventListener("change", () => filterBy(filter.value));
  filterBy(filter.value); // a reloaded page keeps what was chosen
}
// Pictures: a click, or Enter, enlarges one; a click, or Escape, closes it.
const enlarged = document.getElementById("enlarged");
for (const picture of document.querySelectorAll(".pictures figure")) {
  const enlarge = () => {
    const copy = picture.cloneNode(true);
    for (const attribute of ["tabindex", "role", "aria-label"]) copy.removeAttribute(attribute);
    for (const image of copy.querySelectorAll("image")) image.removeAttribute("id");
    enlarged.replaceChildren(copy);
    enlarged.showModal();
  };
  picture.addEventListener("click", enlarge);
  picture.addEventListener("keydown", (event) => event.key === "Enter" && enlarge());
}
enlarged?.addEventListener("click", () => enlarged.close());
document.documentElement.dataset.ready = "yes";
