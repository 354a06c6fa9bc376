// Sort, search and filter the table of claims. Without this the whole table stands.
(() => {
  const table = document.getElementById("ledger");
  if (!table) return;
  const form = document.getElementById("filters"), count = document.getElementById("count");
  const body = table.tBodies[0], rows = [...body.rows];
  const text = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const asked = (name) => form.elements[name].value;

  const filter = () => {
    const words = asked("words").toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const fits =
        (!asked("source") || row.dataset.source === asked("source")) &&
        (!asked("verdict") || row.dataset.verdict === asked("verdict")) &&
        (!asked("subject") || row.dataset.subjects.split(" ").includes(asked("subject"))) &&
        words.every((word) => text.get(row).includes(word));
      row.hidden = !fits;
      shown += fits;
    }
    count.textContent = `${shown} of ${rows.length} claims`;
  };

  const sort = (header) => {
    const index = header.cellIndex, down = header.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => row.cells[index].dataset.key ?? row.cells[index].textContent.trim();
    const order = new Intl.Collator("en", { numeric: true });
    const ranked = rows.map((row) => [key(row), row]).sort(([a], [b]) => {
      if (!a !== !b) return a ? -1 : 1; // nothing to sort by comes last, either way
      const x = Number(a), y = Number(b);
      const by = Number.isNaN(x) || Number.isNaN(y) ? order.compare(a, b) : x - y;
      return down ? -by : by;
    });
    body.append(...ranked.map(([, row]) => row));
  };

  const reveal = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target?.hidden) return;
    form.reset();
    filter();
    target.scrollIntoView();
  };

  for (const header of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sort(header));
    header.append(button);
  }
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  addEventListener("hashchange", reveal);
  form.hidden = false;
  filter();
  reveal();
})();
