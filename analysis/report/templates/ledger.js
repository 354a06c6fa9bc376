// Sort, search and filter the table of claims; the filters stand in the address, as #claims?source=wang2017&verdict=off.
// Without this the whole table stands.
(() => {
  const table = document.getElementById("ledger");
  if (!table) return;
  const form = document.getElementById("filters"), count = document.getElementById("count");
  const none = document.getElementById("no-claims");
  const body = table.tBodies[0], rows = [...body.rows];
  const text = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const names = ["words", "source", "subject", "verdict"];
  const first = { source: form.querySelector("[data-first]")?.value ?? "" }; // the paper, where it is there
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
    none.hidden = shown > 0;
  };

  const write = () => {
    const state = new URLSearchParams();
    for (const name of names) if (asked(name) !== (first[name] ?? "")) state.set(name, asked(name));
    history.replaceState(null, "", `#claims${state.size ? `?${state}` : ""}`);
  };

  const set = (state) => {
    for (const name of names) form.elements[name].value = state.get(name) ?? first[name] ?? "";
    for (const name of names) if (form.elements[name].selectedIndex < 0) form.elements[name].value = ""; // no such option
    filter();
  };

  const showAll = () => {
    set(new URLSearchParams(names.map((name) => [name, ""])));
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

  // What the address asks for: filters, or a row that the filters must not hide.
  const follow = () => {
    const hash = location.hash.slice(1), at = hash.indexOf("?");
    if (at >= 0 && hash.slice(0, at) === "claims") {
      set(new URLSearchParams(hash.slice(at + 1)));
      form.scrollIntoView();
      return;
    }
    let target = null;
    try {
      target = document.getElementById(decodeURIComponent(hash));
    } catch {} // no address of ours
    if (!target?.hidden || !body.contains(target)) return;
    showAll();
    target.scrollIntoView();
  };

  for (const header of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sort(header));
    header.append(button);
  }
  form.addEventListener("input", () => (filter(), write()));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => (event.preventDefault(), showAll(), write()));
  none.querySelector("button").addEventListener("click", () => (showAll(), write(), form.elements.words.focus()));
  addEventListener("hashchange", follow);
  form.hidden = false;
  set(new URLSearchParams());
  follow();
})();
