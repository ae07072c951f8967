/* The analyses' tables: sorted, searched and paged by DataTables, filtered by the page's filters. */
"use strict";

(() => {
  const BASE = "base";
  const KEYS = { method: "method", seed: "seed", dataset: "dataset", split: "split", milestone: "fraction" };
  const REFERENCE = new Set(["method", "seed", "milestone"]);
  const opened = new Map();

  const valuesOf = ({ values, levels }) =>
    levels ? values.map((place) => (place === null ? null : levels[place])) : values;

  function rowsOf(columns) {
    const lists = columns.map(valuesOf);
    return (lists[0] ?? []).map((_, row) => lists.map((list) => list[row]));
  }

  // Milestones come whole, for the filters.
  const number = (value, type) =>
    type === "display" && value !== null && !Number.isInteger(value) ? Number(value.toPrecision(5)) : value;

  // Columns are of the page's own making, cells hold users' words: both are texts, never markup.
  function columnOf({ name, levels }) {
    const head = document.createElement("span");
    head.textContent = name;
    const render = levels ? DataTable.render.text() : number;
    return { title: head.innerHTML, className: levels ? "" : "number", type: levels ? "string" : "num", render };
  }

  // What the base did stands beside every run.
  function isShown(row, places) {
    const isBase = row[places.method] === BASE;
    return Object.entries(places).every(
      ([key, place]) => place < 0 || (isBase && REFERENCE.has(key)) || filters.passes(key, row[place]),
    );
  }

  function placesOf(columns) {
    const names = columns.map((column) => column.name);
    return Object.fromEntries(Object.entries(KEYS).map(([key, name]) => [key, names.indexOf(name)]));
  }

  async function open(container) {
    const name = container.dataset.table;
    const [{ columns }] = await Promise.all([loaded(`index/table_${name}`), library("index/datatables")]);
    const element = document.createElement("table");
    element.className = "display compact";
    container.replaceChildren(element);
    const places = placesOf(columns);
    const table = new DataTable(element, {
      data: rowsOf(columns),
      columns: columns.map(columnOf),
      deferRender: true,
      order: [],
      autoWidth: false,
      layout: { topStart: "pageLength", topEnd: "search", bottomStart: "info", bottomEnd: "paging" },
    });
    container.querySelector("nav")?.setAttribute("aria-label", `Pages, ${container.ariaLabel}`);
    table.search.fixed("filters", (_text, row) => isShown(row, places)).draw();
    opened.set(name, table);
  }

  globalThis.whenSeen("[data-table]", open);
  filters.subscribe(() => opened.forEach((table) => table.draw()));
})();
